"""The gallery of the report: pictures of the few images that people should look at first."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_runner.data.images import UnreadableImageError
from anomaly_runner.data.samples import Sample, is_defect
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.reporting.visualize import PredictionRenderer
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.parallel import ordered_map

_MISTAKES = 18
_OTHERS = 8
_CLOSE = 8
"""Pictures of the highest-scoring good images, and of the lowest-scoring defects: mistakes at another threshold."""
MapsByKey = Callable[[Sequence[Sample]], Mapping[str, NDArray[np.float32]]]
"""Computes the maps (H, W) of samples, by the samples' keys."""
_WIDE, _NARROW = 720, 240
"""Largest width of a picture in pixels, with and without a heat map."""
_TALLEST = 1080
"""Largest height of a picture in pixels; JPEG could not hold more than 65,535."""


@dataclass(frozen=True)
class GalleryItem:
    """One image of the gallery: its path and label, its raw score and decision, and its picture as a data URI.

    ``good_below``: share of the good images held out in training that score lower; None if it is not known.
    """

    path: str
    label: str
    score: float
    anomalous: bool
    picture: str
    good_below: float | None = None

    @property
    def defect(self) -> bool | None:
        """Whether the image is known to be defective; None when its label is unknown."""
        return is_defect(self.label)

    @property
    def mistake(self) -> bool:
        """Whether the decision contradicts the label."""
        return self.defect is not None and self.defect != self.anomalous


def select_images(predictions: Predictions, evaluated: EvaluationResult) -> list[int]:
    """Indices of the images to show.

    These are the worst mistakes, then those decided rightly that are mistakes first when the threshold moves, closest
    first; without labels, the most anomalous images.
    """
    places = {sample.key: index for index, sample in enumerate(predictions.samples)}
    mistakes = [places[mistake.path] for mistake in evaluated.mistakes]
    close = [index for index in _hardest(predictions) if index not in mistakes]
    close.sort(key=lambda index: abs(float(predictions.scores[index]) - evaluated.image_threshold))
    if chosen := mistakes[:_MISTAKES] + close:
        return chosen
    return [int(index) for index in np.argsort(-predictions.scores, kind="stable")[:_OTHERS]]


def _hardest(predictions: Predictions) -> list[int]:
    """Return the indices of the good images with the highest scores, and of the defects with the lowest."""
    defects = [sample.defect for sample in predictions.samples]
    ascending = np.argsort(predictions.scores, kind="stable").tolist()
    good, defective = ([index for index in ascending if defects[index] is kind] for kind in (False, True))
    return good[-_CLOSE:] + defective[:_CLOSE]


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
    predictions, evaluated = renderer.predictions, renderer.evaluated
    sample, anomalous = predictions.samples[index], bool(evaluated.anomalous[index])
    below = None if evaluated.good_below is None else float(evaluated.good_below[index])
    return GalleryItem(sample.key, sample.label, float(predictions.scores[index]), anomalous, picture, below)


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
