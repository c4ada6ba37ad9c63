"""Convert results of a run to MLflow's entities. Imported late by the tracker, because it imports mlflow."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from mlflow.utils.time import get_current_time_millis

from anomaly_runner.tracking.mlflow_names import MAX_DATASET_NAME_CHARACTERS, short_value
from anomaly_runner.tracking.tracker import TrackedDataset

_DIGEST_CHARACTERS = 32
"""Length to which a digest is cut for MLflow; the profile holds the whole digest."""


def metrics(points: Iterable[tuple[str, int, float]]) -> list[Metric]:
    """Convert (name, step, value) to MLflow's metrics, with the current time."""
    now = get_current_time_millis()
    return [Metric(name, value, now, step) for name, step, value in points]


def final_points(values: Mapping[str, float]) -> list[tuple[str, int, float]]:
    """Convert final values to (name, step, value) with step 0, because they belong to no step of the training."""
    return [(name, 0, value) for name, value in values.items()]


def dataset_input(data: TrackedDataset) -> DatasetInput:
    """The images of a run as its dataset; the profile holds their numbers and the whole digest."""
    profile: dict[str, Any] = {"images": dict(data.images), "sha256": data.digest}
    source = json.dumps({"uri": data.uri})
    name = short_value(data.name, MAX_DATASET_NAME_CHARACTERS)
    entity = Dataset(name, data.digest[:_DIGEST_CHARACTERS], data.kind, source, profile=json.dumps(profile))
    return DatasetInput(entity, [InputTag("mlflow.data.context", data.context)])
