"""What should exist for a run: its Job, its search, or why there can be neither yet."""

import json
from dataclasses import replace
from typing import Any

import pytest

from anomaly_api.reasons import Reason
from anomaly_api.run import PROGRESS_PATH, PROGRESS_URL_ENV
from anomaly_api.status import RunStatus, TrainedBy
from anomaly_api.sweep_status import SweepStatus
from anomaly_operator.decide.desired import (
    Blocked,
    DesiredJob,
    DesiredSearch,
    DesiredState,
    desired_name,
    desired_state,
    sweep_problem,
)
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.runs import current_run, limits_digest, search_of
from anomaly_operator.resources import Manifest
from anomaly_operator.views import RunView
from support.objects import EXPERIMENT, INFERENCE, make_run, with_spec

SETTINGS = PodSettings(runner_image="r", inference_image="i", installation="system")
SWEEP = {
    "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 64}}],
    "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
}
BEGAN = "2026-01-02T03:04:05Z"


def sweep(policy: Manifest | None = None, **fields: Any) -> RunView:
    return make_run(with_spec(EXPERIMENT, sweep=SWEEP | fields, runPolicy={"preflight": "Never"} | (policy or {})))


def desired(run: RunView, status: RunStatus | None = None, experiment: RunView | None = None) -> DesiredState:
    return desired_state(run, current_run(run, status or RunStatus()), experiment, SETTINGS)


def blocked(state: DesiredState) -> Blocked:
    assert isinstance(state, Blocked)
    return state


# Sweeps ---------------------------------------------------------------------------------------------------------------


def test_a_sweep_desires_a_search() -> None:
    run = sweep({"activeDeadlineSeconds": 60})
    found = desired(run)
    assert isinstance(found, DesiredSearch)
    assert found.spec.sweep
    status = current_run(run, RunStatus())
    assert (found.search, found.limits, found.earlier) == (search_of(run, status), limits_digest(found.spec.sweep), ())
    assert found.policy.active_deadline_seconds == 60
    assert desired_name(run, status, found) == "", "a search has no Job"


def best(number: int, features: int | None) -> Manifest:
    values = None if features is None else {"model.padim.nFeatures": features}
    found = {"number": number, "objectives": {"image.AUROC": 0.9}, "values": values}
    return {name: value for name, value in found.items() if value is not None}


def july(phase: str = "Complete", **status: Any) -> RunView:
    """Return an earlier experiment with a sweep of which three points are recorded."""
    known = {"asked": 4, "best": [best(3, 7), best(1, None), best(0, 9), best(2, 5)]}
    manifest = with_spec(EXPERIMENT, sweep=SWEEP) | {"metadata": {"name": "july", "namespace": "vision"}}
    return make_run(manifest, {"phase": phase, "sweep": known} | status)


@pytest.mark.parametrize(("top", "features"), [({}, [7, 9, 5]), ({"top": 3}, [7, 9]), ({"top": 1}, [7])])
@pytest.mark.parametrize("phase", ["Complete", "Failed"])
def test_a_sweep_begins_with_the_best_points_of_an_earlier_one(phase: str, top: Manifest, features: list[int]) -> None:
    august = sweep(start={"fromExperiment": {"name": "july"} | top})
    found = desired(august, experiment=july(phase))
    assert isinstance(found, DesiredSearch)
    assert found.earlier == tuple({"model.padim.nFeatures": count} for count in features)


@pytest.mark.parametrize(
    "earlier", [None, july("Running"), july("Pending"), make_run(EXPERIMENT, {"phase": "Complete"})]
)
def test_a_sweep_waits_for_the_end_of_the_earlier_one(earlier: RunView | None) -> None:
    august = sweep({"suspend": True}, start={"fromExperiment": {"name": "july"}})
    found = blocked(desired(august, experiment=earlier))
    assert (found.reason, found.stalled, found.final) == (Reason.WAITING_FOR_EXPERIMENT, False, False)
    assert "AnomalyExperiment july is not over" in found.message
    assert found.policy
    assert found.policy.suspend


