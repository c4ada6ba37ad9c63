"""Nothing that a run has found is missing in its report: every field by hand, for each of the four kinds of a run."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from anomaly_api.dataset import DatasetLimits
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import Reason
from anomaly_api.run import (
    ConfusionMatrix,
    ExportReport,
    LabelSummary,
    Mistake,
    PerformanceReport,
    RunConfig,
    RunReport,
    ScoreHistogram,
    TrainingReport,
)
from anomaly_api.status import Artifacts, Curve, Device, MetricValues, MlflowStatus, ThresholdValues, TrainedBy
from anomaly_runner.context import RunRecord
from anomaly_runner.data.batches import IntegrityLog
from anomaly_runner.data.samples import SYNTHETIC, DatasetIndex, Sample
from anomaly_runner.errors import ExportMismatch
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.reporting.report import (
    PrunedTraining,
    Results,
    make_pruned_report,
    make_report,
    make_search_report,
    timestamp,
)
from anomaly_runner.scoring.predict import Predictions
from support.contexts import RUN

SPEC: dict[str, Any] = {
    "dataset": {"source": {"s3": {"uri": "s3://data"}}},
    "model": {"name": "padim"},
    "output": {"s3": {"uri": "s3://results"}},
}
CONFIG = RunConfig(run=RUN, experiment=ExperimentSpec.model_validate(SPEC))
ARTIFACTS = Artifacts(root="s3://results/x", report="s3://results/x/report.json")
MLFLOW = MlflowStatus(run_id="r")
DEVICE = Device(name="CPU", count=2, provider="torch cpu")
CURVE = Curve(metric="imageAUROC", synthetic=True, epochs=tuple(range(1, 101)), values=(0.5,) * 99 + (0.75,))
THRESHOLDS = ThresholdValues(image=2.0, source="adaptive")
TRAINING = TrainingReport(epochs=3, steps=6, batch_size=2, pruned="others are better")
DATASET = DatasetIndex(
    train=(Sample("train/good/0.png", "good"), Sample("train/good/1.png", "good")),
    validation=(Sample("val/good/0.png", "good"), Sample("val/good/1.png#1", SYNTHETIC, source="val/good/1.png")),
    test=(Sample("test/good/a.png", "good"), Sample("test/dent/b.png", "dent")),
    missing_masks=("test/dent/b.png",),
    layout="MVTec AD",
)
IMAGES = "MVTec AD: 2 good to learn from, 2 to validate on (good 1, synthetic defect 1), 2 to test (good 1, dent 1)"
EXPORT = ExportReport(format="onnx", file="model.onnx", size_bytes=1, max_score_difference=0, images_compared=1)
MEASURED = PerformanceReport(
    model="onnx",
    provider="CPUExecutionProvider",
    device="CPU",
    images_timed=8,
    latency_range=(1.0, 2.0),
    batch_size=4,
    parallel_batches=1,
)


@pytest.fixture
def record() -> RunRecord:
    made = RunRecord(
        started=datetime(2026, 1, 2, 3, 4, 5, 678, UTC), seconds={"train": 2.5}, device=DEVICE, curve=CURVE
    )
    made.warn("beware")
    return made


@pytest.fixture
def integrity() -> IntegrityLog:
    made = IntegrityLog(DatasetLimits(max_unreadable_images=3))
    made.add_unreadable("broken.png", "an empty file")
    made.digests = {"a.png": hashlib.sha256(b"a").digest()}
    return made


@pytest.fixture
def results(integrity: IntegrityLog) -> Results:
    evaluated = EvaluationResult(
        thresholds=THRESHOLDS,
        metrics=MetricValues(image={"AUROC": 1.0}),
        normalizer=ScoreNormalizer("none", THRESHOLDS, {"image": (1.0, 3.0)}),
        anomalous=np.array([False, True]),
        normalized_scores=np.array([1.0, 3.0]),
        confusion=ConfusionMatrix(true_negatives=1, false_positives=0, false_negatives=0, true_positives=1),
        labels={"good": LabelSummary(images=1, mean_score=1, anomalous=0)},
        metrics_by_defect={"dent": MetricValues(image={"AUROC": 1.0})},
        intervals={"AUROC": (0.5, 1.0)},
        histogram=ScoreHistogram(edges=(1, 2, 3), good=(1, 0), defect=(0, 1)),
        mistakes=(Mistake(path="x.png", label="good", score=2.5),),
    )
    return Results(
        dataset=DATASET,
        predictions=Predictions(DATASET.test, np.array([1, 3], np.float32), None, None),
        evaluated=evaluated,
        integrity=integrity,
        environment={"torch": "2"},
        trained_images=2,
        exports=(EXPORT,),
        training=TRAINING,
        validation_images=2,
        trained_by=TrainedBy(namespace="factory", name="screws", uid="0-1", run=1),
        performance={"latencyMilliseconds": 1.5},
        measured=MEASURED,
    )


def as_json(report: RunReport) -> dict[str, Any]:
    """What is in report.json, without the configuration."""
    found: dict[str, Any] = report.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    del found["config"]
    return found


COMMON = {
    "artifacts": {"root": "s3://results/x", "report": "s3://results/x/report.json"},
    "mlflow": {"runId": "r"},
    "warnings": ["beware"],
}
SHORT_CURVE_LENGTH = 32
RUN_AS_JSON = {"kind": "AnomalyExperiment", "namespace": "vision", "name": "screws", "uid": "u"}


def without_curve(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary without the course, which is checked here: as short as a status takes it, with the best and last."""
    curve = summary.pop("curve")
    assert (curve["metric"], curve["synthetic"]) == ("imageAUROC", True)
    assert len(curve["epochs"]) == len(curve["values"]) <= SHORT_CURVE_LENGTH
    assert (curve["epochs"][-1], curve["values"][-1]) == (100, 0.75)
    return summary


