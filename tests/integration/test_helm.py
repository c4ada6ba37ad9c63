"""The chart renders the objects of manifests/base, except for Helm's own labels."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.absent import absent

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "anomaly-operator"
SYSTEM = "anomaly-system"
HELMS_OWN = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "app.kubernetes.io/part-of")

Objects = dict[tuple[str, str, str], dict[str, Any]]


def helm(*arguments: str) -> str:
    found = shutil.which("helm") or next(
        (str(path) for path in [Path("/var/tmp/anomaly-cluster/bin/helm")] if path.exists()), None
    )
    if found is None:
        absent("no helm on the PATH: hack/cluster/cluster build makes one")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(*flags: str) -> Objects:
    return by_name(helm("template", "anomaly-operator", str(CHART), f"--namespace={SYSTEM}", "--include-crds", *flags))


class Yaml12(yaml.SafeLoader):
    """Reads 1e-05, which kustomize writes, as a number like Kubernetes; YAML 1.1 requires a decimal point."""


Yaml12.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^-?\d+(\.\d*)?[eE][-+]?\d+$"), list("-0123456789"))


def by_name(text: str) -> Objects:
    objects = [item for item in yaml.load_all(text, Loader=Yaml12) if item]
    return {
        (item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]): without_labels(item)
        for item in objects
    }


def without_labels(item: dict[str, Any]) -> dict[str, Any]:
    labels = item["metadata"].get("labels", {})
    for name in HELMS_OWN:
        labels.pop(name, None)
    if not labels:
        item["metadata"].pop("labels", None)
    return item


def test_lint() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_the_chart_equals_the_kustomize_base() -> None:
    base = by_name(
        subprocess.run(
            ["kubectl", "kustomize", str(ROOT / "manifests" / "base")], capture_output=True, text=True, check=True
        ).stdout
    )
    namespace = base.pop(("Namespace", "", SYSTEM))  # helm install --create-namespace makes it
    assert namespace["metadata"]["name"] == SYSTEM
    chart = rendered()
    assert chart.keys() == base.keys()
    for key in base:
        assert chart[key] == base[key], key


def test_named_namespaces_get_rights_in_those_alone() -> None:
    objects = rendered("--set", "watchNamespaces={vision,lab}")
    assert [rule["resources"] for rule in objects["ClusterRole", "", "anomaly-operator"]["rules"]] == [["tokenreviews"]]
    for name in ("vision", "lab"):
        verbs = {
            rule["resources"][0]: rule["verbs"] for rule in objects["Role", name, "anomaly-operator-runs"]["rules"]
        }
        assert verbs["jobs"] == ["get", "list", "watch", "create", "patch", "delete"]
        assert ("RoleBinding", name, "anomaly-operator-runs") in objects
    assert environment(objects)["ANOMALY_WATCH_NAMESPACES"] == "vision,lab"


def test_values_reach_the_deployment() -> None:
    images = "image=r/operator:2,runs.runnerImage=r/runner:2,runs.inferenceImage=r/inference:2"
    objects = rendered("--set", images, "--set", "replicas=1,networkPolicy.enabled=false")
    deployment = objects["Deployment", SYSTEM, "anomaly-operator"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "r/operator:2"
    variables = environment(objects)
    assert variables["ANOMALY_RUNNER_IMAGE"] == "r/runner:2"
    assert variables["ANOMALY_INFERENCE_IMAGE"] == "r/inference:2"
    assert not any(kind == "NetworkPolicy" for kind, _, _ in objects)


def test_where_and_how_the_operator_runs_is_told_to_its_pods() -> None:
    given = {
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{"name": "registry"}],
        "resources": {"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists", "effect": "NoSchedule"}],
    }
    flags = (flag for name, value in given.items() for flag in ("--set-json", f"{name}={json.dumps(value)}"))
    pod = rendered(*flags)["Deployment", SYSTEM, "anomaly-operator"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert {name: (container if name in container else pod)[name] for name in given} == given


def test_settings_reach_the_operator() -> None:
    runs = "runs.imagePullPolicy=Never,runs.nodeCache=/var/cache/anomaly"
    variables = environment(rendered("--set", runs, "--set", "leaseSeconds=45,logLevel=DEBUG"))
    assert variables["ANOMALY_IMAGE_PULL_POLICY"] == "Never"
    assert variables["ANOMALY_NODE_CACHE"] == "/var/cache/anomaly"
    assert variables["ANOMALY_LEASE_SECONDS"] == "45"
    assert variables["ANOMALY_LOG_LEVEL"] == "DEBUG"


def test_people_get_rights_unless_it_is_asked_otherwise() -> None:
    of_people = {("ClusterRole", "", "anomaly-view"), ("ClusterRole", "", "anomaly-edit")}
    assert rendered().keys() - rendered("--set", "userRoles.enabled=false").keys() == of_people


def environment(objects: Objects) -> dict[str, str]:
    container = objects["Deployment", SYSTEM, "anomaly-operator"]["spec"]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def test_a_misspelt_value_is_refused() -> None:
    with pytest.raises(AssertionError, match="replica"):
        rendered("--set", "replica=1")
