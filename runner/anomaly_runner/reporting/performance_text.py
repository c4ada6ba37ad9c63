"""What a run costs, for people: metrics with their units, and what they were measured with."""

from collections.abc import Mapping

from anomaly_api.run import PerformanceReport, RunReport


def performance_rows(metrics: Mapping[str, float]) -> dict[str, str]:
    """Values with their units, by the name of the metric."""
    return {name: _with_unit(name, value) for name, value in metrics.items()}


def _with_unit(name: str, value: float) -> str:
    """A value in the unit that is in its name; sizes in powers of 1000."""
    if "Milliseconds" in name:
        return f"{value:.4g} ms"
    if name.endswith("Bytes"):
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.2f} MB"
    return f"{value:.4g} s" if name.endswith("Seconds") else f"{value:.4g}"


def measured_with(report: RunReport) -> str:
    """One or two sentences on what the performance was measured with; empty where nothing was."""
    if report.performance is not None:
        return _timing(report.performance)
    is_measured = report.summary.metrics and "imagesPerSecond" in report.summary.metrics.performance
    return "Images a second of the whole stage predict: read, decoded, resized and scored." if is_measured else ""


def _timing(found: PerformanceReport) -> str:
    model = "The torch model" if found.model == "torch" else f"The {found.model} model ({found.precision})"
    shortest, longest = found.latency_range
    together = "one after the other" if found.parallel_batches == 1 else f"{found.parallel_batches} at the same time"
    return (
        f"{model} on {found.device} ({found.provider}), {found.threads} thread an image or batch, without reading and "
        f"decoding files. Latency: median of {found.images_timed} single images, {shortest:.4g} to {longest:.4g} ms. "
        f"Images a second: in batches of {found.batch_size}, {together}."
    )