@pytest.mark.parametrize("earlier", [None, july("Running"), july("Melted")])
def test_a_sweep_that_has_begun_needs_the_earlier_one_no_more(earlier: RunView | None) -> None:
    august = sweep(start={"fromExperiment": {"name": "july"}})
    new = current_run(august, RunStatus())
    begun = SweepStatus(search=search_of(august, new), asked=1, earlier=({"model.padim.nFeatures": 7},))
    assert isinstance(desired(august, new.model_copy(update={"sweep": begun}), earlier), DesiredSearch)
    other = begun.model_copy(update={"search": "another"})
    assert isinstance(desired(august, new.model_copy(update={"sweep": other}), earlier), Blocked)


def test_an_earlier_sweep_that_cannot_be_read_is_named() -> None:
    august = sweep(start={"fromExperiment": {"name": "july"}})
    found = blocked(desired(august, experiment=july("Melted")))
    assert (found.reason, found.stalled) == (Reason.WAITING_FOR_EXPERIMENT, True)
    assert "the status of AnomalyExperiment july cannot be read" in found.message
    assert "status.phase" in found.message
    assert found.policy


def test_a_sweep_with_points_of_its_own_waits_for_none() -> None:
    assert isinstance(desired(sweep(start={"points": [{"model.padim.nFeatures": 3}]})), DesiredSearch)


def at_work(asked: int, search: str = "another") -> RunStatus:
    fields = {"run": 1, "specDigest": "d", "observedGeneration": 1, "startTime": BEGAN, "phase": "Running"}
    return RunStatus.model_validate(fields | {"sweep": {"search": search, "asked": asked}})


def test_a_search_that_is_changed_at_work_goes_on_once_it_is_put_back() -> None:
    run = sweep({"suspend": True})
    found = blocked(desired_state(run, at_work(1), None, SETTINGS))
    assert (found.reason, found.stalled, found.final) == (Reason.SPEC_INVALID, True, False)
    assert found.message.startswith("spec.sweep was changed while the search is at work")
    assert found.policy
    assert found.policy.suspend
    assert isinstance(desired_state(run, at_work(0), None, SETTINGS), DesiredSearch), "nothing was asked yet"
    same = at_work(1, search_of(run, at_work(1)))
    assert isinstance(desired_state(run, same, None, SETTINGS), DesiredSearch)
    over = at_work(1).model_copy(update={"phase": "Complete"})
    assert isinstance(desired_state(run, over, None, SETTINGS), DesiredSearch)


def test_what_cannot_work_in_a_sweep_is_told_before_it_begins() -> None:
    wrong = sweep(parameters=[{"path": "model.padim.nFeatures", "choices": ["many"]}])
    found = blocked(desired(wrong))
    assert (found.reason, found.stalled, found.policy) == (Reason.SPEC_INVALID, True, None)
    assert found.message.startswith("spec.sweep.parameters[0].choices[0]: ")
    assert sweep_problem(wrong.spec) == found.message
    assert sweep_problem(sweep().spec) is None
    unreadable = make_run(with_spec(EXPERIMENT, model={"name": "of-a-later-release"}))
    assert "spec.model.name" in (sweep_problem(unreadable.spec) or "")


def test_an_impossible_trial_has_failed() -> None:
    trial = {"sweep": "hunt", "number": 1, "values": {}, "problem": "stride may be at most tileSize"}
    found = blocked(desired(make_run(with_spec(EXPERIMENT, trial=trial))))
    assert found == Blocked(Reason.INVALID_CONFIG, "stride may be at most tileSize", final=True)


def told(state: DesiredState) -> tuple[str, Manifest]:
    """Return the name of the desired Job, and what its pod is told."""
    assert isinstance(state, DesiredJob)
    made = state.make()
    metadata = made["metadata"]
    assert (state.name, state.config_digest) == (
        metadata["name"],
        metadata["annotations"]["anomalyops.io/run-config-digest"],
    )
    config: Manifest = json.loads(made["spec"]["template"]["metadata"]["annotations"]["anomalyops.io/run-config"])
    return state.name, config


CHECKED = {"name": "check", "jobName": "screws-experiment-check"}
SEARCHED = {"name": "search", "jobName": ""}


def second(run: RunView, *steps: Manifest) -> RunStatus:
    """Return the status of the second run of a sweep, which goes on with the four trials of the first."""
    found = {"asked": 4, "best": [best(3, 7)], "search": search_of(run, RunStatus(run=2))}
    return RunStatus.model_validate({"run": 2, "steps": steps or None, "sweep": found})


