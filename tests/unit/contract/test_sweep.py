"""Sweeps: their rules have manifests that they refuse, their metrics exist, their status has a bound."""

import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from anomaly_api.base import Contract
from anomaly_api.evaluation import ImageMetric, PixelMetric
from anomaly_api.experiment import AnomalyExperiment, ExperimentSpec
from anomaly_api.model import MODEL_NAMES
from anomaly_api.rules import Rule, SchemaRule
from anomaly_api.sweep import (
    Algorithm,
    Constraint,
    Fidelity,
    MetricPath,
    ReplicatePath,
    Sweep,
)
from anomaly_api.sweep_space import FloatRange, IntRange, SearchParameter
from anomaly_api.sweep_status import (
    SWEEP_STATUS_LIMIT,
    BestTrial,
    ParetoPoint,
    Remeasurement,
    StopReason,
    SweepStatus,
    Trial,
)
from support.bad_manifests import BAD, base, merged

SWEEP: dict[str, Any] = {
    "parameters": [{"path": "dataset.seed", "int": {"low": 0, "high": 9}}],
    "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
}


def refusals() -> set[str]:
    """Return what pydantic says of the bad manifests with a sweep."""
    said = set()
    for case in BAD["AnomalyExperiment"]:
        if "sweep" in case["change"]:
            with pytest.raises(ValidationError) as refusal:
                AnomalyExperiment.model_validate(merged(base("AnomalyExperiment"), {"spec": case["change"]}))
            said |= {f"{error['loc'][-1]} {error['msg']}" for error in refusal.value.errors()}
    return said


def test_every_rule_has_a_bad_manifest() -> None:
    blocks: tuple[type[Contract], ...] = (
        Sweep,
        SearchParameter,
        FloatRange,
        IntRange,
        Algorithm,
        Constraint,
        ReplicatePath,
        Fidelity,
    )
    rules: list[Rule | SchemaRule] = [rule for block in blocks for rule in block.rules]
    rules += [rule for rule in ExperimentSpec.rules if rule.holds and "sweep" in rule.located_message()]
    said = refusals()
    untried = [rule.located_message() for rule in rules if not any(rule.located_message() in text for text in said)]
    assert len(rules) > 25
    assert not untried


def test_metrics_are_those_that_runs_compute() -> None:
    by_group: dict[str, list[str]] = {}
    for path in get_args(MetricPath):
        group, _, name = path.partition(".")
        by_group.setdefault(group, []).append(name)
    assert by_group.pop("image") == list(get_args(ImageMetric))
    assert by_group.pop("pixel") == list(get_args(PixelMetric))
    # What needs no threshold: that is chosen on the same images.
    assert by_group.pop("synthetic") == ["imageAUROC", "imageAUPR", "pixelAUROC", "pixelAUPR", "pixelAUPRO"]
    assert list(by_group) == ["performance"]


@pytest.mark.parametrize(
    "value", [3, 0.5, True, None, "resnet18", ["layer2", "layer3"], {"height": 64, "width": 32}, [[1], {"a": None}]]
)
def test_a_choice_is_of_any_type_and_comes_back_as_it_was(value: Any) -> None:
    sweep = SWEEP | {"parameters": [{"path": "model.padim.layers", "choices": [value]}]}
    text = json.dumps(Sweep.model_validate(sweep).to_json_object())
    assert json.loads(text)["parameters"] == [{"path": "model.padim.layers", "choices": [value]}]
    trial = {"sweep": "a", "number": 3, "rung": 1, "replicate": 2, "values": {"model.padim.layers": value}}
    assert json.loads(json.dumps(Trial.model_validate(trial).to_json_object())) == trial


@pytest.mark.parametrize(
    ("algorithm", "trials", "most"),
    [("grid", {}, 100_000), ("tpe", {}, 20), ("grid", {"max": 7}, 7), ("random", {"max": 400}, 400)],
)
def test_a_sweep_without_a_number_of_trials(algorithm: str, trials: dict[str, int], most: int) -> None:
    assert Sweep.model_validate(SWEEP | {"algorithm": {"name": algorithm}, "trials": trials}).most_trials == most


