"""What a tracker is given of a run: every number under its name, tags, the data set, and which files are the model."""

import json
from pathlib import Path
from typing import Any

import pytest

from anomaly_api.dataset import DataSource
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.run import RunReport
from anomaly_api.sweep_status import SweepStatus
from anomaly_runner.tracking.run_results import flat_parameters, tracked_result
from anomaly_runner.tracking.tracker import TrackedResult

EXPERIMENT: dict[str, Any] = {
    "dataset": {"source": {"s3": {"uri": "s3://data/screws"}}},
    "model": {"name": "padim"},
    "output": {"s3": {"uri": "s3://results"}},
}
INFERENCE: dict[str, Any] = {
    "model": {"experiment": "screws"},
    "input": {"source": {"s3": {"uri": "s3://today"}}},
    "output": {"s3": {"uri": "s3://results"}},
}
RUN = {"kind": "AnomalyExperiment", "namespace": "factory", "name": "screws", "uid": "0-1"}
COMPLETE = {"reason": "Complete", "stage": "done"}


def report(summary: dict[str, Any] | None = None, config: dict[str, Any] | None = None, **fields: Any) -> RunReport:
    asked = {"run": RUN, "experiment": EXPERIMENT} if config is None else {"run": RUN} | config
    return RunReport.model_validate({"run": RUN, "summary": COMPLETE | (summary or {}), "config": asked} | fields)


def tracked(made: RunReport, folder: Path = Path("/nowhere")) -> TrackedResult:
    return tracked_result(made, folder, complete=False)


def test_a_run_that_measured_nothing_is_tracked_by_its_seconds() -> None:
    found = tracked(report(seconds={"train": 2.5, "predict": 1.0}))
    assert found.metrics == {"seconds_train": 2.5, "seconds_predict": 1.0}
    assert (found.artifacts, found.history, found.dataset, found.model, found.tags, found.failed) == (
        (),
        {},
        None,
        None,
        {},
        False,
    )


def test_every_number_has_the_name_of_what_it_is_about() -> None:
    summary = {
        "metrics": {
            "image": {"AUROC": 0.9},
            "pixel": {"AUPRO": 0.8},
            "synthetic": {"imageAUROC": 0.7},
            "performance": {"latencyMilliseconds": 12.0},
        },
        "thresholds": {"image": 1.5, "pixel": 2.5},
    }
    confusion = {"trueNegatives": 1, "falsePositives": 2, "falseNegatives": 3, "truePositives": 4}
    made = report(
        summary,
        metricsByDefect={"a:b": {"image": {"AUROC": 0.6}, "pixel": {"AUROC": 0.5}}},
        confusion=confusion,
        intervals={"AUROC": (0.85, 0.95)},
    )
    assert tracked(made).metrics == {
        "image_AUROC": 0.9,
        "pixel_AUPRO": 0.8,
        "synthetic_imageAUROC": 0.7,
        "performance_latencyMilliseconds": 12.0,
        "image_threshold": 1.5,
        "pixel_threshold": 2.5,
        "image_AUROC/a_U003A_b": 0.6,
        "pixel_AUROC/a_U003A_b": 0.5,
        "image_true_negatives": 1.0,
        "image_false_positives": 2.0,
        "image_false_negatives": 3.0,
        "image_true_positives": 4.0,
        "image_AUROC_low": 0.85,
        "image_AUROC_high": 0.95,
    }


def test_thresholds_that_there_are_not_have_no_number_and_0_is_one() -> None:
    assert tracked(report({"thresholds": {"image": 0.0}})).metrics == {"image_threshold": 0.0}


def test_the_course_of_a_training_is_its_history() -> None:
    training = {"epochs": 2, "steps": 4, "batchSize": 8, "history": {"trainLoss": [[2, 0.5], [4, 0.25]]}}
    assert tracked(report(training=training)).history == {"trainLoss": ((2, 0.5), (4, 0.25))}


SWEEP = {"parameters": [{"path": "model.padim.nFeatures", "choices": [10, 20]}]} | {
    "objectives": [{"metric": "image.AUROC", "goal": "maximize"}]
}


