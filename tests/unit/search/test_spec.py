"""From the contract's sweep to the task, and from the summary to the status."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from anomaly_api import sweep as api
from anomaly_api.sweep_status import SWEEP_STATUS_LIMIT, StopReason
from anomaly_search.prune import MedianPruning
from anomaly_search.space import Choices, Condition, FloatRange, IntRange, Parameter, SpaceError
from anomaly_search.spec import pruning_of, space_of, status_of, sweep_of
from anomaly_search.summary import summary
from anomaly_search.sweep import Algorithm, Budget, Constraint, Fidelity, Limits, Objective, Racing, Replicates
from anomaly_search.trials import State, Trial
from support.sweeps import complete

AUROC = {"metric": "image.AUROC", "goal": "maximize"}
LATENCY = {"metric": "performance.latencyMilliseconds", "goal": "minimize"}
PARAMETERS: list[dict[str, Any]] = [
    {"path": "model.name", "choices": ["patchcore", "padim"]},
    {
        "path": "model.patchcore.coresetSamplingRatio",
        "float": {"low": 0.01, "high": 0.25, "log": True},
        "when": {"path": "model.name", "in": ["patchcore"]},
    },
    {"path": "model.padim.nFeatures", "int": {"low": 50, "high": 150, "step": 50}},
]


def written(**fields: Any) -> api.Sweep:
    return api.Sweep.model_validate({"parameters": PARAMETERS, "objectives": [AUROC]} | fields)


def test_every_field_has_its_place() -> None:
    spec = written(
        algorithm={"name": "tpe", "seed": 7, "tpe": {"startupTrials": 5, "candidates": 48}},
        objectives=[AUROC | {"target": 0.999}],
        constraints=[{"metric": "performance.modelBytes", "max": 3e8}, {"metric": "image.F1Max", "min": 0.5}],
        replicates={
            "paths": [
                {"path": "dataset.category", "values": ["bottle", "cable"]},
                {"path": "dataset.seed", "values": [0, 1, 2]},
            ],
            "aggregate": "median",
            "pruning": {"pValue": 0.05, "afterReplicates": 3},
        },
        fidelity={"path": "dataset.fraction", "values": [0.25, 1.0], "reduction": 3},
        start={"points": [{"model.name": "padim"}]},
        trials={"max": 400, "parallel": 32, "maxFailed": 20},
        budget={"gpuHours": 50, "wallClockSeconds": 86400, "withoutImprovement": 60},
    )
    sweep = sweep_of(spec)
    assert sweep.space.parameters == (
        Parameter("model.name", Choices(("patchcore", "padim"))),
        Parameter(
            "model.patchcore.coresetSamplingRatio",
            FloatRange(0.01, 0.25, log=True),
            Condition("model.name", ("patchcore",)),
        ),
        Parameter("model.padim.nFeatures", IntRange(50, 150, step=50)),
    )
    assert sweep.algorithm == Algorithm("tpe", 7, startup_trials=5, candidates=48)
    assert sweep.objectives == (Objective("image.AUROC", "maximize", 0.999),)
    assert sweep.constraints == (Constraint("performance.modelBytes", max=3e8), Constraint("image.F1Max", min=0.5))
    assert sweep.replicates == Replicates(6, "median", Racing(3, 0.05))
    assert sweep.fidelity == Fidelity((0.25, 1.0), 3)
    assert sweep.start == ({"model.name": "padim"},)
    assert sweep.limits == Limits(400, 32, 20)
    assert sweep.budget == Budget(50, timedelta(days=1), 60)


def test_a_range_of_real_numbers_may_have_steps() -> None:
    stepped = {"path": "dataset.fraction", "float": {"low": 0.1, "high": 0.9, "step": 0.2}}
    assert space_of(written(parameters=[stepped])).parameters[0].domain == FloatRange(0.1, 0.9, step=0.2)


def test_what_is_left_out_has_the_contracts_defaults() -> None:
    sweep = sweep_of(written())
    assert sweep.limits == Limits(20, 1, 3)
    assert sweep.algorithm == Algorithm("tpe", 0)
    assert (sweep.replicates.count, sweep.fidelity, sweep.budget) == (1, None, Budget())
    assert pruning_of(written()) is None


def test_cma_es_has_its_settings() -> None:
    numbers = [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 9}}]
    spec = written(parameters=numbers, algorithm={"name": "cmaes", "cmaes": {"sigma": 0.3, "populationSize": 12}})
    assert sweep_of(spec).algorithm == Algorithm("cmaes", population=12, sigma=0.3)
    spec = written(parameters=numbers, algorithm={"name": "cmaes"})
    assert sweep_of(spec).algorithm == Algorithm("cmaes", population=None, sigma=1 / 6)


def test_median_pruning_has_its_direction_and_settings() -> None:
    spec = written(
        parameters=[{"path": "training.learningRate", "float": {"low": 0.1, "high": 1}}],
        pruning={"afterTrials": 7, "afterEpochs": 2},
    )
    assert pruning_of(spec) == MedianPruning("maximize", 7, 2)


def test_every_replicate_can_be_measured() -> None:
    paths = [{"path": "dataset.seed", "values": [0, 1]}]
    spec = written(replicates={"paths": paths, "pruning": {"method": "none"}})
    assert sweep_of(spec).replicates == Replicates(2, racing=None)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([{"path": "model.name", "choices": ["padim", "padim"]}], "twice"),
        ([PARAMETERS[0], PARAMETERS[1] | {"when": {"path": "model.name", "in": ["stfpm"]}}], "it never is"),
    ],
)
def test_what_the_contract_cannot_see_is_refused(parameters: list[Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        space_of(written(parameters=parameters))


def test_points_of_an_earlier_sweep_follow_where_the_space_holds_them() -> None:
    spec = written(start={"points": [{"model.name": "padim"}]})
    held = {"model.name": "padim", "model.padim.nFeatures": 100}
    outside = {"model.name": "stfpm", "model.padim.nFeatures": 100}
    assert sweep_of(spec, start=[outside, held]).start == ({"model.name": "padim"}, held)


def test_a_status_says_what_is_known() -> None:
    spec = written(replicates={"paths": [{"path": "dataset.seed", "values": [0, 1]}]}, trials={"max": 400})
    sweep = sweep_of(spec)
    point = {"model.name": "padim", "model.padim.nFeatures": 100}
    trials = [complete(0, point, 0.9), complete(0, point, 0.8, replicate=1), Trial(1, point, State.INFEASIBLE)]
    status = status_of(sweep, summary(sweep, trials), StopReason.GPU_HOURS)
    assert status.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True) == {
        "asked": 2,
        "complete": 1,
        "infeasible": 1,
        "gpuHours": pytest.approx(0.2),
        "best": (
            {
                "number": 0,
                "objectives": {"image.AUROC": pytest.approx(0.85)},
                "standardErrors": {"image.AUROC": pytest.approx(0.05)},
                "values": point,
            },
        ),
        "stopReason": "GpuHours",
    }


def test_a_status_has_the_importances_of_the_summary() -> None:
    sweep = sweep_of(written())
    known = replace(summary(sweep, []), importances={"model.name": 0.75, "model.padim.nFeatures": 0.25})
    assert status_of(sweep, known, None).importances == {"model.name": 0.75, "model.padim.nFeatures": 0.25}


def test_a_status_of_many_trials_is_small_and_its_front_spread() -> None:
    spec = written(
        objectives=[AUROC, LATENCY], parameters=[{"path": "dataset.seed", "choices": [f"{n:0200}" for n in range(64)]}]
    )
    sweep = sweep_of(spec)
    trials = [complete(n, {"dataset.seed": f"{n % 64:0200}"}, n / 2000, n / 2000) for n in range(2000)]
    status = status_of(sweep, summary(sweep, trials), None)
    assert len(status.model_dump_json(by_alias=True, exclude_none=True)) < SWEEP_STATUS_LIMIT
    front = [point.number for point in status.pareto_front]
    assert (len(front), front[0], front[-1]) == (32, 0, 1999)
    assert all(60 < later - earlier < 70 for earlier, later in itertools.pairwise(front))


def test_a_front_is_told_in_the_order_of_the_first_objective() -> None:
    sweep = sweep_of(written(objectives=[AUROC, {"metric": "image.F1Max", "goal": "maximize"}]))
    point = {"model.name": "padim", "model.padim.nFeatures": 100}
    trials = [complete(n, point, first, 1.0 - first) for n, first in enumerate((0.5, 0.9, 0.2))]
    found = status_of(sweep, summary(sweep, trials), None).pareto_front
    assert [(one.number, one.objectives["image.AUROC"]) for one in found] == [(2, 0.2), (0, 0.5), (1, 0.9)]


def test_correlations_are_told_as_far_as_they_are_known() -> None:
    spec = written(fidelity={"path": "dataset.fraction", "values": [0.1, 0.3, 1.0]})
    sweep = sweep_of(spec)
    point = {"model.name": "padim", "model.padim.nFeatures": 100}
    trials = [complete(n, point, n, rung=rung) for n in range(6) for rung in (1, 2)]
    assert status_of(sweep, summary(sweep, trials), None).rung_correlation == ()
    trials += [complete(n, point, n) for n in range(6)]
    assert status_of(sweep, summary(sweep, trials), None).rung_correlation == pytest.approx((1.0, 1.0))