def test_models_with_epochs_may_be_pruned() -> None:
    names = {"path": "model.name", "choices": ["fastflow", "cflow"]}
    pruned = SWEEP | {"pruning": {"method": "median"}}
    Sweep.model_validate(pruned | {"parameters": [names]})
    assert "patchcore" in MODEL_NAMES
    with pytest.raises(ValidationError, match="pruning needs models that are trained in epochs: cfa, "):
        Sweep.model_validate(pruned | {"parameters": [names | {"choices": ["fastflow", "patchcore"]}]})


def fullest(values: dict[str, Any]) -> SweepStatus:
    """Return a status with everything at its bounds, and these values for each of the best points."""
    objectives = dict.fromkeys(sorted(get_args(MetricPath), key=len)[-4:], -1.2345678901234568e-300)
    best = BestTrial(number=99_999, objectives=objectives, standard_errors=objectives, values=values)
    return SweepStatus(
        asked=10**9,
        running=10**9,
        complete=10**9,
        pruned=10**9,
        infeasible=10**9,
        failed=10**9,
        gpu_hours=1.2345678901234567e300,
        removed_gpu_hours=1.2345678901234567e300,
        choice="\U0001f600" * 256,
        best=(best,) * 10,
        pareto_front=(ParetoPoint(number=99_999, objectives=objectives),) * 32,
        importances={f"model.{'a' * 120}{index:02d}": 0.12345678901234567 for index in range(32)},
        rung_correlation=(-0.12345678901234567,) * 7,
        stop_reason=StopReason.WITHOUT_IMPROVEMENT,
        remeasured=Remeasurement(objectives=objectives, gap=objectives, measured_on="\U0001f600" * 256),
    )


def size(status: SweepStatus) -> int:
    """Return the bytes of the status as the API server keeps it."""
    return len(json.dumps(status.to_json_object(), ensure_ascii=False, separators=(",", ":")).encode())


def test_the_fullest_status_fits() -> None:
    paths = [f"model.{'a' * 120}{index:02d}" for index in range(32)]
    huge = fullest({path: ["layer" * 50] * 8 for path in paths})
    assert size(huge) > 10 * SWEEP_STATUS_LIMIT
    bounded = huge.bounded()
    assert size(bounded) <= SWEEP_STATUS_LIMIT
    assert [trial.values for trial in bounded.best] == [None] * 10
    assert bounded == huge.model_copy(update={"best": bounded.best}), "only values of the best are left out"


def test_the_best_points_keep_their_values_as_far_as_they_fit() -> None:
    usual = fullest({f"model.patchcore.parameter{index}": 0.12345678901234567 for index in range(32)})
    assert size(usual) > SWEEP_STATUS_LIMIT
    bounded = usual.bounded()
    kept = [trial.values is not None for trial in bounded.best]
    assert kept == sorted(kept, reverse=True)
    assert kept[0], "best first"
    assert SWEEP_STATUS_LIMIT - 2000 < size(bounded) <= SWEEP_STATUS_LIMIT, "as many as fit"


def test_a_status_that_just_fits_is_whole_and_one_more_byte_costs_the_last_values() -> None:
    def status(length: int) -> SweepStatus:
        texts = ("first", "second", "x" * length)
        return SweepStatus(
            best=tuple(BestTrial(number=n, objectives={}, values={"a.b": text}) for n, text in enumerate(texts))
        )

    room = SWEEP_STATUS_LIMIT - size(status(0))
    fits, longer = status(room), status(room + 1)
    assert (size(fits), size(longer)) == (SWEEP_STATUS_LIMIT, SWEEP_STATUS_LIMIT + 1)
    assert fits.bounded() == fits
    assert [trial.values for trial in longer.bounded().best] == [{"a.b": "first"}, {"a.b": "second"}, None]


def test_a_small_status_stays_as_it_is() -> None:
    status = SweepStatus(asked=3, best=(BestTrial(number=1, objectives={"image.AUROC": 0.9}, values={"a.b": 1}),))
    assert status.bounded() == status
