"""Stage predict: score every image once and keep raw scores and maps.

A predictor is anything that turns a batch into scores and maps. This module imports no torch and applies no threshold.
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
    """A batch with its raw scores (B,) and raw maps (B, H, W), float32; no maps where the model does not localise."""

    batch: Batch
    scores: NDArray[np.float32]
    maps: NDArray[np.float32] | None


class Predictor(Protocol):
    """A model that is ready to score images, in any runtime."""

    @property
    def provider(self) -> str:
        """What executes the model: the runtime's provider or device."""

    @property
    def fallback(self) -> str | None:
        """Why the model is not executed on a GPU; None if it is."""

    @property
    def preferred_batch_size(self) -> int:
        """Number of images in a batch that is scored fastest; at most the configured batch size."""

    def score(self, batches: Iterable[Batch]) -> Iterator[ScoredBatch]:
        """Score batches, in order."""


@dataclass(frozen=True)
class Predictions:
    """Raw outputs for the N readable images.

    Attributes:
        samples: the images.
        scores: (N,) float32.
        maps: (N, H, W) float32, memory-mapped; None if they were not kept or the model does not localise.
        pixel_range: smallest and largest pixel score; None if the model does not localise.
        reference: the first batches with their input and scores, to compare exports with.
        max_pixel_scores: (N,) float32, the largest pixel score of each image; None if the model does not localise.
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
        batches: readable images, in order.
        expected: largest number of images: some may turn out to be unreadable.
        size: rows and columns of the maps.
        keep_maps: whether to keep the maps, for pixel metrics or pictures.
        context: for progress and stopping.
        reference: number of images whose input is kept, rounded up to whole batches.
        valid: mask (H, W) of the pixels that count for ``pixel_range`` and ``max_pixel_scores``; None for all pixels.

    Raises:
        Diverged: a score is not finite.
        DataInvalid: no image was readable.
        StorageUnavailable: the disk has no room for the maps.
        Stopped: the run was asked to stop.
    """
    maps = _map_file(context.work, (expected, *size)) if keep_maps else None
    collector = _PredictionCollector(expected, maps, valid, reference)
    for scored in predictor.score(batches):
        # Checked batch by batch, so that a model that has diverged fails early.
        _check_finite(scored)
        collector.update(scored)
        context.advance(len(scored.scores))
    return collector.compute()


class _PredictionCollector:
    """Collects scored batches in arrays. The arguments are those of ``predict``; ``maps`` is the array to fill."""

    def __init__(
        self, expected: int, maps: NDArray[np.float32] | None, valid: NDArray[np.bool_] | None, reference: int
    ) -> None:
        self._samples: list[Sample] = []
        self._scores = np.empty(expected, np.float32)
        self._max_pixel_scores = np.empty(expected, np.float32)
        self._lowest_pixel_score: float | None = None
        self._maps = maps
        self._valid = valid
        self._reference: list[ScoredBatch] = []
        self._reference_images = reference

    def update(self, scored: ScoredBatch) -> None:
        """Add the next batch."""
        if len(self._samples) < self._reference_images:
            self._reference.append(scored)
        rows = slice(len(self._samples), len(self._samples) + len(scored.scores))
        self._scores[rows] = scored.scores
        if scored.maps is not None:
            self._update_maps(rows, scored.maps)
        self._samples.extend(scored.batch.samples)

    def _update_maps(self, rows: slice, maps: NDArray[np.float32]) -> None:
        counted = maps.reshape(len(maps), -1) if self._valid is None else maps[:, self._valid]
        self._max_pixel_scores[rows] = counted.max(1)
        lowest = float(counted.min())
        self._lowest_pixel_score = lowest if self._lowest_pixel_score is None else min(lowest, self._lowest_pixel_score)
        if self._maps is not None:
            self._maps[rows] = maps

    def compute(self) -> Predictions:
        """The predictions of all batches, without the unused rows that were allocated for unreadable images.

        Raises:
            DataInvalid: no image was readable.
        """
        if not self._samples:
            raise DataInvalid("none of the images to score can be read")
        count = len(self._samples)
        samples, scores = tuple(self._samples), self._scores[:count].copy()
        if self._lowest_pixel_score is None:  # the model does not localise
            return Predictions(samples, scores, None, None, tuple(self._reference))
        max_pixel_scores = self._max_pixel_scores[:count].copy()
        return Predictions(
            samples=samples,
            scores=scores,
            maps=None if self._maps is None else self._maps[:count],
            pixel_range=(self._lowest_pixel_score, float(max_pixel_scores.max())),
            reference=tuple(self._reference),
            max_pixel_scores=max_pixel_scores,
        )


def maps_by_key(predictor: Predictor, batches: Iterable[Batch]) -> dict[str, NDArray[np.float32]]:
    """Score a few images and return their maps (H, W) by key; empty where the model does not localise."""
    found: dict[str, NDArray[np.float32]] = {}
    for scored in predictor.score(batches):
        if scored.maps is not None:
            found |= {sample.key: scores for sample, scores in zip(scored.batch.samples, scored.maps, strict=True)}
    return found


def _map_file(work: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Allocate an array in an unnamed file: the kernel can evict its pages, and deletes it when the process ends."""
    with tempfile.TemporaryFile(dir=work) as file:
        return allocate_array(file, shape)


def _check_finite(scored: ScoredBatch) -> None:
    """Raise Diverged if a score or a map holds NaN or infinity."""
    finite = np.isfinite(scored.scores)
    if scored.maps is not None:
        finite &= np.isfinite(scored.maps).all((1, 2))
    if finite.all():
        return
    bad = [sample.key for sample, good in zip(scored.batch.samples, finite, strict=True) if not good]
    raise Diverged(
        f"scores are not numbers, first for {bad[0]}: the features overflow or the training images are all alike"
    )