def searched(failure: dict[str, Any] | None = None, **status: Any) -> RunReport:
    found = SweepStatus.model_validate(status).to_json_object()
    sweep = {"spec": SWEEP, "status": found} | ({"failure": failure} if failure else {})
    return report(config={"experiment": EXPERIMENT, "sweep": sweep})


def test_a_search_is_tracked_by_its_counts_and_its_best_values() -> None:
    best = [{"number": 3, "objectives": {"image.AUROC": 0.99}}, {"number": 1, "objectives": {"image.AUROC": 0.9}}]
    counts: dict[str, Any] = {"asked": 6, "complete": 5, "pruned": 4, "infeasible": 3, "failed": 2}
    assert tracked(searched(**counts, gpuHours=1.5, best=best)).metrics == {
        "sweep_asked": 6.0,
        "sweep_complete": 5.0,
        "sweep_pruned": 4.0,
        "sweep_infeasible": 3.0,
        "sweep_failed": 2.0,
        "sweep_gpu_hours": 1.5,
        "sweep_best_image_AUROC": 0.99,
    }
    assert not any(name.startswith("sweep_best") for name in tracked(searched()).metrics)
    measured = searched().model_copy(update={"seconds": {"train": 2.5}, "intervals": {"AUROC": (0.85, 0.95)}})
    assert {"seconds_train", "image_AUROC_low", "sweep_asked"} <= tracked(measured).metrics.keys()


def test_what_ended_well_what_was_given_up_and_what_failed() -> None:
    assert not tracked(report()).failed
    pruned = tracked(report({"reason": "Pruned", "message": "others are better"}))
    assert (pruned.failed, pruned.tags) == (False, {"anomalyops.io/pruned": "others are better"})
    failed = tracked(report({"reason": "ExportMismatch", "message": "it disagrees"}))
    assert (failed.failed, failed.tags) == (True, {"anomalyops.io/failure": "it disagrees"})
    assert not tracked(searched()).failed
    assert tracked(searched(failure={"reason": "TrialsFailed", "message": "too many"})).failed


def test_tags_tell_the_device_the_model_and_synthetic_defects() -> None:
    made = report(
        {
            "device": {"name": "NVIDIA L4", "count": 2, "provider": "torch cuda"},
            "trainedBy": {"namespace": "factory", "name": "screws", "uid": "0-1", "run": 3},
            "images": {"train": 5, "synthetic": 7},
        },
        environment={"model": "models:/screws/3", "torch": "2.8"},
    )
    assert tracked(made).tags == {
        "anomalyops.io/model": "models:/screws/3",
        "anomalyops.io/syntheticDefects": "7",
        "anomalyops.io/device.name": "NVIDIA L4",
        "anomalyops.io/device.count": "2",
        "anomalyops.io/device.provider": "torch cuda",
        "anomalyops.io/trainedBy.namespace": "factory",
        "anomalyops.io/trainedBy.name": "screws",
        "anomalyops.io/trainedBy.uid": "0-1",
        "anomalyops.io/trainedBy.run": "3",
    }
    assert "anomalyops.io/syntheticDefects" not in tracked(report({"images": {"train": 5}})).tags


COUNTS = {"train": 5, "validation": 4, "predicted": 3, "anomalous": 2, "unreadable": 1}


def test_the_images_are_a_dataset_once_they_were_read() -> None:
    assert tracked(report({"images": COUNTS})).dataset is None
    assert tracked(report(dataset_fingerprint="f" * 64)).dataset is None
    found = tracked(report({"images": COUNTS}, dataset_fingerprint="f" * 64)).dataset
    assert found is not None
    assert (found.name, found.kind, found.uri) == ("s3://data/screws", "s3", "s3://data/screws")
    assert (found.digest, found.context) == ("f" * 64, "training")
    assert found.images == {"train": 5, "validation": 4, "predicted": 3, "unreadable": 1}


