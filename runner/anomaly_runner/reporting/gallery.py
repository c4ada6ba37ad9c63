"""The few pictures of the report: what a person would want to look at first."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_runner.data.images import UnreadableImageError
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.evaluate import Evaluated
from anomaly_runner.reporting.visualize import Artist
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.parallel import ordered_map

_MISTAKES = 18
_OTHERS = 8
MapsByKey = Callable[[Sequence[Sample]], Mapping[str, NDArray[np.float32]]]
"""Samples to maps (H, W) by key."""
_WIDE, _NARROW = 720, 240
"""Pixels across, with and without a heat map."""


@dataclass(frozen=True)
class Shown:
    """A picture of one image: its path and label, its raw score, and a data URI."""

    path: str
    label: str
    score: float
    anomalous: bool
    picture: str


def pick(predictions: Predictions, evaluated: Evaluated) -> list[int]:
    """Which images are shown: the worst mistakes or, without any, the labelled ones that are nearest to the threshold;
    where nothing is labelled, the most anomalous.
    """
    if evaluated.mistakes:
        places = {sample.key: index for index, sample in enumerate(predictions.samples)}
        return [places[mistake.path] for mistake in evaluated.mistakes[:_MISTAKES]]
    labelled = np.flatnonzero([sample.defect is not None for sample in predictions.samples])
    if len(labelled):
        assert evaluated.thresholds.image is not None
        distance = np.abs(predictions.scores[labelled].astype(np.float64) - evaluated.thresholds.image)
        return [int(index) for index in labelled[np.argsort(distance, kind="stable")[:_OTHERS]]]
    return [int(index) for index in np.argsort(-predictions.scores, kind="stable")[:_OTHERS]]


def gallery(artist: Artist, score_again: MapsByKey) -> tuple[Shown, ...]:
    """The pictures, drawn in parallel; a file that has gone since it was scored is left out.

    Args:
        artist: for the predictions of the run.
        score_again: answers maps of samples. Most runs do not keep maps, and these few are made in no time.
    """
    chosen = pick(artist.predictions, artist.evaluated)
    if artist.predictions.maps is None and artist.predictions.pixel_range is not None:
        maps = score_again([artist.predictions.samples[index] for index in chosen])
        keys = {index: artist.predictions.samples[index].key for index in chosen}
        artist = replace(artist, maps={index: maps[key] for index, key in keys.items() if key in maps})
    found = ordered_map(lambda index: _show(artist, index), chosen, cpu_limit())
    return tuple(shown for shown in found if shown is not None)


def _show(artist: Artist, index: int) -> Shown | None:
    try:
        picture = _picture(artist, index)
    except UnreadableImageError:
        return None
    predictions, anomalous = artist.predictions, bool(artist.evaluated.anomalous[index])
    sample = predictions.samples[index]
    return Shown(sample.key, sample.label, float(predictions.scores[index]), anomalous, picture)


def _picture(artist: Artist, index: int) -> str:
    if artist.predictions.pixel_range is None:
        return _data_uri(artist.image(index), _NARROW)
    return _data_uri(artist.draw(index).sheet, _WIDE)


def _data_uri(image: Image.Image, width: int) -> str:
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
