"""Time a model that is ready to score: image by image, and in batches as a run scores them. Imports no torch.

Both are timed from arrays to arrays in the host's memory: copies to and from a GPU count, reading and decoding files do
not. It takes about a second and a half; of a slow model, a few images are timed, alone and in smaller batches.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import UNKNOWN, Sample
from anomaly_runner.scoring.predict import Predictor

Clock = Callable[[], float]
"""Monotonic seconds."""

_WARM_UP, _WARM_UP_SECONDS = 3, 0.3
"""Images before the first that is timed, as long as there is time: runtimes choose algorithms and allocate memory for
the first ones, and most of it for the very first."""
_LEAST, _MOST = 3, 100
"""Smallest and largest number of images that are timed one by one."""
_LATENCY_SECONDS = 0.7
"""Time after which no further image is timed, if there are enough."""
_BATCHES_SECONDS = 0.5
"""Time after which no further batch is scored."""
_SLOW_BATCH_SECONDS = 0.2
"""Seconds of a batch on a CPU from which on none is scored before those that are timed: what the first one takes longer
is little beside it."""


_LONGEST_BATCH_SECONDS = 1.0
"""Seconds of a batch on a CPU beyond which one of fewer images is timed: what an image takes hardly depends on their
number there, and 64 images of a model that takes seconds for each would take minutes."""


class TimedPredictor(Predictor, Protocol):
    """A predictor that also scores arrays."""

    @property
    def parallel(self) -> int:
        """Number of batches that are scored at the same time."""

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Score model input (B, 3, H, W): raw scores (B,) and maps (B, H, W), or None."""


def on_gpu(predictor: Predictor) -> bool:
    """Whether a GPU executes the model."""
    return "cuda" in predictor.provider.lower()


@dataclass(frozen=True)
class Timing:
    """What was timed.

    Attributes:
        latencies: (N,) float64, milliseconds of each image that was scored alone.
        images_per_second: in batches, ``parallel`` of them at the same time.
        batch_size: images in a batch; of a model that is slow on a CPU, fewer than a run scores together.
        parallel: batches at the same time.
    """

    latencies: NDArray[np.float64]
    images_per_second: float
    batch_size: int
    parallel: int


def time_predictor(predictor: TimedPredictor, images: NDArray[np.float32], clock: Clock = time.perf_counter) -> Timing:
    """Time a model on images (N, 3, H, W), at least one, which are scored again and again."""
    size = predictor.preferred_batch_size
    seconds = np.array(list(_seconds_of_images(predictor, images, clock)))
    median = float(np.median(seconds))
    slow = not on_gpu(predictor) and size * median >= _SLOW_BATCH_SECONDS
    if slow:
        size = min(size, max(1, int(_LONGEST_BATCH_SECONDS / median)))
    return Timing(
        latencies=1000 * seconds,
        images_per_second=_images_per_second(predictor, _batch(images, size), clock, warm_up=not slow),
        batch_size=size,
        parallel=predictor.parallel,
    )


def _seconds_of_images(predictor: TimedPredictor, images: NDArray[np.float32], clock: Clock) -> Iterator[float]:
    one = [images[index : index + 1] for index in range(len(images))]
    for index in _until(clock, clock() + _WARM_UP_SECONDS, least=1, most=_WARM_UP):
        predictor.run(one[index % len(one)])
    for index in _until(clock, clock() + _LATENCY_SECONDS, least=_LEAST, most=_MOST):
        began = clock()
        predictor.run(one[index % len(one)])
        yield clock() - began


def _images_per_second(predictor: TimedPredictor, batch: Batch, clock: Clock, *, warm_up: bool) -> float:
    if warm_up:
        _score(predictor, iter([batch] * predictor.parallel))
    began = clock()
    times = _until(clock, began + _BATCHES_SECONDS, least=predictor.parallel)
    scored = _score(predictor, (batch for _ in times))
    return scored / (clock() - began)


def _score(predictor: TimedPredictor, batches: Iterator[Batch]) -> int:
    return sum(len(found.scores) for found in predictor.score(batches))


def _until(clock: Clock, end: float, *, least: int, most: int | None = None) -> Iterator[int]:
    """Count from 0 until it is time, at least ``least`` and at most ``most`` times."""
    for index in count():
        if index == most or (index >= least and clock() >= end):
            return
        yield index


def _batch(images: NDArray[np.float32], size: int) -> Batch:
    """A batch of some of the images, over and over if there are fewer than ``size``."""
    rows = np.arange(size) % len(images)
    return Batch(tuple(Sample("", UNKNOWN) for _ in rows), images[rows])
