"""The CRDs on a real API server: both sides accept valid manifests, and refuse invalid ones with the field's path."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference
from support.bad_manifests import BAD, SWEEPS, base, merged, whole_sweep
from support.kube import KubectlError, Manifest, Namespace, kubectl

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
KINDS: dict[str, type[AnomalyExperiment | AnomalyInference]] = {
    "AnomalyExperiment": AnomalyExperiment,
    "AnomalyInference": AnomalyInference,
}


def manifests() -> list[Any]:
    return [
        pytest.param(kind, case["change"], case["path"], id=f"{kind}: {case['why']}")
        for kind, cases in BAD.items()
        for case in cases
    ]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_accepted_and_come_back_as_pydantic_reads_them(namespace: Namespace, path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text()):
        namespace.apply(manifest)
        kind = KINDS[manifest["kind"]]
        stored = namespace.get(kind.plural, manifest["metadata"]["name"])
        assert kind.model_validate(stored).spec == kind.model_validate(manifest).spec, "defaults are the same"


def sweeps() -> list[Any]:
    whole = base("AnomalyExperiment")
    whole["spec"] |= {"sweep": whole_sweep()}
    samples = [pytest.param(yaml.safe_load(file.read_text()), id=file.stem) for file in SWEEPS]
    return [pytest.param(whole, id="whole"), *samples]


@pytest.mark.parametrize("manifest", sweeps())
def test_a_good_sweep_is_accepted(cluster: str, manifest: Manifest) -> None:
    manifest["metadata"]["namespace"] = "default"
    assert "created" in kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))


def test_a_trial_is_kept_as_it_is(namespace: Namespace) -> None:
    """Values are of any type: the API server neither prunes nor changes them."""
    size = {"height": 64, "width": 32}
    values = {"model.padim.nFeatures": None, "transforms.inputSize": size, "a.b": [[1], {"c": 0.5}]}
    manifest = base("AnomalyExperiment")
    manifest["metadata"]["namespace"] = namespace.name
    manifest["spec"]["trial"] = {"sweep": "whole", "number": 17, "values": values}
    # kubectl's own check stumbles over a null in a map.
    namespace.kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(manifest))
    stored = namespace.get("aexp", manifest["metadata"]["name"])["spec"]["trial"]
    assert stored == {"sweep": "whole", "number": 17, "rung": 0, "replicate": 0, "values": values}


def test_there_are_many_bad_manifests() -> None:
    assert sum(map(len, BAD.values())) >= 40


@pytest.mark.parametrize(("kind", "change", "path"), manifests())
def test_the_api_server_refuses_bad_manifests(cluster: str, kind: str, change: Manifest, path: str) -> None:
    bad = merged(base(kind), {"spec": change} | {"metadata": {"namespace": "default"}})
    with pytest.raises(KubectlError) as refusal:
        kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(bad))
    assert path in refusal.value.args[0], "the message leads to the field"


@pytest.mark.parametrize(
    "field",
    [
        "aexp.spec",
        "aexp.spec.model",
        "aexp.spec.model.padim",
        "ainf.spec.threshold",
        "aexp.spec.scheduling.gpus",
        "aexp.status.conditions",
    ],
)
def test_kubectl_explains_every_field(cluster: str, field: str) -> None:
    text = kubectl("explain", field)
    described = re.findall(r"^  (\w+)\t<.*\n(?:  enum:.*\n)?    (\S.*)$", text, re.MULTILINE)
    fields = re.findall(r"^  (\w+)\t<", text, re.MULTILINE)
    assert fields
    assert [name for name, _ in described] == fields, "each field has a description"


def test_a_started_run_keeps_what_it_depends_on(namespace: Namespace) -> None:
    for kind, resource in (("AnomalyExperiment", "aexp"), ("AnomalyInference", "ainf")):
        manifest = base(kind)
        name = manifest["metadata"]["name"]
        namespace.apply(manifest)
        namespace.patch(resource, name, {"spec": {"tracking": {"mlflow": {"experimentName": "before"}}}})
        started = {"status": {"startTime": "2026-01-02T03:04:05Z"}}
        namespace.kubectl("patch", resource, name, "--subresource=status", "--type=merge", "-p", json.dumps(started))
        spec_type = KINDS[kind].model_fields["spec"].annotation
        assert spec_type is not None
        blocks = set(spec_type.model_fields)
        for block, change in CHANGES[kind].items():
            with pytest.raises(KubectlError, match=rf"spec\.{block}.*cannot change while the run is at work"):
                namespace.patch(resource, name, {"spec": {block: change}})
        namespace.patch(resource, name, {"spec": {"runPolicy": {"suspend": True, "backoffLimit": 1}}})
        assert "run_policy" in blocks


def test_a_sweep_at_work_keeps_its_parameters_and_what_it_aims_at(namespace: Namespace) -> None:
    first, second = ({"path": path, "int": {"low": 1, "high": 9}} for path in ("dataset.seed", "model.padim.nFeatures"))
    auroc = {"metric": "image.AUROC", "goal": "maximize"}
    latency = {"metric": "performance.latencyMilliseconds", "goal": "minimize"}
    manifest = base("AnomalyExperiment")
    manifest["spec"]["sweep"] = {"parameters": [first, second], "objectives": [auroc, latency], "trials": {"max": 4}}
    namespace.apply(manifest)
    name = manifest["metadata"]["name"]
    started = {"status": {"startTime": "2026-01-02T03:04:05Z"}}
    namespace.kubectl("patch", "aexp", name, "--subresource=status", "--type=merge", "-p", json.dumps(started))
    for change in (
        {"parameters": [second, first]},
        {"parameters": [first | {"int": {"low": 1, "high": 99}}, second]},
        {"parameters": [{"path": first["path"], "float": {"low": 1, "high": 9}}, second]},
        {"objectives": [latency, auroc]},
        {"objectives": [auroc | {"goal": "minimize"}, latency | {"goal": "maximize"}]},
        {"objectives": [auroc]},
    ):
        with pytest.raises(KubectlError, match=r"spec\.sweep cannot change while the run is at work"):
            namespace.patch("aexp", name, {"spec": {"sweep": change}})
    namespace.patch("aexp", name, {"spec": {"sweep": {"objectives": [auroc | {"target": 0.99}, latency]}}})


CHANGES: dict[str, dict[str, Any]] = {
    "AnomalyExperiment": {
        "dataset": {"category": "other"},
        "transforms": {"inputSize": {"height": 64}},
        "model": {"padim": {"nFeatures": 7}},
        "training": {"trainBatchSize": 7},
        "evaluation": {"visualization": None},
        "export": {"types": []},
        "output": {"keepCheckpoint": True},
        "tracking": {"mlflow": None},
        "scheduling": {"gpus": {"count": 2}},
        "trial": {"sweep": "a", "number": 1},
    },
    "AnomalyInference": {
        "model": {"experiment": "other"},
        "input": {"category": "other"},
        "threshold": {"source": "training"},
        "batchSize": 7,
        "numWorkers": 7,
        "visualization": {"enabled": False},
        "output": {"keepCheckpoint": True},
        "tracking": {"mlflow": None},
        "scheduling": {"gpus": {"count": 2}},
    },
}


def test_status_is_as_strict_as_spec(namespace: Namespace) -> None:
    manifest = base("AnomalyExperiment")
    namespace.apply(manifest)
    name = manifest["metadata"]["name"]
    for status in ({"phase": "Dancing"}, {"conditions": [{"type": "Nonsense"}]}, {"progress": {"percent": 101}}):
        with pytest.raises(KubectlError, match=r"status\."):
            namespace.kubectl(
                "patch", "aexp", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
            )


def test_a_new_object_is_never_taken_for_one_that_is_done(namespace: Namespace) -> None:
    """Kstatus calls an object without conditions Current, unless its observedGeneration is not its generation."""
    for kind in ("AnomalyExperiment", "AnomalyInference"):
        manifest = base(kind)
        namespace.apply(manifest)
        new = namespace.get(KINDS[kind].plural, manifest["metadata"]["name"])
        assert new["status"]["observedGeneration"] != new["metadata"]["generation"]


def test_both_kinds_are_listed_by_their_category(namespace: Namespace) -> None:
    namespace.apply(base("AnomalyExperiment"), base("AnomalyInference"))
    names = namespace.kubectl("get", "anomaly", "-o", "name").split()
    assert len(names) == 2
