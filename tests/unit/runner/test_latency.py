"""Times of models, by a clock that only the model moves, and once by a real one."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat

import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_runner.data.batches import Batch
from anomaly_runner.scoring.latency import time_predictor
from anomaly_runner.scoring.predict import ScoredBatch

IMAGES = np.arange(5, dtype=np.float32).repeat(3 * 4 * 4).reshape(5, 3, 4, 4)


class Model:
    """Takes a given time for each single image, and one for each image in a batch."""

    fallback = None

    def __init__(
        self, single: Iterable[float], in_batch: float, size: int = 4, parallel: int = 1, provider: str = "cpu"
    ) -> None:
        self.now = 0.0
        self.provider = provider
        self.preferred_batch_size, self.parallel = size, parallel
        self._single, self._in_batch = iter(single), in_batch
        self.seen: list[float] = []
        self.batches: list[tuple[int, ...]] = []

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        assert images.shape == (1, 3, 4, 4)
        self.seen.append(float(images[0, 0, 0, 0]))
        self.now += next(self._single)
        return np.zeros(1, np.float32), None

    def score(self, batches: Iterable[Batch]) -> Iterator[ScoredBatch]:
        for batch in batches:
            self.now += self._in_batch * len(batch.images)
            self.batches.append(tuple(int(image[0, 0, 0]) for image in batch.images))
            yield ScoredBatch(batch, np.zeros(len(batch.images), np.float32), None)

    def clock(self) -> float:
        return self.now


def milliseconds(model: Model) -> Sequence[float]:
    return [round(float(value), 6) for value in time_predictor(model, IMAGES, model.clock).latencies]


def test_the_first_images_are_not_timed() -> None:
    assert set(milliseconds(Model(chain((0.09, 0.05, 0.05), repeat(0.001)), 0.001))) == {1.0}


def test_a_slow_first_image_ends_the_warming_up() -> None:
    assert set(milliseconds(Model(chain((9.0,), repeat(0.25)), 0.25))) == {250.0}


def test_a_hundred_images_at_most() -> None:
    assert milliseconds(Model(repeat(0.001), 0.001)) == [1.0] * 100


def test_no_more_images_than_there_is_time_for() -> None:
    # A sixteenth of a second adds up without rounding: after 12 images 0.75 of the 0.7 seconds are gone.
    assert milliseconds(Model(repeat(1 / 16), 1 / 16)) == [62.5] * 12


def test_three_images_of_a_model_that_is_too_slow() -> None:
    assert milliseconds(Model(chain((2.0,), (3.0, 1.0, 2.0)), 2.0)) == [3000.0, 1000.0, 2000.0]


def test_images_take_turns() -> None:
    model = Model(repeat(0.001), 0.001)
    time_predictor(model, IMAGES, model.clock)
    assert model.seen[:3] == [0, 1, 2]
    assert model.seen[3:10] == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize(
    ("in_batch", "expected"),
    [
        pytest.param(1 / 64, 64.0, id="64 images a second"),
        pytest.param(1 / 4, 4.0, id="slower than the time for it"),
    ],
)
def test_images_per_second_are_those_of_batches(in_batch: float, expected: float) -> None:
    model = Model(repeat(0.01), in_batch)
    found = time_predictor(model, IMAGES, model.clock)
    assert found.images_per_second == expected
    assert (found.batch_size, found.parallel) == (4, 1)


@pytest.mark.parametrize(
    ("seconds", "provider", "size"),
    [
        pytest.param(1 / 64, "cpu", 32, id="half a second"),
        pytest.param(1 / 8, "cpu", 8, id="four seconds: as many images as one second takes"),
        pytest.param(3.0, "cpu", 1, id="one image takes longer"),
        pytest.param(3.0, "torch cuda", 32, id="a GPU needs them all"),
    ],
)
def test_batches_of_a_slow_model_are_small(seconds: float, provider: str, size: int) -> None:
    model = Model(repeat(seconds), seconds, size=32, parallel=2, provider=provider)
    found = time_predictor(model, IMAGES, model.clock)
    assert {len(batch) for batch in model.batches} == {size}
    assert (found.batch_size, found.images_per_second) == (size, 1 / seconds)


def test_small_sets_fill_large_batches() -> None:
    model = Model(repeat(0.001), 0.001, size=7)
    time_predictor(model, IMAGES, model.clock)
    assert set(model.batches) == {(0, 1, 2, 3, 4, 0, 1)}


@pytest.mark.parametrize(
    ("seconds", "provider", "batches"),
    [
        pytest.param(0.04, "cpu", 3 + 4, id="a fast model: three to warm up, then 0.5 s"),
        pytest.param(0.5, "cpu", 3, id="a slow model: one for each CPU"),
        pytest.param(0.5, "torch cuda", 3 + 3, id="a GPU is always warmed up"),
    ],
)
def test_warming_up_with_batches(seconds: float, provider: str, batches: int) -> None:
    model = Model(repeat(seconds), seconds, parallel=3, provider=provider)
    time_predictor(model, IMAGES, model.clock)
    assert len(model.batches) == batches


class Sleeper(Model):
    """Sleeps for 20 ms an image; a sleep is never shorter than asked for (PEP 475)."""

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        time.sleep(0.02)
        return np.zeros(1, np.float32), None

    def score(self, batches: Iterable[Batch]) -> Iterator[ScoredBatch]:
        for batch in batches:
            time.sleep(0.02 * len(batch.images))
            yield ScoredBatch(batch, np.zeros(len(batch.images), np.float32), None)


def test_a_real_clock() -> None:
    found = time_predictor(Sleeper((), 0), IMAGES)
    assert found.latencies.min() >= 20
    assert found.images_per_second <= 50
