"""Which steps a run has, which one is next, and what its pod is told and given."""

from typing import Any

import pytest

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.run import RunConfig, RunIdentity
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import RunStatus, StepName
from anomaly_api.sweep_status import SweepStatus
from anomaly_operator.decide.steps import make_step, next_step, run_number, run_steps, seconds_left, seconds_spent
from support.objects import EXPERIMENT, INFERENCE, KEY, UID
from support.sweep_specs import AUROC

CHECK_THEN_TRAIN: tuple[StepName, ...] = ("check", "train")
SEARCHED: tuple[StepName, ...] = ("check", "search", "train")
SWEEP = {"parameters": [{"path": "model.padim.nFeatures", "choices": [10, 20]}], "objectives": [AUROC]}
CLAIM = {"name": "gpu", "resourceClaimName": "a-gpu"}
SCHEDULING = {
    "gpus": {"count": 2},
    "resourceClaims": [CLAIM],
    "resources": {"limits": {"memory": "64Gi"}},
    "nodeSelector": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "nvidia.com/gpu.product": "A100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "queueName": "team-a",
    "serviceAccountName": "trainer",
}


def experiment(scheduling: dict[str, Any] | None = None, **fields: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate(EXPERIMENT["spec"] | {"scheduling": scheduling or {}} | fields)


def inference(**fields: Any) -> InferenceSpec:
    return InferenceSpec.model_validate(INFERENCE["spec"] | {"scheduling": {"gpus": {"count": 0}}} | fields)


def status(*done: StepName, **fields: Any) -> RunStatus:
    steps = [{"name": name, "jobName": f"screws-experiment-{name}"} for name in done]
    return RunStatus.model_validate({"steps": steps or None} | fields)


@pytest.mark.parametrize(
    ("scheduling", "preflight", "checked"),
    [
        ({"gpus": {"count": 0}}, "Auto", False),
        ({"gpus": {"count": 1}}, "Auto", True),
        ({"gpus": {"count": 0}, "queueName": "team-a"}, "Auto", True),
        ({"gpus": {"count": 0}, "resourceClaims": [CLAIM]}, "Auto", True),
        ({"gpus": {"count": 0}}, "Always", True),
        (SCHEDULING, "Never", False),
    ],
)
def test_a_check_comes_first_where_something_would_be_waited_for(
    scheduling: dict[str, Any], preflight: str, checked: bool
) -> None:
    before = ("check",) if checked else ()
    assert run_steps(experiment(scheduling, runPolicy={"preflight": preflight}), status()) == (*before, "train")
    assert run_steps(inference(scheduling=scheduling, runPolicy={"preflight": preflight}), status()) == (
        *before,
        "score",
    )


@pytest.mark.parametrize(("final", "last"), [("train", "train"), ("report", "report")])
def test_a_sweep_ends_in_a_training_or_in_a_report(final: str, last: str) -> None:
    on_a_cpu = {"gpus": {"count": 0}}
    assert run_steps(experiment(on_a_cpu, sweep=SWEEP | {"final": final}), status()) == ("search", last)
    assert run_steps(experiment({"gpus": {"count": 1}}, sweep=SWEEP | {"final": final}), status()) == (
        "check",
        "search",
        last,
    )


def test_nothing_is_trained_with_what_a_failed_search_found() -> None:
    failure = {"reason": "TrialsFailed", "message": "none has a value"}
    steps = [{"name": "check", "jobName": "c"}, {"name": "search", "jobName": "", "failure": failure}]
    on_a_cpu = experiment({"gpus": {"count": 0}}, sweep=SWEEP | {"final": "train"})
    assert run_steps(on_a_cpu, RunStatus.model_validate({"steps": steps})) == ("search", "report")
    assert run_steps(on_a_cpu, RunStatus.model_validate({"steps": steps[:1]})) == ("search", "train")


@pytest.mark.parametrize(
    ("steps", "recorded", "expected"),
    [
        (CHECK_THEN_TRAIN, status(), "check"),
        (CHECK_THEN_TRAIN, status("check"), "train"),
        (CHECK_THEN_TRAIN, status("check", "train"), "train"),
        (("train",), status("check"), "train"),
        # A check that was asked for later is not made up for.
        (CHECK_THEN_TRAIN, status(jobName="screws-experiment"), "train"),
        (CHECK_THEN_TRAIN, status(jobName="screws-experiment-check"), "check"),
        (CHECK_THEN_TRAIN, status(jobName="screws-experiment", run=2), "check"),
        (CHECK_THEN_TRAIN, status(jobName="screws-experiment-2", run=2), "train"),
        (SEARCHED, status(), "check"),
        (SEARCHED, status("check"), "search"),
        (SEARCHED, status("check", "search"), "train"),
        (SEARCHED, status(sweep=SweepStatus(search="s", asked=1)), "search"),
        (SEARCHED, status(sweep=SweepStatus(search="s", asked=0)), "check"),
        (CHECK_THEN_TRAIN, status(sweep=SweepStatus(search="s", asked=1)), "check"),
    ],
)
def test_the_step_at_work_is_the_first_that_is_not_done(
    steps: tuple[StepName, ...], recorded: RunStatus, expected: StepName
) -> None:
    assert next_step(steps, KEY, recorded) == expected


def config(scheduling: dict[str, Any] | None = None) -> RunConfig:
    identity = RunIdentity(kind="AnomalyExperiment", namespace="vision", name="screws", uid=UID)
    return RunConfig(run=identity, experiment=experiment(scheduling))


def test_a_check_runs_on_any_cpu_that_can_run_the_image() -> None:
    step = make_step("check", config(SCHEDULING), status())
    assert (step.label, step.config) == ("check", config(SCHEDULING).model_copy(update={"step": "check"}))
    given = step.scheduling.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    assert given == {
        "gpus": {"count": 0},
        "resources": {"requests": {"cpu": "250m", "memory": "1536Mi"}, "limits": {"memory": "4Gi"}},
        "nodeSelector": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "priorityClassName": "high",
        "serviceAccountName": "trainer",
    }


def test_a_check_without_a_node_selector_has_none() -> None:
    for selector in ({}, {"nodeSelector": {"nvidia.com/gpu.product": "A100"}}):
        assert make_step("check", config(selector), status()).scheduling.node_selector is None


def test_a_report_is_the_last_step_on_a_cpu() -> None:
    step = make_step("report", config(SCHEDULING), status("search"))
    assert (step.label, step.config.step, step.config.listing) == (None, "report", None)
    assert (step.scheduling.gpus.count, step.scheduling.queue_name) == (0, None)
    assert step.scheduling.resources.limits == {"memory": "4Gi"}


def test_the_only_step_of_a_run_is_not_told_that_it_is_one() -> None:
    step = make_step("train", config(SCHEDULING), status())
    assert (step.config, step.label) == (config(SCHEDULING), None)
    assert step.scheduling == config(SCHEDULING).spec.scheduling


def test_the_work_is_told_what_the_check_listed() -> None:
    listing = {"file": "listing.json", "sha256": "abc"}
    steps = [{"name": "check", "jobName": "c", "listing": listing}, {"name": "search", "jobName": "s"}]
    step = make_step("train", config(SCHEDULING), RunStatus.model_validate({"steps": steps}))
    assert (step.config.step, step.label) == ("train", None)
    assert step.config.listing is not None
    assert (step.config.listing.file, step.config.listing.sha256) == ("listing.json", "abc")
    assert step.scheduling == config(SCHEDULING).spec.scheduling
    assert make_step("train", config(), status("search")).config.listing is None


@pytest.mark.parametrize(("run", "number"), [(None, None), (1, None), (2, 2), (17, 17)])
def test_the_first_run_has_no_number_in_names(run: int | None, number: int | None) -> None:
    assert run_number(RunStatus(run=run)) == number


def timed(*spans: tuple[str | None, str | None]) -> RunStatus:
    day = "2026-01-02T"
    steps = [
        {"name": "check", "jobName": "c"}
        | ({"startTime": f"{day}{start}Z"} if start else {})
        | ({"completionTime": f"{day}{end}Z"} if end else {})
        for start, end in spans
    ]
    return RunStatus.model_validate({"steps": steps})


@pytest.mark.parametrize(
    ("recorded", "spent"),
    [
        (RunStatus(), 0),
        (timed(("03:00:00", "03:00:20")), 20),
        (timed(("03:00:00", "03:00:20"), ("03:01:00", "03:02:30")), 110),
        (timed((None, "03:00:20")), 0),
        (timed(("03:00:00", None)), 0),
    ],
)
def test_a_step_has_what_earlier_ones_left_of_the_deadline(recorded: RunStatus, spent: int) -> None:
    assert seconds_spent(recorded) == spent
    assert seconds_left(RunPolicy(), recorded) is None
    assert seconds_left(RunPolicy(active_deadline_seconds=120), recorded) == 120 - spent


def test_a_deadline_that_is_over_leaves_a_second() -> None:
    recorded = timed(("03:00:00", "03:00:20"))
    assert [seconds_left(RunPolicy(active_deadline_seconds=limit), recorded) for limit in (19, 20, 21, 22)] == [
        1, 1, 1, 2,
    ]  # fmt: skip
