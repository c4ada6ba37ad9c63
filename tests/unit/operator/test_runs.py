"""Which run of its resource a status belongs to: what begins another run, and what is kept of the one before."""

from typing import Any

import pytest

from anomaly_api.reasons import Reason
from anomaly_api.status import Condition, ConditionType, PastRun, Phase, RunStatus
from anomaly_operator import names
from anomaly_operator.decide.runs import (
    complete_run,
    current_run,
    is_search_over,
    kept_of_run,
    last_complete,
    limits_digest,
    search_of,
    spec_digest,
)
from anomaly_operator.decide.specs import experiment_spec
from anomaly_operator.resources import Manifest
from anomaly_operator.views import RunView
from support.objects import EXPERIMENT, INFERENCE, make_run, with_spec

BEGAN, ENDED = "2026-01-02T03:04:05Z", "2026-01-02T03:34:05Z"
OTHER_MODEL = with_spec(EXPERIMENT, model={"name": "patchcore"})
CHECKED = {"name": "check", "jobName": "screws-experiment-check"}


def resource(manifest: Manifest = EXPERIMENT, generation: int = 2, **policy: Any) -> RunView:
    """Make a resource whose spec was changed once."""
    return make_run(with_spec(manifest, runPolicy=policy) if policy else manifest, generation=generation)


