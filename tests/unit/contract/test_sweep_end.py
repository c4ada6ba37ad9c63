"""The training in full at a sweep's end, and what it says of the search."""

from typing import Any

import pytest

from anomaly_api.status import MetricValues
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_end import remeasured, unused_seed, winners_spec
from anomaly_api.sweep_status import BestTrial, Remeasurement
from support.optional import not_none
from support.sweep_specs import sweep_spec

FEATURES = {"path": "model.padim.nFeatures", "int": {"low": 1, "high": 64}}
SEED = {"path": "dataset.seed", "int": {"low": 0, "high": 9}}
BEST = BestTrial(number=3, objectives={"image.AUROC": 0.75, "performance.trainSeconds": 20.0})


def sweep(*parameters: dict[str, Any], **fields: Any) -> Sweep:
    return not_none(sweep_spec(*parameters, **fields).sweep)


@pytest.mark.parametrize(
    ("own", "replicated", "unused"), [(42, [], 43), (0, [0, 1, 2], 3), (5, [1, 6, 7], 8), (2**31 - 1, [0], 1)]
)
def test_a_seed_that_no_trial_used(own: int, replicated: list[int], unused: int) -> None:
    paths = [{"path": "dataset.seed", "values": replicated}]
    searched = sweep(FEATURES, replicates={"paths": paths}) if replicated else sweep(FEATURES)
    assert unused_seed(own, searched) == unused


def test_the_best_point_is_trained_on_it_unless_the_seed_was_searched() -> None:
    trained = winners_spec(sweep_spec(FEATURES, change={"dataset": {"seed": 7}}), {"model.padim.nFeatures": 5})
    assert (trained["dataset"]["seed"], trained["model"]["padim"]["nFeatures"]) == (8, 5)
    assert winners_spec(sweep_spec(SEED), {"dataset.seed": 4})["dataset"]["seed"] == 4


def test_the_gap_is_what_was_found_less_what_was_measured_again() -> None:
    metrics = MetricValues(image={"AUROC": 0.5, "F1Max": 0.4}, performance={"trainSeconds": 22.0})
    assert remeasured(sweep(FEATURES), BEST, metrics, 43) == Remeasurement(
        objectives={"image.AUROC": 0.5, "performance.trainSeconds": 22.0},
        gap={"image.AUROC": 0.25, "performance.trainSeconds": -2.0},
        measured_on="dataset.seed 43, which no trial used",
    )
    searched = not_none(remeasured(sweep(SEED), BEST, metrics, 4))
    assert searched.measured_on == "the values of the best trial"


def test_nothing_measured_is_nothing_measured_again() -> None:
    assert remeasured(sweep(FEATURES), BEST, None, 43) is None
    assert remeasured(sweep(FEATURES), BEST, MetricValues(image={"F1Max": 0.4}), 43) is None
