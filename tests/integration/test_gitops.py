"""What docs/gitops.md says of Argo CD and Flux, on a real API server, with what they use: apply, replace, patches.

But for one test no operator runs: the tests write the status that a run would have.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import Artifacts, Stage
from hack.generate import argocd as generator
from support import argocd, gitops
from support.fake_kubelet import active_pod, experiment, inference, mark_ended
from support.kube import KubectlError, Manifest, Namespace, kubectl
from support.process import OperatorProcess

pytestmark = pytest.mark.cluster

PAGE = (Path(__file__).parents[2] / "docs" / "gitops.md").read_text()
MANIFESTS = [
    manifest
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for manifest in yaml.safe_load_all(block)
]
RUNS = [manifest for manifest in MANIFESTS if manifest["apiVersion"].startswith("anomalyops.io/")]
NO_IMAGES = RunSummary(reason=Reason.DATA_INVALID, stage=Stage.DATASET, message="screw has no folder train/good")
RESULTS = RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, artifacts=Artifacts(root="s3://results/screws"))
PADIM, PATCHCORE = {"name": "padim"}, {"name": "patchcore"}
AT_WORK = {"phase": "Running", "startTime": "2026-01-02T03:04:05Z"}
REFUSAL = re.findall(r"`(spec\.model cannot change [^`]*)`", PAGE)
"""What the page says that the API server says."""


def screws(model: Manifest = PADIM, **spec: Any) -> Manifest:
    """Return an experiment, as it lies in git."""
    return experiment("screws", model=model, **spec)


def applied(namespace: Namespace, manifest: Manifest, *arguments: str, verb: str = "apply") -> str:
    """Have kubectl apply or replace a manifest."""
    placed = manifest | {"metadata": manifest["metadata"] | {"namespace": namespace.name}}
    return namespace.kubectl(verb, *arguments, "-f", "-", stdin=json.dumps(placed))


def at_work(namespace: Namespace, status: Manifest = AT_WORK) -> Manifest:
    """Apply an experiment, give it a status, and return it as it is then."""
    applied(namespace, screws())
    text = json.dumps({"status": {"observedGeneration": 1} | status})
    namespace.kubectl("patch", "aexp", "screws", "--subresource=status", "--type=merge", "-p", text)
    return namespace.get("aexp", "screws")


def act(namespace: Namespace, action: str) -> Manifest:
    """Run an action of Argo CD, and return the resource's spec.runPolicy."""
    changed = argocd.after_action(action, namespace.get("aexp", "screws"))
    namespace.patch("aexp", "screws", {"spec": {"runPolicy": changed["spec"]["runPolicy"]}})
    policy: Manifest = namespace.get("aexp", "screws")["spec"]["runPolicy"]
    return policy


def test_the_page_has_runs_in_waves(namespace: Namespace) -> None:
    for manifest in RUNS:
        kubectl(
            "create",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
            stdin=json.dumps(manifest | {"metadata": manifest["metadata"] | {"namespace": namespace.name}}),
        )
    first, second = RUNS
    wave = "argocd.argoproj.io/sync-wave"
    assert int(first["metadata"]["annotations"][wave]) < int(second["metadata"]["annotations"][wave])
    assert second["spec"]["model"]["experiment"] == first["metadata"]["name"]


def test_the_api_server_gives_a_new_resource_a_status_that_nobody_takes_for_a_result(namespace: Namespace) -> None:
    namespace.apply(screws(), inference("screws-today"))
    new = [namespace.get("aexp", "screws"), namespace.get("ainf", "screws-today")]
    assert gitops.kstatus(*new) == ["InProgress", "InProgress"]
    assert [argocd.health(run)[0] for run in new] == ["Progressing", "Progressing"]


def test_the_patch_leaves_other_keys_of_argo_cds_config_map(namespace: Namespace) -> None:
    namespace.kubectl("create", "configmap", "argocd-cm", "--from-literal=url=https://argocd.example.org")
    namespace.kubectl("patch", "configmap", "argocd-cm", "--patch-file", str(generator.WRITTEN))
    ours: Manifest = yaml.safe_load(generator.WRITTEN.read_text())["data"]
    assert namespace.get("configmap", "argocd-cm")["data"] == ours | {"url": "https://argocd.example.org"}


