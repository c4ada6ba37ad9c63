"""Specs of trials are what a person would have written; the final one keeps what the sweep's spec says."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.sweep_check import check_sweep
from anomaly_api.sweep_points import points
from anomaly_api.sweep_space import leads_into
from anomaly_api.sweep_trial import as_written, final_spec, replicate_points, rung_point, trial_spec
from anomaly_api.sweep_values import dimensions
from support.bad_manifests import SWEEPS, base, whole_sweep
from support.sweep_specs import AUROC, sweep_spec, with_sweep

SEED = {"path": "dataset.seed", "int": {"low": 0, "high": 9}}
MODELS = {"path": "model.name", "choices": ["padim", "patchcore"]}
LATENCY = {"metric": "performance.latencyMilliseconds", "goal": "minimize"}
SLOWEST = {"metric": "performance.latencyMillisecondsP90", "goal": "minimize"}
REGISTERED = {"mlflow": {"registerModel": "screws", "runName": "nine"}}


def written() -> dict[str, Any]:
    found: dict[str, Any] = base("AnomalyExperiment")["spec"]
    return found


def valid(document: dict[str, Any]) -> ExperimentSpec:
    """Read a document as strictly as the API server does."""
    return ExperimentSpec.model_validate_json(json.dumps(document), strict=True)


def test_a_trial_is_the_samples_spec_with_its_values_and_without_pictures_and_exports() -> None:
    spec = sweep_spec(SEED, {"path": "model.padim.layers", "choices": [["blocks.1"]]})
    wanted = written()
    wanted["dataset"]["seed"] = 7
    wanted["model"]["padim"]["layers"] = ["blocks.1"]
    wanted["evaluation"] = {"latency": {"enabled": False}}
    wanted["export"] = {"types": []}
    wanted["output"]["uploadArtifacts"] = False
    wanted["runPolicy"] = {"preflight": "Never"}
    assert trial_spec(spec, {"dataset.seed": 7, "model.padim.layers": ["blocks.1"]}) == wanted
    valid(wanted)


def test_what_is_written_is_json_without_defaults_and_without_the_sweep() -> None:
    assert as_written(sweep_spec(SEED, change={"export": {"types": ["onnx"]}, "runPolicy": {}})) == written() | {
        "export": {"types": ["onnx"]},
        "runPolicy": {},
    }


def test_what_is_written_as_null_is_not_written() -> None:
    sweep = sweep_spec(SEED).to_json_object()["sweep"]
    spec = with_sweep(written() | {"sweep": sweep, "training": {"maxEpochs": None, "trainBatchSize": 3}})
    assert as_written(spec)["training"] == {"trainBatchSize": 3}


def test_the_end_is_the_samples_spec_with_its_values() -> None:
    wanted = written()
    wanted["dataset"]["seed"] = 7
    assert final_spec(sweep_spec(SEED), {"dataset.seed": 7}) == wanted


def test_parameters_of_other_models_are_left_out() -> None:
    spec = sweep_spec(MODELS)
    model = trial_spec(spec, {"model.name": "patchcore", "model.patchcore.numNeighbors": 3})["model"]
    weights = written()["model"]["weights"]
    assert model == {"name": "patchcore", "patchcore": {"numNeighbors": 3}, "weights": weights}
    assert trial_spec(spec, {"model.name": "padim"})["model"] == written()["model"]
    assert final_spec(spec, {"model.name": "patchcore"})["model"] == {"name": "patchcore", "weights": weights}


def test_null_leaves_a_field_unset() -> None:
    spec = sweep_spec({"path": "model.padim.nFeatures", "choices": [None, 30]})
    assert "nFeatures" not in trial_spec(spec, {"model.padim.nFeatures": None})["model"]["padim"]
    unset = trial_spec(spec, {"training.earlyStopping.patience": None})
    assert "training" not in unset, "nothing is made to hold nothing"


def test_the_sweeps_spec_stays_as_it_is() -> None:
    layers = ["blocks.1"]
    spec = sweep_spec({"path": "model.padim.layers", "choices": [layers]})
    before = spec.to_json_object()
    trial = trial_spec(spec, {"model.padim.layers": layers})
    trial["model"]["padim"]["layers"].append("blocks.2")
    trial["dataset"]["source"].clear()
    assert layers == ["blocks.1"]
    assert spec.to_json_object() == before


@pytest.mark.parametrize(
    ("export", "sweep", "types"),
    [
        ({"types": ["onnx", "openvino"]}, {}, []),
        ({"types": ["onnx", "openvino"]}, {"objectives": [AUROC, LATENCY]}, ["onnx"]),
        ({"types": ["torchscript", "onnx"]}, {"objectives": [SLOWEST]}, ["onnx"]),
        ({"types": ["openvino", "torchscript"]}, {"objectives": [LATENCY]}, ["torchscript"]),
        ({"types": ["openvino"]}, {"constraints": [{"metric": "performance.modelBytes", "max": 1e9}]}, ["openvino"]),
        ({"types": []}, {"objectives": [LATENCY]}, []),
        (None, {"constraints": [{"metric": "performance.imagesPerSecond", "min": 3}]}, ["onnx"]),
        (None, {"constraints": [{"metric": "performance.trainSeconds", "max": 3}]}, []),
        (None, {"constraints": [{"metric": "performance.peakMemoryBytes", "max": 3}]}, []),
    ],
)
def test_a_model_is_exported_where_its_export_is_measured(export: Any, sweep: dict[str, Any], types: list[str]) -> None:
    spec = sweep_spec(SEED, change={"export": export}, **sweep)
    assert trial_spec(spec, {})["export"]["types"] == types
    assert final_spec(spec, {}).get("export") == export


def test_of_formats_that_are_searched_the_chosen_one_is_measured() -> None:
    spec = sweep_spec({"path": "export.types", "choices": [["torchscript"], ["onnx"]]}, objectives=[LATENCY])
    assert trial_spec(spec, {"export.types": ["torchscript"]})["export"]["types"] == ["torchscript"]


@pytest.mark.parametrize(
    ("sweep", "timed"),
    [
        ({}, False),
        ({"objectives": [AUROC, LATENCY]}, True),
        ({"constraints": [{"metric": "performance.imagesPerSecond", "min": 3}]}, True),
        ({"constraints": [{"metric": "performance.modelBytes", "max": 1e9}]}, False),
    ],
)
def test_a_model_is_timed_where_an_objective_or_a_constraint_is_about_it(sweep: dict[str, Any], timed: bool) -> None:
    for change in ({}, {"evaluation": {"latency": {"enabled": not timed}}}):
        spec = sweep_spec(SEED, change=change, **sweep)
        assert valid(trial_spec(spec, {})).evaluation.latency.enabled is timed
        assert final_spec(spec, {}).get("evaluation", {}).get("latency") == change.get("evaluation", {}).get("latency")


def test_half_precision_is_measured_as_such() -> None:
    spec = sweep_spec(SEED, change={"export": {"precision": "float16"}}, objectives=[LATENCY])
    assert trial_spec(spec, {})["export"] == {"types": ["onnx"], "precision": "float16"}


def test_a_trial_does_not_do_what_is_for_the_winner() -> None:
    change = {
        "tracking": REGISTERED,
        "output": {"keepCheckpoint": True},
        "runPolicy": {"suspend": True, "rerun": "again", "backoffLimit": 1, "preflight": "Always"},
    }
    spec = sweep_spec(SEED, change=change)
    trial = trial_spec(spec, {"dataset.seed": 1})
    server = written()["tracking"]["mlflow"]
    assert trial["tracking"]["mlflow"] == server
    assert "keepCheckpoint" not in trial["output"]
    assert trial["runPolicy"] == {"backoffLimit": 1, "preflight": "Always"}
    final = final_spec(spec, {"dataset.seed": 1})
    assert final["tracking"]["mlflow"] == server | REGISTERED["mlflow"]
    assert final["runPolicy"] == change["runPolicy"]


def test_pruning_needs_a_curve() -> None:
    fastflow: dict[str, Any] = {"model": {"name": "fastflow", "padim": None}, "training": {"profile": {}}}
    flow = {"path": "model.fastflow.flowSteps", "int": {"low": 2, "high": 8}}
    assert trial_spec(sweep_spec(flow, change=fastflow), {})["training"] == {}
    pruned = sweep_spec(flow, change=fastflow, pruning={"method": "median"})
    stopped_by_the_median = {"enabled": False, "metric": "imageAUROC"}
    assert trial_spec(pruned, {})["training"] == {"checkValEveryNEpoch": 1, "earlyStopping": stopped_by_the_median}
    assert final_spec(pruned, {})["training"] == {"profile": {}}
    fastflow["training"] |= {"checkValEveryNEpoch": 5, "earlyStopping": {"patience": 9}}
    objectives = [{"metric": "pixel.AUROC", "goal": "maximize"}]
    pruned = sweep_spec(flow, change=fastflow, pruning={"method": "median"}, objectives=objectives)
    watched = {"patience": 9, "metric": "pixelAUROC"}
    assert trial_spec(pruned, {})["training"] == {"checkValEveryNEpoch": 5, "earlyStopping": watched}


def test_replicates_are_numbered_with_the_last_path_fastest() -> None:
    paths = [{"path": "dataset.category", "values": ["a", "b"]}, {"path": "dataset.seed", "values": [3, 4]}]
    spec = sweep_spec(MODELS, replicates={"paths": paths})
    assert spec.sweep is not None
    found = [tuple(point.values()) for point in replicate_points(spec.sweep)]
    assert found == [("a", 3), ("a", 4), ("b", 3), ("b", 4)]
    assert trial_spec(spec, replicate_points(spec.sweep)[2])["dataset"]["category"] == "b"
    assert sweep_spec(SEED).sweep is not None
    single = sweep_spec(SEED).sweep
    assert single is not None
    assert replicate_points(single) == ({},)


def test_rungs_set_one_field_and_the_end_has_the_last_where_the_spec_has_none() -> None:
    fastflow = {"model": {"name": "fastflow", "padim": None}}
    epochs = {"path": "training.maxEpochs", "values": [3, 10, 30.0]}
    spec = sweep_spec(SEED, change=fastflow, fidelity=epochs)
    assert spec.sweep is not None
    first = rung_point(spec.sweep, 0)
    assert first == {"training.maxEpochs": 3}
    assert isinstance(first["training.maxEpochs"], int), "as the field is"
    valid(trial_spec(spec, first))
    assert final_spec(spec, {})["training"] == {"maxEpochs": 30}
    kept = sweep_spec(SEED, change=fastflow | {"training": {"maxEpochs": 99}}, fidelity=epochs)
    assert final_spec(kept, {})["training"] == {"maxEpochs": 99}
    fraction = sweep_spec(SEED, fidelity={"path": "dataset.fraction", "values": [0.25, 0.5]})
    assert "fraction" not in final_spec(fraction, {})["dataset"], "the default is all images"
    none = sweep_spec(SEED).sweep
    assert none is not None
    assert rung_point(none, 0) == {}


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_the_samples_work_at_every_point(file: Path) -> None:
    spec = with_sweep(yaml.safe_load(file.read_text())["spec"])
    assert check_sweep(spec) == ()
    assert spec.sweep is not None
    for point in points(dimensions(spec.sweep), {}):
        valid(trial_spec(spec, point))
        valid(final_spec(spec, point))


def test_the_leaderboard_has_fifteen_runs_of_four_models() -> None:
    (file,) = (file for file in SWEEPS if "leaderboard" in file.stem)
    spec = with_sweep(yaml.safe_load(file.read_text())["spec"])
    assert spec.sweep is not None
    assert len(replicate_points(spec.sweep)) == 15
    assert len({str(point["model.name"]) for point in points(dimensions(spec.sweep), {})}) == 4


def test_a_spec_with_every_default_written_out_makes_the_same_trials() -> None:
    """As the API server keeps it."""
    sweep = whole_sweep()
    spec = sweep_spec(*sweep.pop("parameters"), change={"model": {"weights": None}}, **sweep)
    full = with_sweep(spec.to_json_object())
    assert spec.sweep is not None
    for point in points(dimensions(spec.sweep), {}):
        assert valid(trial_spec(spec, point)) == valid(trial_spec(full, point))
        assert valid(final_spec(spec, point)) == valid(final_spec(full, point))


CHANGED_BY_TRIALS = ("export", "output.uploadArtifacts", "evaluation.visualization", "evaluation.latency", "runPolicy")


@pytest.mark.parametrize("seed", range(40))
def test_every_point_of_a_large_space_makes_valid_specs_with_just_its_values(seed: int) -> None:
    sweep = whole_sweep()
    spec = sweep_spec(*sweep.pop("parameters"), change={"model": {"weights": None}}, **sweep)
    assert spec.sweep is not None
    point = random.Random(seed).choice(list(points(dimensions(spec.sweep), {})))
    trial, final = trial_spec(spec, point), final_spec(spec, point)
    for document in (trial, final):
        valid(document)
        assert document["model"].keys() <= {"name", point["model.name"]}
        assert {path: value_at(document, path) for path in point} == point
    untouched = leaves(written(), besides=(*point, "model"))
    assert leaves(final, besides=(*point, "model")) == untouched
    untouched = leaves(written(), besides=(*point, "model", *CHANGED_BY_TRIALS))
    assert leaves(trial, besides=(*point, "model", *CHANGED_BY_TRIALS)) == untouched
    assert len(untouched) > 10


def value_at(document: Any, path: str) -> Any:
    for step in path.split("."):
        document = document.get(step) if document else None
    return document


def leaves(document: Any, path: str = "", *, besides: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of a document by path, without those at or below some paths."""
    if any(leads_into(path, other) for other in besides):
        return {}
    if not isinstance(document, dict):
        return {path: document}
    inner = (leaves(value, f"{path}.{name}" if path else name, besides=besides) for name, value in document.items())
    return {place: value for found in inner for place, value in found.items()}
