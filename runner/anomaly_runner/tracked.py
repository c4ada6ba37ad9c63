"""What a run tells an experiment tracker, as flat names and values."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anomaly_api.base import Contract
from anomaly_api.run import RunReport
from anomaly_runner.tracking import TrackedResult


def flat_parameters(spec: Contract) -> dict[str, str]:
    """Every field that is set, by its path: ``model.padim.backbone``. Secrets are names in the spec, never values."""
    return dict(_leaves(spec.to_json_object(), ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        yield path, ", ".join(str(item) for item in value)
    else:
        yield path, str(value)


def tracked_result(report: RunReport, folder: Path, complete: bool) -> TrackedResult:
    """Metrics by name (image_AUROC), thresholds, seconds a stage, and the files made.

    Unless ``complete``, report.json is the only file.
    """
    summary = report.summary
    assert summary.metrics
    assert summary.thresholds
    metrics = {f"image_{name}": value for name, value in summary.metrics.image.items()}
    metrics |= {f"pixel_{name}": value for name, value in summary.metrics.pixel.items()}
    thresholds = {"image_threshold": summary.thresholds.image, "pixel_threshold": summary.thresholds.pixel}
    metrics |= {name: value for name, value in thresholds.items() if value is not None}
    metrics |= {f"seconds_{stage}": value for stage, value in report.seconds.items()}
    return TrackedResult(metrics, tuple(_files(folder, complete)))


def _files(folder: Path, complete: bool) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and (complete or (file.parent == folder and file.name == "report.json")):
            inside = file.parent.relative_to(folder).as_posix()
            yield ("" if inside == "." else inside), file
