"""The end of a sweep in its status: what its last Job is told, what it measured, and what a failed search leaves."""

from typing import Any

import pytest

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import MetricValues, RunStatus, Stage, StepFailure
from anomaly_api.sweep_status import Remeasurement
from anomaly_operator.decide.outcome import Outcome
from anomaly_operator.decide.sweep_end import measured_again, no_page, sweep_end, told_failure
from support.objects import EXPERIMENT

BLOCK = {
    "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 64}}],
    "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
}
SEEDED = {"dataset": EXPERIMENT["spec"]["dataset"] | {"seed": 7}}
SWEEP = ExperimentSpec.model_validate(EXPERIMENT["spec"] | SEEDED | {"sweep": BLOCK})
BEST = {"number": 3, "objectives": {"image.AUROC": 0.75}, "values": {"model.padim.nFeatures": 7}}
METRICS = MetricValues.model_validate({"image": {"AUROC": 0.5}})


def found(*best: dict[str, Any]) -> RunStatus:
    return RunStatus.model_validate({"sweep": {"search": "s", "asked": 2, "best": best}})


def test_the_best_point_is_trained_without_the_sweep() -> None:
    trained = sweep_end(SWEEP, found(BEST, BEST | {"number": 4, "values": {"model.padim.nFeatures": 9}}))
    assert trained.sweep is None
    assert trained.model.model_dump(by_alias=True, exclude_defaults=True)["padim"] == {"nFeatures": 7}


@pytest.mark.parametrize("status", [RunStatus(), found()])
def test_without_a_best_point_the_experiment_is_told_of_as_it_is(status: RunStatus) -> None:
    assert sweep_end(SWEEP, status) == SWEEP.model_copy(update={"sweep": None})


def test_a_best_point_whose_values_are_not_kept_is_the_experiment_as_it_is() -> None:
    without = {name: value for name, value in BEST.items() if name != "values"}
    assert sweep_end(SWEEP, found(without)).model == SWEEP.model


def test_what_was_measured_again_stands_beside_what_was_found() -> None:
    status = found(BEST)
    assert status.sweep is not None
    again = measured_again(SWEEP, status, METRICS)
    assert again is not None
    assert again.remeasured == Remeasurement(
        objectives={"image.AUROC": 0.5}, gap={"image.AUROC": 0.25}, measured_on="dataset.seed 8, which no trial used"
    )
    assert again.model_copy(update={"remeasured": None}) == status.sweep


@pytest.mark.parametrize(
    ("spec", "status", "metrics"),
    [
        (SWEEP, found(BEST), None),
        (SWEEP, found(), METRICS),
        (SWEEP, RunStatus(), METRICS),
        (SWEEP.model_copy(update={"sweep": None}), found(BEST), METRICS),
    ],
    ids=["failed", "no best point", "no search", "no sweep"],
)
def test_what_was_not_measured_again_stays_as_it_is(
    spec: ExperimentSpec, status: RunStatus, metrics: MetricValues | None
) -> None:
    assert measured_again(spec, status, metrics) is status.sweep


FAILURE = StepFailure(reason=Reason.TRIALS_FAILED, message="4 trials failed")
PAGE = RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, message="", warnings=("drawn",))


def test_a_search_that_failed_ends_its_run_with_the_page_that_was_made() -> None:
    ended = told_failure(FAILURE, Outcome(Reason.COMPLETE, "", PAGE))
    expected = PAGE.model_copy(update={"stage": Stage.SEARCH})
    assert ended == Outcome(Reason.TRIALS_FAILED, "4 trials failed", expected)


@pytest.mark.parametrize("left", [None, RunSummary(reason=Reason.OUT_OF_MEMORY, stage=Stage.DONE, message="")])
def test_a_search_that_failed_without_a_page_says_why_there_is_none(left: RunSummary | None) -> None:
    ended = told_failure(FAILURE, Outcome(Reason.OUT_OF_MEMORY, "killed", left))
    assert (ended.reason, ended.message) == (Reason.TRIALS_FAILED, "4 trials failed")
    assert ended.summary == RunSummary(
        reason=Reason.OUT_OF_MEMORY,
        stage=Stage.SEARCH,
        warnings=("the sweep's page could not be made: OutOfMemory: killed",),
    )


def test_a_complete_job_without_a_summary_has_no_page() -> None:
    ended = told_failure(FAILURE, Outcome(Reason.COMPLETE, "lost"))
    assert ended.summary is not None
    assert ended.summary.warnings == ("the sweep's page could not be made: Complete: lost",)


def test_a_warning_fits_into_the_status() -> None:
    assert no_page("x" * 300) == "the sweep's page could not be made: " + "x" * 220
