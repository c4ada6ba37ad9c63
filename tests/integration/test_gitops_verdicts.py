"""What Flux and Argo CD make of every golden status, said by kstatus and by gopher-lua, the libraries that they use."""

import copy
from typing import Any

import pytest
import yaml

from hack.generate.crds import CRD_DIR
from support import argocd, gitops, judged, objects
from support.kube import Manifest

RUNS = {judged.name(path): judged.resource(path) for path in judged.INPUTS}
ACTIONS = ("suspend", "resume", "rerun")


def with_metadata(run: Manifest, **metadata: Any) -> Manifest:
    """Return a run with fields of its metadata replaced."""
    return run | {"metadata": run["metadata"] | metadata}


def test_kstatus_agrees_with_the_phase_of_every_golden_status() -> None:
    verdicts = dict(zip(RUNS, gitops.kstatus(*RUNS.values()), strict=True))
    expected = {name: judged.expected_health(run["status"]) for name, run in RUNS.items()}
    assert verdicts == {name: judged.KSTATUS_OF_HEALTH[health] for name, health in expected.items()}


def test_a_changed_spec_is_in_progress_whatever_became_of_the_one_before() -> None:
    later = [with_metadata(run, generation=run["metadata"]["generation"] + 1) for run in RUNS.values()]
    assert set(gitops.kstatus(*later)) == {"InProgress"}


def test_a_resource_that_is_being_deleted_is_terminating() -> None:
    leaving = [with_metadata(run, deletionTimestamp=objects.CREATED) for run in RUNS.values()]
    assert set(gitops.kstatus(*leaving)) == {"Terminating"}


@pytest.mark.parametrize("manifest", [objects.EXPERIMENT, objects.INFERENCE], ids=lambda manifest: manifest["kind"])
def test_a_resource_that_the_operator_has_not_seen_is_never_current(manifest: Manifest) -> None:
    crd = yaml.safe_load((CRD_DIR / f"{manifest['kind'].lower()}s.yaml").read_text())
    default = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["default"]
    new = with_metadata(manifest, generation=1)
    assert gitops.kstatus(new | {"status": default}, new) == ["InProgress", "Current"], "it is the default that matters"


def test_argo_cd_runs_the_scripts_as_lua_does() -> None:
    """gopher-lua is not Lua in everything: it has kept a variable's old value where Lua assigns nil."""
    calls: list[tuple[str, Manifest]] = []
    for run in RUNS.values():
        for policy in ({}, {"runPolicy": {"suspend": True}}):
            given = run | {"spec": run["spec"] | policy}
            calls += [(script, given) for script in scripts(given["kind"])]
            calls += [(script, with_metadata(given, generation=9)) for script in scripts(given["kind"])]
    made = [argocd.run(script, copy.deepcopy(run)) for script, run in calls]
    assert [without_time(value) for value in gitops.gopher_lua(calls)] == [without_time(value) for value in made]


def scripts(kind: str) -> list[str]:
    """Return all scripts of a kind."""
    paths = [("health.lua",), ("actions", "discovery.lua"), *(("actions", name, "action.lua") for name in ACTIONS)]
    return [argocd.script(kind, *path) for path in paths]


def without_time(value: Any) -> Any:
    """Return what a script returned, without the time of rerun."""
    policy = value.get("spec", {}).get("runPolicy", {})
    if "rerun" in policy:
        assert len(policy["rerun"]) == len(objects.CREATED)
        policy["rerun"] = objects.CREATED
    return emptied(value)


def emptied(value: Any) -> Any:
    """Return the value with None for what is empty: an empty table of Lua is both a list and an object."""
    if isinstance(value, dict):
        return {name: emptied(item) for name, item in value.items()} or None
    return [emptied(item) for item in value] or None if isinstance(value, list) else value
