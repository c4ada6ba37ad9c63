"""However long names and values are, a sweep's status is at most 32 KiB, and what is left out is the longest."""

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.status import MetricValues, RunStatus
from anomaly_api.sweep import MetricPath, Sweep
from anomaly_api.sweep_exchange import SweepEnd
from anomaly_api.sweep_status import BestTrial, ParetoPoint, StopReason, SweepStatus
from anomaly_operator.decide.desired import DesiredSearch
from anomaly_operator.decide.search_status import SearchState, search_status
from anomaly_operator.decide.sweep_end import measured_again
from support.objects import EXPERIMENT, make_run, with_spec

LIMIT = 32 * 1024
NOW = datetime(2026, 1, 2, 3, 5, 5, tzinfo=UTC)
END = SweepEnd(StopReason.WITHOUT_IMPROVEMENT, "why")
METRICS = sorted(get_args(MetricPath), key=len)[-4:]
SWEEP = {
    "parameters": [{"path": "model.padim.layers", "choices": [["layer1"], ["layer2"]]}],
    "objectives": [{"metric": metric, "goal": "maximize"} for metric in METRICS],
}
RUN = make_run(with_spec(EXPERIMENT, sweep=SWEEP))
SPEC = ExperimentSpec.model_validate_json(RUN.spec)
MEASURED = MetricValues(performance={path.partition(".")[2]: 1.2345678901234567e300 for path in METRICS})
TEXT = st.sampled_from(["layer1.0.conv2", "\u5c42", "\U0001f600", 'a"quoted"\\one', "\n"])
NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def layer_lists(draw: st.DrawFn) -> list[str]:
    return [draw(TEXT) * draw(st.integers(1, 20))] * draw(st.integers(1, 64))


@st.composite
def overviews(draw: st.DrawFn) -> SweepStatus:
    metrics = METRICS[: draw(st.integers(1, 4))]
    objectives = {metric: draw(NUMBER) for metric in metrics}
    paths = [f"model.{'a' * draw(st.integers(1, 120))}{place:02d}" for place in range(draw(st.integers(1, 32)))]
    values = [dict.fromkeys(paths, draw(layer_lists())) for _ in range(draw(st.integers(1, 10)))]
    return SweepStatus(
        asked=100_000,
        complete=100_000,
        gpu_hours=draw(st.floats(0, 1e300)),
        removed_gpu_hours=draw(st.floats(0, 1e300)),
        best=tuple(
            BestTrial(number=99_999, objectives=objectives, standard_errors=objectives, values=point)
            for point in values
        ),
        pareto_front=(ParetoPoint(number=99_999, objectives=objectives),) * draw(st.integers(0, 32)),
        choice=draw(TEXT) * 18,
        importances=dict.fromkeys(paths, draw(NUMBER)),
        rung_correlation=(-0.12345678901234567,) * 7,
        stop_reason=END.reason,
    )


def size(status: SweepStatus | None) -> int:
    """Return the bytes of the status as the API server keeps it."""
    assert status
    return len(json.dumps(status.to_json_object(), ensure_ascii=False, separators=(",", ":")).encode())


def told(overview: SweepStatus) -> RunStatus:
    desired = DesiredSearch(spec=SPEC, search="d" * 16, limits="d" * 16)
    return search_status(RUN, RunStatus(run=1), desired, SearchState(overview=overview, at_work=0, end=END), NOW)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(overview=overviews())
def test_at_most_32_kib_with_the_values_of_the_first_of_the_best(overview: SweepStatus) -> None:
    ended = told(overview)
    assert ended.sweep
    assert size(ended.sweep) <= LIMIT
    shown = [best.values is not None for best in ended.sweep.best]
    assert shown == sorted(shown, reverse=True)
    rest = ended.sweep.model_copy(update={"best": overview.best})
    assert size(rest) > LIMIT or all(shown), "left out for its length alone"
    assert [best.objectives for best in ended.sweep.best] == [best.objectives for best in overview.best]
    assert size(measured_again(SPEC, ended, MEASURED)) <= LIMIT


def test_what_was_measured_again_has_room_too() -> None:
    """A status that is as long as may be before the training, by some bytes."""
    objectives = dict.fromkeys(METRICS, 1.2345678901234567e300)
    longest = RunStatus()
    for length in range(30_000, LIMIT, 10):
        best = BestTrial(number=1, objectives=objectives, values={"model.padim.layers": ["a" * length]})
        tried = told(SweepStatus(asked=1, best=(best,)))
        if not (tried.sweep and tried.sweep.best[0].values):
            break
        longest = tried
    assert LIMIT - 10 < size(longest.sweep) <= LIMIT
    again = measured_again(SPEC, longest, MEASURED)
    assert again
    assert again.remeasured
    assert size(again) <= LIMIT


def test_a_best_point_too_long_for_the_status_is_not_taken_for_the_sweeps_own_values() -> None:
    values: dict[str, Any] = {f"model.{'a' * 120}{place:02d}": ["layer" * 50] * 8 for place in range(32)}
    ended = told(SweepStatus(asked=3, best=(BestTrial(number=2, objectives={METRICS[0]: 1.0}, values=values),)))
    assert ended.steps
    failure = ended.steps[-1].failure
    assert failure
    assert failure.reason == "InvalidConfig"
    assert "the values of trial 2, the best one, are too long for the status" in failure.message


def test_ten_objectives_are_refused() -> None:
    ten = [{"metric": metric, "goal": "maximize"} for metric in get_args(MetricPath)[:10]]
    with pytest.raises(ValidationError, match="at most 4"):
        Sweep.model_validate(SWEEP | {"objectives": ten})