def test_the_check_of_a_sweep_knows_of_no_sweep() -> None:
    run = sweep({"preflight": "Always"})
    for known in ({}, {"sweep": {"asked": 0}}):  # it was suspended before it asked anything
        status = RunStatus.model_validate({"run": 2} | known)
        name, config = told(desired_state(run, status, None, SETTINGS))
        assert (name, config["step"]) == ("screws-experiment-2-check", "check")
        assert "sweep" not in config
        assert "sweep" not in config["experiment"]


def test_the_end_of_a_sweep_trains_its_best_point_and_tells_of_the_search() -> None:
    run = sweep({"preflight": "Always"})
    name, config = told(desired_state(run, second(run, CHECKED, SEARCHED), None, SETTINGS))
    assert (name, config["experiment"]["model"]["padim"]["nFeatures"]) == ("screws-experiment-2", 7)
    assert config["sweep"]["status"]["asked"] == 4
    assert [one["path"] for one in config["sweep"]["spec"]["parameters"]] == ["model.padim.nFeatures"]
    assert ("failure" in config["sweep"], "sweep" in config["experiment"]) == (False, False)
    failure = {"reason": "TrialsFailed", "message": "4 trials failed"}
    failed = second(run, CHECKED, SEARCHED | {"failure": failure})
    name, config = told(desired_state(run, failed, None, SETTINGS))
    assert (name, config["sweep"]["failure"]) == ("screws-experiment-2", failure)


def test_the_jobs_of_an_inference_have_its_run_and_step() -> None:
    run = make_run(with_spec(INFERENCE, runPolicy={"preflight": "Always"}))
    first = told(desired_state(run, RunStatus(run=3), trained(), SETTINGS))
    assert (first[0], first[1]["step"], first[1]["run"]["number"]) == ("screws-today-inference-3-check", "check", 3)
    checked = RunStatus.model_validate({"steps": [CHECKED | {"jobName": "screws-today-inference-check"}]})
    then = told(desired_state(run, checked, trained(), SETTINGS))
    assert (then[0], "number" in then[1]["run"]) == ("screws-today-inference", False)
    assert then[1]["inference"]["model"]["location"]["s3"]["uri"] == "s3://results/vision/screws/u"


# Jobs -----------------------------------------------------------------------------------------------------------------


def test_the_job_of_an_experiment() -> None:
    run = make_run(with_spec(EXPERIMENT, runPolicy={"preflight": "Never", "backoffLimit": 1}))
    found = desired(run)
    assert isinstance(found, DesiredJob)
    assert (found.name, found.installation, found.trained_by) == ("screws-experiment", "system", None)
    assert found.policy.backoff_limit == 1
    assert found.make()["metadata"]["name"] == "screws-experiment"
    assert desired_name(run, RunStatus(), found) == "screws-experiment"
    other = desired(make_run(with_spec(EXPERIMENT, runPolicy={"preflight": "Never", "backoffLimit": 2})))
    assert isinstance(other, DesiredJob)
    assert other.config_digest == found.config_digest, "the pod is not told of it"


@pytest.mark.parametrize("url", ["http://operator:8080", "http://operator:8080/", None])
def test_a_pod_is_told_where_to_push_its_progress(url: str | None) -> None:
    run = make_run(with_spec(EXPERIMENT, runPolicy={"preflight": "Never"}))
    found = desired_state(run, RunStatus(), None, replace(SETTINGS, service_url=url))
    assert isinstance(found, DesiredJob)
    [container] = found.make()["spec"]["template"]["spec"]["containers"]
    urls = [one["value"] for one in container["env"] if one["name"] == PROGRESS_URL_ENV]
    assert urls == (["http://operator:8080" + PROGRESS_PATH] if url else [])


def test_the_job_at_work_has_a_name_also_if_there_should_be_none() -> None:
    run = make_run(INFERENCE)
    waits = blocked(desired(run))
    assert desired_name(run, RunStatus(), waits) == "screws-today-inference"
    assert desired_name(run, RunStatus(run=3), waits) == "screws-today-inference-3"
    at_work = RunStatus(run=3, job_name="screws-today-inference-3-check")
    assert desired_name(run, at_work, waits) == "screws-today-inference-3-check"


ARTIFACTS = {"root": "s3://results/vision/screws/u"}


def trained(of: Manifest = EXPERIMENT, **status: Any) -> RunView:
    """Return an experiment whose second run is Complete."""
    recorded = {"run": 2, "phase": "Complete", "artifacts": ARTIFACTS, "observedGeneration": 1} | status
    return make_run(of, recorded, uid="of-screws")


