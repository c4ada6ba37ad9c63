"""Convert a run's spec and report for a tracker: flat parameters, metrics, tags, artifacts, dataset and model."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from anomaly_api import GROUP
from anomaly_api.base import Contract
from anomaly_api.dataset import DataSource
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import COMPLETED, Reason
from anomaly_api.run import MODEL_MANIFEST, REPORT, ModelManifest, RunReport
from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_api.storage import PersistentVolumeClaimLocation, S3Location
from anomaly_api.sweep_status import SweepStatus
from anomaly_runner.tracking.mlflow_names import metric_label
from anomaly_runner.tracking.tracker import FAILURE_TAG, MODEL_FOLDER, TrackedDataset, TrackedResult

PRUNED_TAG = f"{GROUP}/pruned"
"""Tag with the reason of a training that was ended because others are better."""
MODEL_TAG = f"{GROUP}/model"
"""Tag with the URI of an inference's model.

It is not a parameter: parameters cannot change, but a retried pod may find a newer registered version."""

SYNTHETIC_TAG = f"{GROUP}/syntheticDefects"
"""Tag with the number of synthetic defects that an experiment was validated with."""


def flat_parameters(spec: Contract) -> dict[str, str]:
    """Flatten a spec to the fields that are set, by path (``model.padim.backbone``).

    A spec holds names of Secrets, never their values, so that nothing has to be masked.
    """
    return dict(_leaves(spec.to_json_object()))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        yield path, ", ".join(str(item) for item in value)
    else:
        yield path, str(value)


def tracked_result(
    report: RunReport, folder: Path, complete: bool, leave_out: Collection[str] = frozenset()
) -> TrackedResult:
    """Collect a run's results for a tracker from the report and the folder of artifacts.

    Names of metrics: the level and the metric (``image_AUROC``), with the kind of defect if it is about one
    (``image_AUROC/scratch``); those of synthetic defects (``synthetic_imageAUROC``); ends of 95 % intervals
    (``image_AUROC_low``, ``image_AUROC_high``); counts of decisions (``image_false_positives``); thresholds
    (``pixel_threshold``); what the model costs (``performance_latencyMilliseconds``); and the seconds of each stage
    (``seconds_train``).

    Args:
        report: the run's report.
        folder: the run's artifacts on this machine.
        complete: whether the folder has all of them; if not, report.json is the only artifact.
        leave_out: paths of files in the folder that are no artifacts. Hidden files are none either.
    """
    search = report.config.sweep
    failed = report.summary.reason not in COMPLETED or (search is not None and search.failure is not None)
    model = _model(folder) if complete and not failed else None
    return TrackedResult(
        metrics=_metrics(report),
        artifacts=tuple(_artifacts(folder, model, complete, leave_out)),
        history=report.training.history if report.training else {},
        dataset=_dataset(report),
        model=model,
        tags=_tags(report),
        failed=failed,
    )


def _tags(report: RunReport) -> dict[str, str]:
    summary = report.summary
    tag = PRUNED_TAG if summary.reason is Reason.PRUNED else FAILURE_TAG
    found = {MODEL_TAG: report.environment.get("model"), tag: summary.message}
    if summary.images is not None and summary.images.synthetic:
        found[SYNTHETIC_TAG] = str(summary.images.synthetic)
    for group, values in {"device": summary.device, "trainedBy": summary.trained_by}.items():
        if values is not None:
            found |= {f"{GROUP}/{group}.{name}": text for name, text in flat_parameters(values).items()}
    return {name: value for name, value in found.items() if value}


def _metrics(report: RunReport) -> dict[str, float]:
    summary = report.summary
    metrics = _by_level(summary.metrics or MetricValues())
    found = summary.thresholds or ThresholdValues()
    thresholds = {"image_threshold": found.image, "pixel_threshold": found.pixel}
    metrics |= {name: value for name, value in thresholds.items() if value is not None}
    for defect, values in report.metrics_by_defect.items():
        metrics |= _by_level(values, f"/{metric_label(defect)}")
    if report.confusion is not None:
        metrics |= {f"image_{name}": float(count) for name, count in report.confusion.model_dump().items()}
    for name, (low, high) in report.intervals.items():
        metrics |= {f"image_{name}_low": low, f"image_{name}_high": high}
    if report.config.sweep is not None:
        metrics |= _of_search(report.config.sweep.status)
    return metrics | {f"seconds_{stage}": value for stage, value in report.seconds.items()}


def _of_search(status: SweepStatus) -> dict[str, float]:
    """Counters of a search and the best values that it found: sweep_complete, sweep_best_image_AUROC."""
    counted = ("asked", "complete", "pruned", "infeasible", "failed", "gpu_hours")
    found = {f"sweep_{name}": float(getattr(status, name)) for name in counted}
    best = status.best[0].objectives if status.best else {}
    return found | {f"sweep_best_{metric.replace('.', '_')}": value for metric, value in best.items()}


def _by_level(values: MetricValues, suffix: str = "") -> dict[str, float]:
    levels = {
        "image": values.image,
        "pixel": values.pixel,
        "synthetic": values.synthetic or {},
        "performance": values.performance,
    }
    return {f"{level}_{name}{suffix}": value for level, found in levels.items() for name, value in found.items()}


def _model(folder: Path) -> ModelManifest | None:
    file = folder / MODEL_MANIFEST
    return ModelManifest.model_validate_json(file.read_bytes()) if file.exists() else None


def _artifacts(
    folder: Path, model: ModelManifest | None, complete: bool, leave_out: Collection[str]
) -> Iterator[tuple[str, Path]]:
    model_files = model.files | {MODEL_MANIFEST} if model else frozenset()
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        is_wanted = complete or inside.as_posix() == REPORT
        if is_wanted and file.is_file() and not file.name.startswith(".") and inside.as_posix() not in leave_out:
            target = MODEL_FOLDER if inside.as_posix() in model_files else inside.parent.as_posix()
            yield ("" if target == "." else target), file


def _dataset(report: RunReport) -> TrackedDataset | None:
    if report.dataset_fingerprint is None or report.summary.images is None:
        return None
    images = report.config.spec.images
    kind, uri = _place(images.source)
    return TrackedDataset(
        name=images.category or uri,
        digest=report.dataset_fingerprint,
        kind=kind,
        uri=uri,
        images=report.summary.images.model_dump(exclude={"anomalous"}, exclude_none=True),
        context="training" if isinstance(report.config.spec, ExperimentSpec) else "inference",
    )


def _place(source: DataSource) -> tuple[str, str]:
    """Kind and URI of the location of the images."""
    place = source.place
    if isinstance(place, S3Location):
        return "s3", place.uri
    if isinstance(place, PersistentVolumeClaimLocation):
        return "persistentVolumeClaim", f"pvc://{place.claim_name}/{place.path or ''}"
    return "builtin", place.name
