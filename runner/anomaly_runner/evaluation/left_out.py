"""What cannot be measured without defects, in words."""

from anomaly_api.evaluation import Metrics


def without_defects(metrics: Metrics, *, localises: bool) -> str:
    """Name the metrics that need a defective image.

    Args:
        metrics: those that were asked for.
        localises: whether the model has pixel scores.
    """
    levels = {"image": metrics.image, "pixel": metrics.pixel if localises else ()}
    named = " and ".join(f"{level} {', '.join(names)}" for level, names in levels.items() if names)
    return f"no labelled image is defective: {named or 'no metrics'} are left out"
