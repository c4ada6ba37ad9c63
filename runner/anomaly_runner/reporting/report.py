"""Put a run's results into the contract's types: the summary for the status, and report.json. Computes no metric."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from anomaly_api.reasons import Reason
from anomaly_api.run import ExportReport, PerformanceReport, RunConfig, RunReport, RunSummary, TrainingReport
from anomaly_api.status import (
    MAX_STATUS_CURVE,
    Artifacts,
    Curve,
    ImageCounts,
    MetricValues,
    MlflowStatus,
    Stage,
    ThresholdValues,
    TrainedBy,
)
from anomaly_runner.context import RunRecord
from anomaly_runner.data.batches import IntegrityLog
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.data.summary import describe
from anomaly_runner.errors import MESSAGE_LIMIT, RunFailed
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.reporting.gallery import GalleryItem
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.training.curve import make_curve


@dataclass(frozen=True, kw_only=True)
class Results:
    """All results of a run.

    Attributes:
        dataset: the listed images.
        predictions: raw scores of the test images.
        evaluated: decisions and metrics.
        integrity: digests of the files that were read, and the unreadable files.
        environment: versions of libraries.
        trained_images: number of images that the model has learnt from; 0 for an inference.
        exports: comparison of each export with torch.
        training: epochs, steps and metrics of a training by gradient.
        validation_images: number of validation images, on which thresholds were found; 0 if there are none.
        gallery: pictures for the HTML report.
        model_thresholds: thresholds of the trained model that an inference uses.
        trained_by: the experiment that trained that model.
        performance: metrics of what the model and the run cost, by name.
        measured: what these were measured with; None where no model was timed.
        failure: reason why the run fails although it has results.
    """

    dataset: DatasetIndex
    predictions: Predictions
    evaluated: EvaluationResult
    integrity: IntegrityLog
    environment: Mapping[str, str]
    trained_images: int = 0
    exports: tuple[ExportReport, ...] = ()
    training: TrainingReport | None = None
    validation_images: int = 0
    gallery: tuple[GalleryItem, ...] = ()
    model_thresholds: ThresholdValues | None = None
    trained_by: TrainedBy | None = None
    performance: Mapping[str, float] = field(default_factory=dict)
    measured: PerformanceReport | None = None
    failure: RunFailed | None = None

    @property
    def thresholds_from(self) -> Literal["validation", "synthetic", "test", "manual", "model"]:
        """Origin of the thresholds: the images that they were found on, the manifest or the trained model."""
        source = self.evaluated.thresholds.source
        if source in ("training", "custom"):
            return "model"
        if source == "manual":
            return "manual"
        if self.validation_images:
            return "synthetic" if self.evaluated.thresholds.synthetic else "validation"
        return "test"


def make_summary(results: Results, artifacts: Artifacts, mlflow: MlflowStatus | None, record: RunRecord) -> RunSummary:
    """Make the summary for the status of a run that has results."""
    evaluated, failure = results.evaluated, results.failure
    performance = dict(results.performance)
    return RunSummary(
        reason=failure.reason if failure else Reason.COMPLETE,
        message=f"{failure}; all else is in {artifacts.root}"[:MESSAGE_LIMIT] if failure else "",
        stage=Stage.EXPORT if failure else Stage.DONE,
        metrics=evaluated.metrics.model_copy(update={"performance": performance}),
        thresholds=evaluated.thresholds,
        images=ImageCounts(
            train=results.trained_images,
            validation=results.validation_images,
            synthetic=results.dataset.synthetic_defects or None,
            predicted=len(results.predictions.samples),
            anomalous=int(evaluated.anomalous.sum()),
            unreadable=len(results.integrity.unreadable),
        ),
        curve=_short_curve(record),
        artifacts=artifacts,
        mlflow=mlflow,
        device=record.device,
        trained_by=results.trained_by,
        warnings=record.warnings,
    )


@dataclass(frozen=True, kw_only=True)
class PrunedTraining:
    """What is known of a run whose training the operator has ended: no image was scored, and no model is kept.

    Attributes:
        dataset: the listed images.
        integrity: the unreadable files among those that were read.
        environment: versions of libraries.
        trained_images: number of training images.
        training: its course.
        performance: metrics of what the run cost, by name.
    """

    dataset: DatasetIndex
    integrity: IntegrityLog
    environment: Mapping[str, str]
    trained_images: int
    training: TrainingReport
    performance: Mapping[str, float]


def make_pruned_report(
    config: RunConfig, pruned: PrunedTraining, artifacts: Artifacts, mlflow: MlflowStatus | None, record: RunRecord
) -> RunReport:
    """Make the content of report.json for a run whose training the operator has ended."""
    ended = f"the training was ended after {pruned.training.epochs} epochs"
    summary = RunSummary(
        reason=Reason.PRUNED,
        message=f"{ended}: {pruned.training.pruned or 'no reason was given'}"[:MESSAGE_LIMIT],
        stage=Stage.TRAIN,
        metrics=MetricValues(performance=dict(pruned.performance)),
        images=ImageCounts(train=pruned.trained_images, unreadable=len(pruned.integrity.unreadable)),
        curve=_short_curve(record),
        artifacts=artifacts,
        mlflow=mlflow,
        device=record.device,
        warnings=record.warnings,
    )
    return RunReport(
        run=config.run,
        summary=summary,
        config=config,
        training=pruned.training,
        dataset=describe(pruned.dataset),
        unreadable=tuple(pruned.integrity.unreadable),
        missing_masks=pruned.dataset.missing_masks,
        started=timestamp(record.started),
        seconds=dict(record.seconds),
        environment=dict(pruned.environment),
    )


def _short_curve(record: RunRecord) -> Curve | None:
    curve = record.curve
    if curve is None:
        return None
    return make_curve(curve.metric, curve.points, MAX_STATUS_CURVE, synthetic=curve.synthetic)


def make_search_report(
    config: RunConfig, artifacts: Artifacts, mlflow: MlflowStatus | None, record: RunRecord
) -> RunReport:
    """Make the content of report.json for the end of a search with which nothing was trained.

    Where the search failed, that is the message: the report of it is complete.
    """
    failure = config.sweep.failure if config.sweep else None
    summary = RunSummary(
        reason=Reason.COMPLETE,
        message=f"the search failed, {failure}"[:MESSAGE_LIMIT] if failure else "",
        stage=Stage.DONE,
        artifacts=artifacts,
        mlflow=mlflow,
        warnings=record.warnings,
    )
    started, seconds = timestamp(record.started), dict(record.seconds)
    return RunReport(run=config.run, summary=summary, config=config, started=started, seconds=seconds)


def make_report(
    config: RunConfig, results: Results, artifacts: Artifacts, mlflow: MlflowStatus | None, record: RunRecord
) -> RunReport:
    """Make the content of report.json for a run that has results."""
    return RunReport(
        run=config.run,
        summary=make_summary(results, artifacts, mlflow, record),
        config=config,
        confusion=results.evaluated.confusion,
        labels=results.evaluated.labels,
        metrics_by_defect=results.evaluated.metrics_by_defect,
        intervals=results.evaluated.intervals,
        histogram=results.evaluated.histogram,
        mistakes=results.evaluated.mistakes,
        thresholds_from=results.thresholds_from,
        training=results.training,
        exports=results.exports,
        performance=results.measured,
        dataset=describe(results.dataset),
        unreadable=tuple(results.integrity.unreadable),
        missing_masks=results.dataset.missing_masks,
        score_range=dict(results.evaluated.normalizer.ranges),
        started=timestamp(record.started),
        seconds=dict(record.seconds),
        environment=dict(results.environment),
        dataset_fingerprint=results.integrity.fingerprint(),
    )


def timestamp(time: datetime) -> str:
    """A time (UTC) as Kubernetes writes it, in whole seconds."""
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