def test_all_that_a_run_has_found_is_in_its_report(results: Results, record: RunRecord) -> None:
    found = as_json(make_report(CONFIG, results, ARTIFACTS, MLFLOW, record))
    summary = without_curve(found.pop("summary"))
    assert summary == COMMON | {
        "reason": "Complete",
        "stage": "done",
        "metrics": {"image": {"AUROC": 1.0}, "performance": {"latencyMilliseconds": 1.5}},
        "thresholds": {"image": 2.0, "source": "adaptive"},
        "images": {"train": 2, "validation": 2, "synthetic": 1, "predicted": 2, "anomalous": 1, "unreadable": 1},
        "device": {"name": "CPU", "count": 2, "provider": "torch cpu"},
        "trainedBy": {"namespace": "factory", "name": "screws", "uid": "0-1", "run": 1},
    }
    of_a = hashlib.sha256(b"a").digest()
    assert found.pop("datasetFingerprint") == hashlib.sha256(b"a.png\0" + of_a).hexdigest()
    assert found == {
        "run": RUN_AS_JSON,
        "confusion": {"trueNegatives": 1, "falsePositives": 0, "falseNegatives": 0, "truePositives": 1},
        "labels": {"good": {"images": 1, "meanScore": 1, "anomalous": 0}},
        "metricsByDefect": {"dent": {"image": {"AUROC": 1.0}}},
        "intervals": {"AUROC": [0.5, 1.0]},
        "histogram": {"edges": [1, 2, 3], "good": [1, 0], "defect": [0, 1]},
        "mistakes": [{"path": "x.png", "label": "good", "score": 2.5}],
        "thresholdsFrom": "validation",
        "training": {"epochs": 3, "steps": 6, "batchSize": 2, "pruned": "others are better"},
        "exports": [
            {"format": "onnx", "file": "model.onnx", "sizeBytes": 1, "maxScoreDifference": 0, "imagesCompared": 1}
        ],
        "performance": {
            "model": "onnx",
            "provider": "CPUExecutionProvider",
            "device": "CPU",
            "imagesTimed": 8,
            "latencyRange": [1.0, 2.0],
            "batchSize": 4,
            "parallelBatches": 1,
        },
        "dataset": IMAGES,
        "unreadable": [{"path": "broken.png", "problem": "an empty file"}],
        "missingMasks": ["test/dent/b.png"],
        "scoreRange": {"image": [1.0, 3.0]},
        "started": "2026-01-02T03:04:05Z",
        "seconds": {"train": 2.5},
        "environment": {"torch": "2"},
    }