@pytest.mark.parametrize(
    ("source", "kind", "uri"),
    [
        ({"persistentVolumeClaim": {"claimName": "images", "path": "2024/may"}}, "persistentVolumeClaim", "2024/may"),
        ({"persistentVolumeClaim": {"claimName": "images"}}, "persistentVolumeClaim", ""),
        ({"builtin": {"name": "mvtec"}}, "builtin", "mvtec"),
    ],
)
def test_a_dataset_is_named_by_its_category_and_told_by_its_place(source: dict[str, Any], kind: str, uri: str) -> None:
    DataSource.model_validate(source)
    spec = EXPERIMENT | {"dataset": {"source": source, "category": "bottle"}}
    made = report({"images": COUNTS}, {"experiment": spec}, dataset_fingerprint="f" * 64)
    found = tracked(made).dataset
    assert found is not None
    assert (found.name, found.kind) == ("bottle", kind)
    assert found.uri == (uri if kind == "builtin" else f"pvc://images/{uri}")


def test_the_images_of_an_inference_are_no_training() -> None:
    made = report({"images": COUNTS}, {"inference": INFERENCE}, dataset_fingerprint="f" * 64)
    found = tracked(made).dataset
    assert found is not None
    assert (found.context, found.uri) == ("inference", "s3://today")


MANIFEST = {
    "run": RUN,
    "model": "padim",
    "inputHeight": 8,
    "inputWidth": 8,
    "normalization": "none",
    "exports": [{"format": "onnx", "file": "model.onnx", "sha256": "0", "companions": {"model.onnx.data": "1"}}],
    "checkpoint": {"file": "model.safetensors", "sha256": "2"},
    "thresholds": {},
    "scoreNormalization": "none",
    "thresholdType": "image",
    "task": "classification",
}
FILES = ("model.json", "model.onnx", "model.onnx.data", "report.json", "results.json", "pictures/dent/b.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*FILES, ".hidden", "listing.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "model.json").write_text(json.dumps(MANIFEST))
    return tmp_path


def places(found: TrackedResult, folder: Path) -> dict[str, str]:
    """Folder in the tracker by the file's path."""
    return {file.relative_to(folder).as_posix(): target for target, file in found.artifacts}


def test_the_files_that_the_manifest_names_are_the_model(folder: Path) -> None:
    found = tracked_result(report(), folder, complete=True, leave_out={"listing.parquet"})
    assert found.model is not None
    assert found.model.model == "padim"
    assert places(found, folder) == {
        "model.json": "model",
        "model.onnx": "model",
        "model.onnx.data": "model",
        "report.json": "",
        "results.json": "",
        "pictures/dent/b.jpg": "pictures/dent",
    }
    assert [file.name for _, file in found.artifacts] == [Path(name).name for name in sorted(FILES)]


def test_a_run_that_failed_has_files_and_no_model(folder: Path) -> None:
    found = tracked_result(report({"reason": "ExportMismatch"}), folder, complete=True)
    assert found.model is None
    assert places(found, folder)["model.onnx"] == ""


def test_a_run_that_keeps_no_model_has_files_alone(folder: Path) -> None:
    (folder / "model.json").unlink()
    found = tracked_result(report(), folder, complete=True)
    assert (found.model, places(found, folder)["report.json"]) == (None, "")


def test_where_the_report_alone_is_published_it_is_the_one_artifact(folder: Path) -> None:
    found = tracked_result(report(), folder, complete=False)
    assert (found.model, places(found, folder)) == (None, {"report.json": ""})


def test_parameters_are_what_is_set_by_path_as_text() -> None:
    spec = ExperimentSpec.model_validate(
        EXPERIMENT | {"model": {"name": "padim", "padim": {"layers": ["layer1", "layer2"], "nFeatures": 50}}}
    )
    found = flat_parameters(spec)
    assert found["model.padim.layers"] == "layer1, layer2"
    assert (found["model.padim.nFeatures"], found["training.deterministic"]) == ("50", "False")
    assert not any(name.startswith("sweep") for name in found)
    assert flat_parameters(InferenceSpec.model_validate(INFERENCE))["model.experiment"] == "screws"