def test_the_config_map_is_a_patch_for_kustomize(cluster: str, tmp_path: Path) -> None:
    own = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm", "namespace": "argocd"},
        "data": {"url": "https://argocd.example.org"},
    }
    patches = yaml.safe_load(re.findall(r"`(patches: [^`]*)`", PAGE)[0])
    (tmp_path / "own.yaml").write_text(json.dumps(own))
    (tmp_path / "argocd-cm.yaml").write_text(generator.WRITTEN.read_text())
    (tmp_path / "kustomization.yaml").write_text(json.dumps({"resources": ["own.yaml"]} | patches))
    built = yaml.safe_load(kubectl("kustomize", str(tmp_path)))
    ours: Manifest = yaml.safe_load(generator.WRITTEN.read_text())["data"]
    assert built == own | {"data": ours | {"url": "https://argocd.example.org"}}


@pytest.mark.parametrize(
    "flags", [(), ("--server-side", "--field-manager=argocd-controller")], ids=["client", "server"]
)
def test_what_actions_set_stays_unless_git_has_the_field_or_replaces(
    namespace: Namespace, flags: tuple[str, ...]
) -> None:
    in_git = screws(runPolicy={"backoffLimit": 1})
    applied(namespace, in_git, *flags)
    assert act(namespace, "suspend")["suspend"] is True
    assert act(namespace, "rerun")["rerun"]
    applied(namespace, in_git, *flags)
    policy = namespace.get("aexp", "screws")["spec"]["runPolicy"]
    assert policy["suspend"] is True
    assert policy["rerun"]
    assert act(namespace, "resume")["suspend"] is False
    act(namespace, "suspend")
    force = ["--force-conflicts"] if flags else []
    applied(namespace, screws(runPolicy={"suspend": False}), *flags, *force)
    assert namespace.get("aexp", "screws")["spec"]["runPolicy"]["suspend"] is False
    act(namespace, "suspend")
    applied(namespace, in_git, verb="replace")
    replaced = namespace.get("aexp", "screws")["spec"]["runPolicy"]
    assert replaced["suspend"] is False
    assert "rerun" not in replaced


@pytest.mark.parametrize(("verb", "flags"), [("apply", ()), ("apply", ("--server-side",)), ("replace", ())])
def test_a_run_at_work_keeps_its_spec(namespace: Namespace, verb: str, flags: tuple[str, ...]) -> None:
    before = at_work(namespace)
    for dry_run in ("--dry-run=server", "--dry-run=none"):
        with pytest.raises(KubectlError, match=REFUSAL[0]):
            applied(namespace, screws(PATCHCORE), *flags, dry_run, *conflicts(flags), verb=verb)
    assert namespace.get("aexp", "screws")["metadata"]["generation"] == before["metadata"]["generation"]
    applied(namespace, screws(PADIM, runPolicy={"suspend": True}), *flags, *conflicts(flags), verb=verb)
    assert namespace.get("aexp", "screws")["spec"]["runPolicy"]["suspend"] is True


def conflicts(flags: tuple[str, ...]) -> list[str]:
    """Return the flag by which GitOps tools take over fields."""
    return ["--force-conflicts"] if "--server-side" in flags else []


@pytest.mark.parametrize("verb", ["apply", "replace"])
def test_force_makes_another_resource_of_a_run_at_work(namespace: Namespace, verb: str) -> None:
    before = at_work(namespace)
    applied(namespace, screws(PATCHCORE), "--force", verb=verb)
    after = namespace.get("aexp", "screws")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["status"]["observedGeneration"] == -1
    assert "startTime" not in after["status"]


def test_replace_with_force_does_so_without_any_change(namespace: Namespace) -> None:
    before = at_work(namespace, {"phase": "Complete", "startTime": AT_WORK["startTime"]})
    applied(namespace, screws(), "--force", verb="replace")
    assert namespace.get("aexp", "screws")["metadata"]["uid"] != before["metadata"]["uid"]


