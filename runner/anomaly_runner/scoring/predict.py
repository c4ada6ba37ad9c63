"""Stage predict: every test image goes through the model once; raw scores and maps are kept.

No torch here: a predictor is anything that maps a batch to scores and maps.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from anomaly_runner.context import Context
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import DataInvalid, Diverged
from anomaly_runner.system.scratch import allocate_array


@dataclass(frozen=True)
class ScoredBatch:
    """A batch's raw scores (B,) and raw maps (B, H, W), float32; no maps where the model does not localise."""

    batch: Batch
    scores: NDArray[np.float32]
    maps: NDArray[np.float32] | None


class Predictor(Protocol):
    """A model ready to score images, in whichever runtime."""

    @property
    def provider(self) -> str:
        """What executes the model: the runtime's provider or device."""

    @property
    def preferred_batch_size(self) -> int:
        """Images in the batches that it scores fastest; no more than were asked for."""

    def score(self, batches: Iterable[Batch]) -> Iterator[ScoredBatch]:
        """Raw scores and maps, in order."""


@dataclass(frozen=True)
class Predictions:
    """Raw outputs for the readable images.

    ``scores``: (N,) float32. ``maps``: (N, H, W) float32, memory-mapped; None where nobody needs them. ``pixel_range``:
    smallest and largest pixel score; ``max_pixel_scores``: (N,) float32, each image's largest; both are None where the
    model does not localise. ``reference``: the first batches with their input, to compare exports with.
    """

    samples: tuple[Sample, ...]
    scores: NDArray[np.float32]
    maps: NDArray[np.float32] | None
    pixel_range: tuple[float, float] | None
    reference: tuple[ScoredBatch, ...] = ()
    max_pixel_scores: NDArray[np.float32] | None = None


def predict(
    predictor: Predictor,
    batches: Iterable[Batch],
    *,
    expected: int,
    size: tuple[int, int],
    keep_maps: bool,
    context: Context,
    reference: int = 0,
    valid: NDArray[np.bool_] | None = None,
) -> Predictions:
    """Score every image once.

    Args:
        predictor: the model.
        batches: readable images in order.
        expected: images at most.
        size: rows and columns of the maps.
        keep_maps: whether pixel metrics or pictures need them.
        context: for progress and stopping.
        reference: images whose input is kept.
        valid: pixels of the maps (H, W) that ``pixel_range`` and ``max_pixel_scores`` are about; None where all are.

    Raises:
        Diverged: a score is not a number.
        DataInvalid: no image was readable.
        StorageUnavailable: the disk has no room for the maps.
    """
    maps = _map_file(context.work, (expected, *size)) if keep_maps else None
    samples: list[Sample] = []
    scores, max_pixel_scores = np.empty(expected, np.float32), np.empty(expected, np.float32)
    lowest: list[float] = []
    first: list[ScoredBatch] = []
    for scored in predictor.score(batches):
        _check_numbers(scored)
        if len(samples) < reference:
            first.append(scored)
        rows = slice(len(samples), len(samples) + len(scored.scores))
        scores[rows] = scored.scores
        if scored.maps is not None:
            counted = scored.maps.reshape(len(scored.maps), -1) if valid is None else scored.maps[:, valid]
            max_pixel_scores[rows] = counted.max(1)
            lowest.append(float(counted.min()))
            if maps is not None:
                maps[rows] = scored.maps
        samples.extend(scored.batch.samples)
        context.advance(len(scored.scores))
    if not samples:
        raise DataInvalid("none of the images to score can be read")
    count = len(samples)
    if not lowest:  # the model does not localise
        return Predictions(tuple(samples), scores[:count].copy(), None, None, tuple(first))
    return Predictions(
        samples=tuple(samples),
        scores=scores[:count].copy(),
        maps=None if maps is None else maps[:count],
        pixel_range=(min(lowest), float(max_pixel_scores[:count].max())),
        reference=tuple(first),
        max_pixel_scores=max_pixel_scores[:count].copy(),
    )


def maps_by_key(predictor: Predictor, batches: Iterable[Batch]) -> dict[str, NDArray[np.float32]]:
    """Maps (H, W) of a few images by key; empty where the model does not localise."""
    found: dict[str, NDArray[np.float32]] = {}
    for scored in predictor.score(batches):
        if scored.maps is not None:
            found |= {sample.key: scores for sample, scores in zip(scored.batch.samples, scored.maps, strict=True)}
    return found


def _map_file(work: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array in a nameless file, which goes with the process."""
    with tempfile.TemporaryFile(dir=work) as file:
        return allocate_array(file, shape)


def _check_numbers(scored: ScoredBatch) -> None:
    finite = np.isfinite(scored.scores)
    if finite.all() and (scored.maps is None or np.isfinite(scored.maps).all()):
        return
    bad = [sample.key for sample, good in zip(scored.batch.samples, finite, strict=True) if not good]
    raise Diverged(
        f"scores are not numbers, first for {(bad or [scored.batch.samples[0].key])[0]}: the features "
        "overflow or the training images are all alike"
    )
