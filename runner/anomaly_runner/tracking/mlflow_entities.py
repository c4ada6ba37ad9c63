"""Results of a run as MLflow's own entities. Imported, as mlflow itself, in the tracker's thread alone."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from mlflow.utils.time import get_current_time_millis

from anomaly_runner.tracking.tracker import TrackedDataset

_DIGEST_CHARACTERS = 32
"""Length of a digest that MLflow has room for; the profile holds all of it."""


def metrics(points: Iterable[tuple[str, int, float]]) -> list[Metric]:
    """Metrics of (name, step, value), with the present time."""
    now = get_current_time_millis()
    return [Metric(name, value, now, step) for name, step, value in points]


def final_points(values: Mapping[str, float]) -> list[tuple[str, int, float]]:
    """Final values as (name, step, value), at step 0: they belong to no step of the training."""
    return [(name, 0, value) for name, value in values.items()]


def dataset_input(data: TrackedDataset) -> DatasetInput:
    """The images of a run as its input; the profile says how many there are, and the whole digest."""
    profile: dict[str, Any] = {"images": dict(data.images), "sha256": data.digest}
    source = json.dumps({"uri": data.uri})
    entity = Dataset(data.name, data.digest[:_DIGEST_CHARACTERS], data.kind, source, profile=json.dumps(profile))
    return DatasetInput(entity, [InputTag("mlflow.data.context", data.context)])