@pytest.mark.parametrize("phase", ["Complete", "Failed", "Suspended"])
@pytest.mark.parametrize("verb", ["apply", "replace"])
def test_a_run_that_is_over_or_suspended_takes_a_changed_spec(namespace: Namespace, verb: str, phase: str) -> None:
    reason = {"Complete": "Complete", "Failed": "DataInvalid", "Suspended": "Suspended"}[phase]
    end = {
        "type": phase,
        "status": "True",
        "reason": reason,
        "message": "",
        "lastTransitionTime": AT_WORK["startTime"],
        "observedGeneration": 1,
    }
    before = at_work(namespace, AT_WORK | {"phase": phase, "conditions": [end]})
    waiting = ("wait", f"--for=condition={phase}", "--timeout=1s", "aexp/screws")
    namespace.kubectl(*waiting)
    applied(namespace, screws(PATCHCORE), verb=verb)
    after = namespace.get("aexp", "screws")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert gitops.kstatus(after) == ["InProgress"]
    assert argocd.health(after)[0] == "Progressing"
    with pytest.raises(KubectlError, match="timed out"):
        namespace.kubectl(*waiting)


def test_the_api_server_fills_in_defaults_within_lists(namespace: Namespace) -> None:
    """Argo CD compares lists as a whole when it compares by itself."""
    assert "tolerations[].operator" in PAGE
    applied(namespace, screws(scheduling={"gpus": {"count": 0}, "tolerations": [{"key": "gpu"}]}))
    scheduling = namespace.get("aexp", "screws")["spec"]["scheduling"]
    assert scheduling["tolerations"] == [{"key": "gpu", "operator": "Equal"}]


def seen(namespace: Namespace) -> tuple[str, str, str]:
    """Return Argo CD's health and its message, and kstatus' verdict."""
    run = namespace.get("aexp", "screws")
    return *argocd.health(run), gitops.kstatus(run)[0]


def end_pod(namespace: Namespace, number: int, summary: RunSummary, exit_code: int = 0) -> None:
    """Have the pod of a run end, once the operator has begun that run and its Job has a pod."""
    began = ("wait", f"--for=jsonpath={{.status.run}}={number}", "--timeout=60s", "aexp/screws")
    namespace.kubectl(*began)
    status = namespace.wait_for("aexp", "screws", "at work", lambda found: "jobName" in found)
    mark_ended(namespace, active_pod(namespace, status["jobName"]), summary, exit_code)


def test_a_typo_repaired_suspended_and_repeated(namespace: Namespace, operator: OperatorProcess) -> None:
    in_git = screws(dataset={"source": {"s3": {"uri": "s3://factory"}}, "category": "screw"})
    applied(namespace, in_git)
    end_pod(namespace, 1, NO_IMAGES, ExitCode.DATA_INVALID)
    namespace.wait_for("aexp", "screws", "failed", lambda status: status.get("phase") == "Failed")
    assert seen(namespace) == ("Degraded", "DataInvalid: screw has no folder train/good", "Failed")

    in_git["spec"]["dataset"]["category"] = "screws"
    applied(namespace, in_git)
    assert seen(namespace)[0::2] == ("Progressing", "InProgress"), "whether or not the operator has seen it"
    namespace.kubectl("wait", "--for=jsonpath={.status.run}=2", "--timeout=60s", "aexp/screws")
    assert seen(namespace)[0::2] == ("Progressing", "InProgress")

    act(namespace, "suspend")
    namespace.wait_for("aexp", "screws", "suspended", lambda status: status.get("phase") == "Suspended")
    assert seen(namespace) == ("Suspended", "runPolicy.suspend is true", "Current")
    act(namespace, "resume")
    end_pod(namespace, 2, RESULTS)
    namespace.wait_for("aexp", "screws", "complete", lambda status: status.get("phase") == "Complete")
    assert seen(namespace) == ("Healthy", "results are in s3://results/screws", "Current")

    act(namespace, "rerun")
    assert seen(namespace)[0::2] == ("Progressing", "InProgress")
    end_pod(namespace, 3, RESULTS)
    done = namespace.wait_for("aexp", "screws", "complete again", lambda status: status.get("phase") == "Complete")
    assert [past["phase"] for past in done["history"]] == ["Complete", "Failed"]
    assert seen(namespace)[0::2] == ("Healthy", "Current")
