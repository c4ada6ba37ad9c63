"""The gallery of the report: pictures of the few images that people should look at first."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_runner.data.images import UnreadableImageError
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.reporting.visualize import PredictionRenderer
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.parallel import ordered_map

_MISTAKES = 18
_OTHERS = 8
MapsByKey = Callable[[Sequence[Sample]], Mapping[str, NDArray[np.float32]]]
"""Computes the maps (H, W) of samples, by the samples' keys."""
_WIDE, _NARROW = 720, 240
"""Largest width of a picture in pixels, with and without a heat map."""
_TALLEST = 1080
"""Largest height of a picture in pixels; JPEG could not hold more than 65,535."""


@dataclass(frozen=True)
class GalleryItem:
    """One image of the gallery: its path and label, its raw score and decision, and its picture as a data URI."""

    path: str
    label: str
    score: float
    anomalous: bool
    picture: str


def select_images(predictions: Predictions, evaluated: EvaluationResult) -> list[int]:
    """Indices of the images to show.

    These are the worst mistakes; without mistakes, the labelled images nearest to the threshold; without labels, the
    most anomalous images.
    """
    if evaluated.mistakes:
        places = {sample.key: index for index, sample in enumerate(predictions.samples)}
        return [places[mistake.path] for mistake in evaluated.mistakes[:_MISTAKES]]
    labelled = np.flatnonzero([sample.defect is not None for sample in predictions.samples])
    if len(labelled):
        distance = np.abs(predictions.scores[labelled].astype(np.float64) - evaluated.image_threshold)
        return [int(index) for index in labelled[np.argsort(distance, kind="stable")[:_OTHERS]]]
    return [int(index) for index in np.argsort(-predictions.scores, kind="stable")[:_OTHERS]]


def make_gallery(renderer: PredictionRenderer, compute_maps: MapsByKey) -> tuple[GalleryItem, ...]:
    """Render the gallery in parallel; leaves out files that have disappeared since they were scored.

    Args:
        renderer: for the predictions of the run.
        compute_maps: computes the maps of the chosen samples, if the run has kept none.
    """
    chosen = select_images(renderer.predictions, renderer.evaluated)
    if renderer.predictions.maps is None and renderer.predictions.pixel_range is not None:
        maps = compute_maps([renderer.predictions.samples[index] for index in chosen])
        keys = {index: renderer.predictions.samples[index].key for index in chosen}
        renderer = replace(renderer, extra_maps={index: maps[key] for index, key in keys.items() if key in maps})
    found = ordered_map(lambda index: _gallery_item(renderer, index), chosen, cpu_limit())
    return tuple(item for item in found if item is not None)


def _gallery_item(renderer: PredictionRenderer, index: int) -> GalleryItem | None:
    try:
        picture = _picture(renderer, index)
    except UnreadableImageError:
        return None
    predictions, anomalous = renderer.predictions, bool(renderer.evaluated.anomalous[index])
    sample = predictions.samples[index]
    return GalleryItem(sample.key, sample.label, float(predictions.scores[index]), anomalous, picture)


def _picture(renderer: PredictionRenderer, index: int) -> str:
    if renderer.predictions.pixel_range is None:
        return _data_uri(renderer.image(index), _NARROW)
    return _data_uri(renderer.render(index).sheet, _WIDE)


def _data_uri(image: Image.Image, width: int) -> str:
    scale = min(1.0, width / image.width, _TALLEST / image.height)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