def test_no_synthetic_defects_and_no_course_are_not_told(results: Results, record: RunRecord) -> None:
    record.curve = None
    plain = replace(results, dataset=replace(DATASET, validation=()))
    summary = make_report(CONFIG, plain, ARTIFACTS, None, record).summary
    assert summary.images is not None
    assert (summary.images.synthetic, summary.curve, summary.mlflow) == (None, None, None)


def test_a_failed_export_is_told_in_a_message_that_fits(results: Results, record: RunRecord) -> None:
    failed = replace(results, failure=ExportMismatch("x" * 2000))
    summary = make_report(CONFIG, failed, ARTIFACTS, MLFLOW, record).summary
    assert (summary.reason, summary.stage, summary.message) == (Reason.EXPORT_MISMATCH, "export", "x" * 1024)


@pytest.mark.parametrize(("why", "told"), [("others are better", "others are better"), (None, "no reason was given")])
def test_all_that_is_known_of_a_training_that_was_ended_is_in_its_report(
    integrity: IntegrityLog, record: RunRecord, why: str | None, told: str
) -> None:
    training = TRAINING.model_copy(update={"pruned": why})
    pruned = PrunedTraining(
        dataset=DATASET,
        integrity=integrity,
        environment={"torch": "2"},
        trained_images=2,
        training=training,
        performance={"trainSeconds": 2.0},
    )
    found = as_json(make_pruned_report(CONFIG, pruned, ARTIFACTS, MLFLOW, record))
    assert without_curve(found.pop("summary")) == COMMON | {
        "reason": "Pruned",
        "message": f"the training was ended after 3 epochs: {told}",
        "stage": "train",
        "metrics": {"performance": {"trainSeconds": 2.0}},
        "images": {"train": 2, "unreadable": 1},
        "device": {"name": "CPU", "count": 2, "provider": "torch cpu"},
    }
    found["training"].pop("pruned", None)
    assert found == {
        "run": RUN_AS_JSON,
        "training": {"epochs": 3, "steps": 6, "batchSize": 2},
        "dataset": IMAGES,
        "unreadable": [{"path": "broken.png", "problem": "an empty file"}],
        "missingMasks": ["test/dent/b.png"],
        "started": "2026-01-02T03:04:05Z",
        "seconds": {"train": 2.5},
        "environment": {"torch": "2"},
    }


SWEEP = {
    "spec": {
        "parameters": [{"path": "model.padim.nFeatures", "choices": [10, 20]}],
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
    },
    "status": {},
}


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (None, None),
        (SWEEP, None),
        (SWEEP | {"failure": {"reason": "TrialsFailed", "message": "6"}}, "the search failed, TrialsFailed: 6"),
    ],
)
def test_all_that_is_known_of_a_search_is_in_its_report(
    record: RunRecord, sweep: dict[str, Any] | None, message: str | None
) -> None:
    document = {"run": RUN, "experiment": SPEC} | ({"sweep": sweep} if sweep else {})
    found = as_json(make_search_report(RunConfig.model_validate(document), ARTIFACTS, MLFLOW, record))
    told = {"message": message} if message else {}
    assert found.pop("summary") == COMMON | {"reason": "Complete", "stage": "done"} | told
    assert found == {"run": RUN_AS_JSON, "started": "2026-01-02T03:04:05Z", "seconds": {"train": 2.5}}


def test_times_are_in_whole_seconds_as_kubernetes_writes_them() -> None:
    assert timestamp(datetime(2026, 1, 2, 3, 4, 5, 999999, UTC)) == "2026-01-02T03:04:05Z"