def test_an_inference_uses_the_model_of_the_last_complete_run() -> None:
    found = desired(make_run(INFERENCE), experiment=trained())
    assert isinstance(found, DesiredJob)
    assert found.trained_by == TrainedBy(namespace="vision", name="screws", uid="of-screws", run=2)


@pytest.mark.parametrize(
    ("phase", "reason", "stalled"),
    [
        ("Failed", Reason.EXPERIMENT_FAILED, True),
        ("Running", Reason.WAITING_FOR_EXPERIMENT, False),
        ("Pending", Reason.WAITING_FOR_EXPERIMENT, False),
    ],
)
def test_an_inference_without_a_model_says_why(phase: str, reason: Reason, stalled: bool) -> None:
    run = make_run(with_spec(INFERENCE, runPolicy={"suspend": True}))
    found = blocked(desired(run, experiment=trained(phase=phase)))
    assert (found.reason, found.stalled, found.final) == (reason, stalled, False)
    assert found.message.startswith("AnomalyExperiment screws ")
    assert found.policy
    assert found.policy.suspend


def test_an_inference_whose_experiment_is_not_there_says_which_one() -> None:
    found = blocked(desired(make_run(with_spec(INFERENCE, runPolicy={"suspend": True}))))
    assert (found.reason, found.stalled) == (Reason.EXPERIMENT_NOT_FOUND, False)
    assert "AnomalyExperiment screws" in found.message
    assert found.policy
    assert found.policy.suspend


@pytest.mark.parametrize("root", [None, ""])
def test_a_pruned_trial_has_no_model_to_wait_for(root: str | None) -> None:
    artifacts = None if root is None else {"root": root}
    found = blocked(desired(make_run(INFERENCE), experiment=trained(artifacts=artifacts)))
    assert (found.reason, found.stalled) == (Reason.WAITING_FOR_EXPERIMENT, True)
    assert found.message.startswith("AnomalyExperiment screws is Complete without a model")
    assert found.policy


@pytest.mark.parametrize(
    ("used", "run"),
    [
        ({"uid": "of-screws", "run": 1}, 1),
        ({"uid": "of-screws"}, 1),
        ({"uid": "of-screws", "run": 7}, 2),  # nobody knows it any more
        ({"uid": "of-an-earlier-one", "run": 1}, 2),
    ],
)
def test_a_pod_that_began_with_a_model_keeps_it(used: Manifest, run: int) -> None:
    past = {"run": 1, "phase": "Complete", "reason": "Complete", "artifacts": ARTIFACTS | {"root": "s3://results/1"}}
    begun = {"startTime": BEGAN, "trainedBy": {"namespace": "vision", "name": "screws"} | used}
    for status, expected in ((begun, run), ({"trainedBy": begun["trainedBy"]}, 2)):
        recorded = RunStatus.model_validate(status)
        found = desired_state(make_run(INFERENCE), recorded, trained(history=[past]), SETTINGS)
        assert isinstance(found, DesiredJob)
        assert found.trained_by
        assert found.trained_by.run == expected


@pytest.mark.parametrize("part", ["status", "spec"])
def test_an_experiment_of_a_later_release_is_waited_for(part: str) -> None:
    later = with_spec(EXPERIMENT, model={"name": "of-a-later-release"})
    experiment = trained(phase="Melted") if part == "status" else trained(of=later)
    found = blocked(desired(make_run(with_spec(INFERENCE, runPolicy={"suspend": True})), experiment=experiment))
    assert (found.reason, found.stalled) == (Reason.WAITING_FOR_EXPERIMENT, True)
    field = {"status": "status.phase", "spec": "spec.model.name"}[part]
    why = f"the {part} of AnomalyExperiment screws cannot be read by this release of the operator: {field}: Input"
    assert found.message.startswith(why)
    assert found.policy
    assert found.policy.suspend


def test_a_spec_that_is_not_valid_is_told() -> None:
    for manifest in (EXPERIMENT, INFERENCE):
        found = blocked(desired(make_run(with_spec(manifest, output=7))))
        assert (found.reason, found.stalled, found.final, found.policy) == (Reason.SPEC_INVALID, True, False, None)
        assert "spec.output" in found.message