def condition(kind: str, status: str = "True", reason: str = "Complete", message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": ENDED}


def recorded(manifest: Manifest = EXPERIMENT, **fields: Any) -> RunStatus:
    """Make the status of the first run of a spec, as generation 1."""
    digest = spec_digest(make_run(manifest))
    return RunStatus.model_validate({"observedGeneration": 1, "run": 1, "specDigest": digest} | fields)


def over(manifest: Manifest = EXPERIMENT, phase: str = "Complete", **fields: Any) -> RunStatus:
    end = {"phase": phase, "conditions": [condition(phase)], "startTime": BEGAN, "completionTime": ENDED}
    return recorded(manifest, **end | fields)


@pytest.mark.parametrize(
    ("fields", "ended"),
    [
        ({}, False),
        ({"steps": [CHECKED]}, False),
        ({"steps": [CHECKED, {"name": "search", "jobName": ""}]}, True),
        ({"phase": "Complete"}, True),
        ({"phase": "Failed"}, True),
        ({"phase": "Running"}, False),
    ],
)
def test_a_search_is_over_with_its_step_or_its_run(fields: dict[str, Any], ended: bool) -> None:
    assert is_search_over(RunStatus.model_validate(fields)) is ended


def test_the_first_run_is_told_by_number_digest_and_the_text_that_asked_for_it() -> None:
    run = resource(rerun="please")
    first = current_run(run, RunStatus(observed_generation=1, phase=Phase.PENDING))
    assert first == RunStatus(
        observed_generation=1, phase=Phase.PENDING, run=1, spec_digest=spec_digest(run), rerun="please"
    )


def test_a_run_at_work_keeps_what_it_does() -> None:
    status = recorded(
        steps=[CHECKED],
        history=[{"run": 1, "phase": "Failed", "reason": "DataInvalid"}],
        rerun="a",
        sweep={"asked": 1},
        nodeTime={"seconds": 60.0},
    )
    assert status.steps
    assert status.history
    assert kept_of_run(status) == {
        "run": 1,
        "spec_digest": status.spec_digest,
        "rerun": "a",
        "steps": status.steps,
        "history": status.history,
        "sweep": status.sweep,
        "node_time": status.node_time,
    }


@pytest.mark.parametrize("status", [over(), over(phase="Failed"), recorded(phase="Suspended", startTime=BEGAN)])
def test_a_spec_that_is_changed_at_rest_runs_again(status: RunStatus) -> None:
    begun = current_run(resource(OTHER_MODEL), status)
    assert (begun.run, begun.spec_digest) == (2, spec_digest(resource(OTHER_MODEL)))
    assert (begun.start_time, begun.completion_time, begun.phase) == (None, None, Phase.PENDING)
    assert begun.observed_generation == 1
    assert begun.history is not None
    assert begun.history[0].run == 1


@pytest.mark.parametrize("phase", ["Pending", "Waiting", "Running"])
def test_a_spec_that_is_changed_while_its_run_is_at_work_changes_nothing(phase: str) -> None:
    status = recorded(phase=phase, startTime=BEGAN)
    assert current_run(resource(OTHER_MODEL), status) is status
    assert current_run(resource(rerun="again"), status) is status


def test_a_spec_that_is_changed_before_the_first_pod_changes_the_run() -> None:
    status = recorded(phase="Pending", steps=[CHECKED], jobName="screws-experiment")
    corrected = current_run(resource(with_spec(OTHER_MODEL, runPolicy={"rerun": "b"})), status)
    assert corrected == RunStatus(
        observed_generation=1, run=1, spec_digest=spec_digest(resource(OTHER_MODEL)), rerun="b", phase=Phase.PENDING
    )


@pytest.mark.parametrize("status", [over(), recorded(phase="Suspended", startTime=BEGAN), recorded(phase="Pending")])
def test_another_policy_is_no_other_run(status: RunStatus) -> None:
    assert current_run(resource(suspend=True, backoffLimit=7), status) is status
    assert current_run(resource(), status) is status
    # As long as the generation is the recorded one, the digest is not looked at: another release may make another one.
    assert current_run(resource(OTHER_MODEL, generation=1), status) is status


def test_another_text_asks_for_another_run_of_the_same_spec() -> None:
    status = over(rerun="a")
    for generation in (1, 2):
        again = current_run(resource(generation=generation, rerun="b"), status)
        assert (again.run, again.rerun, again.spec_digest) == (2, "b", status.spec_digest)
        assert current_run(resource(generation=generation, rerun="a"), status) is status
    assert current_run(resource(), status) is status, "a text that is taken away asks for nothing"


def test_the_next_run_knows_what_came_before_it() -> None:
    before = {"run": 1, "phase": "Failed", "reason": "DataInvalid", "message": "no image"}
    status = over(
        run=2,
        history=[before],
        conditions=[condition("Complete", message="done"), condition("DataReady", reason="DataReady")],
        artifacts={"root": "s3://results/2"},
        display={"progress": "AUROC 0.9"},
    )
    begun = current_run(resource(OTHER_MODEL), status)
    assert begun.run == 3
    assert [found.type for found in begun.conditions] == [ConditionType.COMPLETE]
    assert begun.history == (
        PastRun(
            run=2,
            phase=Phase.COMPLETE,
            reason=Reason.COMPLETE,
            message="done",
            start_time=BEGAN,
            completion_time=ENDED,
            artifacts=status.artifacts,
            display=status.display,
        ),
        PastRun(run=1, phase=Phase.FAILED, reason=Reason.DATA_INVALID, message="no image"),
    )


def test_the_history_has_the_last_five_runs() -> None:
    older = [{"run": number, "phase": "Failed", "reason": "DataInvalid"} for number in (5, 4, 3, 2, 1)]
    begun = current_run(resource(OTHER_MODEL), over(run=6, history=older))
    assert [past.run for past in begun.history or ()] == [6, 5, 4, 3, 2]


def test_a_run_of_a_release_that_did_not_count_was_the_first() -> None:
    begun = current_run(resource(OTHER_MODEL), over(run=None))
    assert (begun.run, [past.run for past in begun.history or ()]) == (2, [1])


def test_the_past_says_how_a_run_ended_in_256_characters() -> None:
    failed = over(phase="Failed", conditions=[condition("Failed", reason="DataInvalid", message="x" * 300)])
    (past,) = current_run(resource(OTHER_MODEL), failed).history or ()
    assert (past.phase, past.reason, past.message) == (Phase.FAILED, Reason.DATA_INVALID, "x" * 256)
    suspended = recorded(phase="Suspended", startTime=BEGAN, conditions=[condition("Complete", "False")])
    (past,) = current_run(resource(OTHER_MODEL), suspended).history or ()
    assert (past.phase, past.reason) == (Phase.SUSPENDED, Reason.SUPERSEDED)
    assert past.message == "its spec was changed while it was suspended"


# What counts as another spec


def test_a_digest_is_that_of_the_meaning() -> None:
    digest = spec_digest(make_run(EXPERIMENT))
    spelled_out = with_spec(EXPERIMENT, training={}, scheduling={"gpus": {"count": 1}}, runPolicy={"suspend": True})
    assert spec_digest(make_run(spelled_out)) == digest
    assert spec_digest(make_run(OTHER_MODEL)) != digest
    suspended = with_spec(INFERENCE, runPolicy={"suspend": True})
    assert spec_digest(make_run(suspended)) == spec_digest(make_run(INFERENCE)) != digest


def test_a_digest_of_a_spec_that_is_not_valid_is_that_of_its_text() -> None:
    run = make_run(with_spec(EXPERIMENT, model={"name": "noSuchModel"}))
    assert spec_digest(run) == names.digest(run.spec.decode())
    assert spec_digest(run) != spec_digest(make_run(with_spec(EXPERIMENT, model={"name": "norThisOne"})))


SEARCHED: Manifest = {
    "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 64}}],
    "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
}
TARGET = [{"metric": "image.AUROC", "goal": "maximize", "target": 0.9}]


def sweep(**fields: Any) -> Manifest:
    return with_spec(EXPERIMENT, sweep=SEARCHED | fields)


def limits(**fields: Any) -> str:
    found = experiment_spec(make_run(sweep(**fields)).spec).sweep
    assert found is not None
    return limits_digest(found)


@pytest.mark.parametrize(
    "fields", [{"trials": {"max": 7, "maxFailed": 1}}, {"budget": {"wallClockSeconds": 60}}, {"objectives": TARGET}]
)
def test_limits_of_a_sweep_are_not_what_it_searches(fields: dict[str, Any]) -> None:
    assert spec_digest(make_run(sweep(**fields))) == spec_digest(make_run(sweep()))
    assert limits(**fields) != limits()


def test_how_many_trials_run_at_once_is_no_limit() -> None:
    assert limits(trials={"parallel": 8}) == limits()
    assert limits(trials={"parallel": 8, "max": 7}) == limits(trials={"max": 7}) != limits()


def first_search(manifest: Manifest) -> str:
    """Return the search of a sweep that was just applied."""
    run = make_run(manifest)
    return search_of(run, current_run(run, RunStatus()))


def test_a_search_is_told_by_what_it_searches_and_the_text_that_asks_for_it() -> None:
    assert first_search(sweep()) == first_search(sweep(trials={"max": 7}))
    # The same in each release, or sweeps would begin anew with it.
    assert first_search(sweep()) == names.digest(spec_digest(make_run(sweep())))
    asked = with_spec(sweep(), runPolicy={"rerun": "again"})
    assert len({first_search(sweep()), first_search(sweep(seed=3)), first_search(asked)}) == 3


def ended_search(**fields: Any) -> RunStatus:
    found = {"search": "s", "searchRun": 2, "gpuHours": 1.5, "asked": 20, "complete": 20, "limits": limits()}
    return over(sweep(), sweep=found | fields)


def test_a_sweep_that_is_over_goes_on_with_other_limits() -> None:
    begun = current_run(resource(sweep(trials={"max": 40})), ended_search())
    assert begun.run == 2
    assert begun.sweep is not None
    assert begun.sweep.model_dump(exclude_defaults=True) == {"search": "s", "search_run": 2, "gpu_hours": 1.5}


@pytest.mark.parametrize(
    ("manifest", "status"),
    [
        (sweep(trials={"parallel": 3}), ended_search()),
        (sweep(trials={"max": 40}), ended_search(limits="")),
        (sweep(trials={"max": 40}), over(sweep())),
        (sweep(trials={"max": 40}), ended_search().model_copy(update={"phase": Phase.RUNNING})),
    ],
    ids=["no limit", "not ended by limits", "no search", "at work"],
)
def test_a_sweep_does_not_go_on_without_other_limits(manifest: Manifest, status: RunStatus) -> None:
    assert current_run(resource(manifest), status) is status


@pytest.mark.parametrize("broken", [with_spec(sweep(), model={"name": "noSuchModel"}), EXPERIMENT])
def test_a_spec_without_a_sweep_runs_instead_of_going_on(broken: Manifest) -> None:
    assert current_run(resource(broken), ended_search()).run == 2


# Whose model is used


def past(run: int, phase: str = "Complete", root: str | None = "s3://r") -> dict[str, Any]:
    return {"run": run, "phase": phase, "reason": "Complete", "artifacts": {"root": root} if root else None}


def test_the_last_complete_run_is_the_newest_with_artifacts() -> None:
    older = [past(3, "Failed"), past(2, root=None), past(1, root="s3://one")]
    at_work = recorded(run=4, phase="Running", artifacts={"root": "s3://four"}, history=older)
    found = last_complete(at_work)
    assert found is not None
    assert (found.run, found.artifacts and found.artifacts.root) == (1, "s3://one")
    done = last_complete(over(run=4, artifacts={"root": "s3://four"}, history=older))
    assert done is not None
    assert (done.run, done.artifacts and done.artifacts.root) == (4, "s3://four")
    assert last_complete(over(run=4, phase="Failed", history=older[:2])) is None
    assert last_complete(RunStatus()) is None


def test_a_run_is_found_by_its_number_if_it_is_complete() -> None:
    status = over(run=4, artifacts={"root": "s3://four"}, history=[past(3, "Failed"), past(2)])
    runs = [complete_run(status, number) for number in (4, 3, 2, 1)]
    assert [found and found.run for found in runs] == [4, None, 2, None]


def test_a_condition_that_was_true_is_no_end() -> None:
    was = recorded(phase="Suspended", startTime=BEGAN, conditions=[condition("Failed", "False", "Resumed")])
    assert isinstance(was.conditions[0], Condition)
    (found,) = current_run(resource(OTHER_MODEL), was).history or ()
    assert found.reason is Reason.SUPERSEDED
