"""A pod that another container keeps from finishing: the runner's end counts, once the others had time to end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import RunSummary
from anomaly_api.status import Stage
from anomaly_operator.decide.observed import ObservedState
from anomaly_operator.decide.outlived import GRACE_SECONDS, ends_run, outlived_pod, seconds_until_outlived
from anomaly_operator.views import PodView
from support import objects

ENDED = datetime(2026, 1, 2, 3, 9, 59, tzinfo=UTC)
DONE = RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE)


def kept_pod(exit_code: int = 0) -> PodView:
    return objects.make_pod(phase="Running", state=objects.terminated_with(DONE, exit_code))


def observed(*pods: PodView, **status: Any) -> ObservedState:
    return objects.observed(objects.make_job(**status), *pods)


def test_the_others_have_time_to_end() -> None:
    state = observed(kept_pod())
    at_once, later = ENDED + timedelta(seconds=1), ENDED + timedelta(seconds=GRACE_SECONDS)
    assert seconds_until_outlived(state, at_once) == GRACE_SECONDS - 1
    assert outlived_pod(state, at_once) is None
    assert outlived_pod(state, later) == state.pods[0]


@pytest.mark.parametrize(
    "state",
    [
        ObservedState(),
        observed(),
        observed(objects.make_pod(phase="Running", state={"running": {}})),
        observed(objects.make_pod(phase="Succeeded", state=objects.terminated_with(DONE))),
        observed(kept_pod(), conditions=[{"type": "Complete", "status": "True"}]),
    ],
    ids=["no Job", "no pod", "at work", "finished", "its Job is finished"],
)
def test_other_pods_are_left_alone(state: ObservedState) -> None:
    assert outlived_pod(state, ENDED + timedelta(days=1)) is None


@pytest.mark.parametrize(
    ("exit_code", "ends"),
    [(ExitCode.DONE, True), (ExitCode.DATA_INVALID, True), (ExitCode.STORAGE_UNAVAILABLE, False), (1, False)],
)
def test_what_ends_the_run(exit_code: int, ends: bool) -> None:
    assert ends_run(kept_pod(int(exit_code))) is ends
