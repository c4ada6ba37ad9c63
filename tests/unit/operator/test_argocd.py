"""What Argo CD shows of a run and offers for it: the Lua of manifests/argocd on the golden statuses."""

import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from anomaly_api.status import Phase
from hack.generate import argocd as generator
from hack.generate.crds import CRD_DIR
from support import argocd, judged, objects
from support.kube import Manifest

KINDS = {"AnomalyExperiment": objects.EXPERIMENT, "AnomalyInference": objects.INFERENCE}
ACTIONS = {"suspend", "resume", "rerun"}


def resource(status: Manifest | None = None, kind: str = "AnomalyExperiment", generation: int = 1) -> Manifest:
    """Return a resource with this status; what the status does not say is about generation 1."""
    manifest = copy.deepcopy(KINDS[kind])
    manifest["metadata"]["generation"] = generation
    return manifest if status is None else manifest | {"status": {"observedGeneration": 1} | status}


def condition(kind: str, reason: str, message: str = "", status: str = "True") -> Manifest:
    """Return one condition."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


COMPLETE = {"phase": "Complete", "conditions": [condition("Complete", "Complete", "results are in s3://results")]}


@pytest.mark.parametrize("path", judged.INPUTS, ids=judged.name)
def test_health_of_every_golden_status(path: Path) -> None:
    run = judged.resource(path)
    health, message = argocd.health(run)
    assert health == judged.expected_health(run["status"])
    assert message


def test_the_golden_statuses_have_every_phase_and_every_health() -> None:
    statuses = [judged.resource(path)["status"] for path in judged.INPUTS]
    assert {status["phase"] for status in statuses} == {phase.value for phase in Phase}
    assert {judged.expected_health(status) for status in statuses} == judged.KSTATUS_OF_HEALTH.keys()


@pytest.mark.parametrize(
    ("conditions", "display", "expected"),
    [
        ([condition("Complete", "Complete", "results are in s3://results")], {}, "results are in s3://results"),
        ([condition("Complete", "Complete")], {}, "Complete"),
        ([condition("Failed", "DataInvalid", "train/good is empty")], {}, "DataInvalid: train/good is empty"),
        ([condition("Suspended", "Suspended", "runPolicy.suspend is true")], {}, "runPolicy.suspend is true"),
        ([condition("Reconciling", "Running")], {"progress": "train 21%"}, "Running: train 21%"),
        ([condition("Reconciling", "Pending")], {"auroc": "0.9"}, "Pending"),
        ([condition("Reconciling", "Unschedulable", "0/1 nodes")], {"progress": "x"}, "Unschedulable: 0/1 nodes"),
        ([condition("Complete", "Running", "", "False"), condition("Reconciling", "Running")], {}, "Running"),
    ],
)
def test_the_message_is_that_of_the_condition_or_the_progress(
    conditions: list[Manifest], display: Manifest, expected: str
) -> None:
    assert argocd.health(resource({"conditions": conditions, "display": display}))[1] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_resource_that_the_operator_has_not_seen_is_progressing(kind: str) -> None:
    schema = yaml.safe_load((CRD_DIR / f"{kind.lower()}s.yaml").read_text())["spec"]["versions"][0]["schema"]
    default = schema["openAPIV3Schema"]["properties"]["status"]["default"]
    for status in (None, default):
        assert argocd.health(resource(status, kind)) == ("Progressing", "the operator has not seen this spec yet")


def test_the_result_of_an_earlier_spec_is_not_shown_for_a_new_one() -> None:
    assert argocd.health(resource(COMPLETE))[0] == "Healthy"
    assert argocd.health(resource(COMPLETE, generation=2))[0] == "Progressing"


@pytest.mark.parametrize(
    ("phase", "health"), [("Pending", "Progressing"), ("Complete", "Healthy"), ("Failed", "Degraded")]
)
def test_without_conditions_the_phase_says_it_all(phase: str, health: str) -> None:
    assert argocd.health(resource({"phase": phase})) == (health, phase)


def test_what_a_person_has_to_do_degrades_a_run_that_waits() -> None:
    stalled = condition("Stalled", "JobRefused", "exceeded quota")
    assert argocd.health(resource({"phase": "Pending", "conditions": [stalled]}))[0] == "Degraded"
    assert (
        argocd.health(resource({"phase": "Pending", "conditions": [stalled | {"status": "False"}]}))[0] == "Progressing"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("phase", "suspend", "offered"),
    [
        (None, None, {"suspend"}),
        ("Pending", None, {"suspend"}),
        ("Waiting", False, {"suspend"}),
        ("Running", False, {"suspend"}),
        ("Running", True, {"resume"}),
        ("Suspended", True, {"resume"}),
        ("Complete", None, {"rerun"}),
        ("Failed", False, {"rerun"}),
        ("Failed", True, {"rerun", "resume"}),
    ],
)
def test_actions_that_would_change_nothing_are_not_offered(
    kind: str, phase: str | None, suspend: bool | None, offered: set[str]
) -> None:
    run = resource({"phase": phase} if phase else None, kind)
    if suspend is not None:
        run["spec"]["runPolicy"] = {"suspend": suspend}
    assert argocd.offered_actions(run) == offered


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_an_action_changes_the_run_policy_alone(kind: str, action: str) -> None:
    run = resource(COMPLETE | {"warnings": [], "thresholds": {"image": 12.345678901234567}}, kind)
    run["spec"] |= {"training": {}, "export": {"types": []}}
    for policy in (None, {"backoffLimit": 5, "suspend": action == "resume"}):
        given = run | {"spec": run["spec"] | ({"runPolicy": policy} if policy else {})}
        changed = argocd.after_action(action, copy.deepcopy(given))
        made = changed["spec"].pop("runPolicy")
        assert changed == run
        assert {name: value for name, value in made.items() if name not in ("suspend", "rerun")} == (
            {"backoffLimit": 5} if policy else {}
        )


def test_suspend_and_resume_set_the_field() -> None:
    suspended = argocd.after_action("suspend", resource())
    assert suspended["spec"]["runPolicy"] == {"suspend": True}
    assert argocd.after_action("resume", suspended)["spec"]["runPolicy"] == {"suspend": False}


def test_rerun_sets_the_time() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    text = argocd.after_action("rerun", resource(COMPLETE))["spec"]["runPolicy"]["rerun"]
    assert timedelta(0) <= datetime.fromisoformat(text) - before < timedelta(seconds=60)


def test_scripts_have_only_what_argo_cd_opens() -> None:
    for call in ('("x"):upper()', 'string.upper("x")', "os.date()", 'require("os").getenv("HOME")', "math.floor(1)"):
        with pytest.raises(argocd.LuaError):
            argocd.run(f"return {call}", {})


def test_the_config_map_has_the_scripts() -> None:
    data = yaml.safe_load(generator.WRITTEN.read_text())["data"]
    assert data.keys() == {
        f"resource.customizations.{what}.anomalyops.io_{kind}" for what in ("health", "actions") for kind in KINDS
    }
    for kind in KINDS:
        assert data[f"resource.customizations.health.anomalyops.io_{kind}"] == argocd.script(kind, "health.lua")
        actions = yaml.safe_load(data[f"resource.customizations.actions.anomalyops.io_{kind}"])
        assert actions["discovery.lua"] == argocd.script(kind, "actions", "discovery.lua")
        assert {item["name"]: item["action.lua"] for item in actions["definitions"]} == {
            name: argocd.script(kind, "actions", name, "action.lua") for name in ACTIONS
        }


def test_the_chart_has_the_same_config_map() -> None:
    assert generator.COPY.read_bytes() == generator.WRITTEN.read_bytes()
