"""The few pictures of the report: the worst mistakes or, where nothing is labelled, the most anomalous images."""

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from anomaly_runner.batches import InputForm, read_file
from anomaly_runner.evaluate import Evaluated
from anomaly_runner.images import UnreadableImageError, to_rgb8
from anomaly_runner.machine import cpu_limit
from anomaly_runner.parallel import ordered_map
from anomaly_runner.predict import Predictions
from anomaly_runner.storage import Pull
from anomaly_runner.visualize import draw_picture

_MISTAKES = 18
_UNLABELLED = 12
_WIDE, _NARROW = 720, 240
"""Pixels across, with and without a heat map."""


@dataclass(frozen=True)
class Shown:
    """A picture of one image: its path and label, its score as shown, and a data URI."""

    path: str
    label: str
    score: float
    anomalous: bool
    picture: str


def pick(predictions: Predictions, evaluated: Evaluated) -> list[int]:
    """Which images are shown, worst first."""
    if any(sample.defect is not None for sample in predictions.samples):
        places = {sample.key: index for index, sample in enumerate(predictions.samples)}
        return [places[mistake.path] for mistake in evaluated.mistakes[:_MISTAKES]]
    return np.argsort(-predictions.scores, kind="stable")[:_UNLABELLED].tolist()  # type: ignore[no-any-return]


def gallery(
    predictions: Predictions, evaluated: Evaluated, pull: Pull, form: InputForm, max_pixels: int
) -> list[Shown]:
    """The pictures, drawn in parallel; a file that has gone since it was scored is left out."""

    def show(index: int) -> Shown | None:
        sample = predictions.samples[index]
        try:
            image = to_rgb8(form.decode(read_file(pull, sample.key), max_pixels))
        except UnreadableImageError:
            return None
        drawn = draw_picture(predictions, evaluated, index, image) if predictions.maps is not None else image
        picture = _data_uri(drawn, _NARROW if drawn is image else _WIDE)
        return Shown(sample.key, sample.label, float(evaluated.shown[index]), bool(evaluated.anomalous[index]), picture)

    found = ordered_map(show, pick(predictions, evaluated), cpu_limit())
    return [shown for shown in found if shown is not None]


def _data_uri(image: Image.Image, width: int) -> str:
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
