"""How many images onnxruntime gets at once, and how many batches at the same time, with a played session."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.scoring.onnx_predictor import OnnxPredictor
from anomaly_runner.system.machine import cpu_limit
from support.optional import not_none

CPU, GPU = "CPUExecutionProvider", "CUDAExecutionProvider"


class Session:
    """Scores an image by its first number; its outputs have an axis more than they need."""

    def __init__(self, provider: str, *outputs: str) -> None:
        self._provider, self._outputs = provider, outputs

    def get_providers(self) -> list[str]:
        return [self._provider, CPU]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self._outputs]

    def run(self, names: list[str], given: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        images = given["input"]
        found = {"pred_score": images[:, :1, 0, 0], "anomaly_map": images[:, :1]}
        return [found[name] for name in names]


@pytest.mark.parametrize(
    ("provider", "asked", "together", "parallel"),
    [(CPU, 32, 2, cpu_limit()), (CPU, 1, 1, cpu_limit()), (GPU, 32, 32, 1), (GPU, 1, 1, 1)],
)
def test_a_batch_has_no_more_images_than_asked_for(provider: str, asked: int, together: int, parallel: int) -> None:
    found = OnnxPredictor(Session(provider), asked, None)
    assert (found.preferred_batch_size, found.parallel, found.provider) == (together, parallel, provider)


@pytest.mark.parametrize("provider", [CPU, GPU])
def test_scores_and_maps_have_one_axis_for_the_images(provider: str) -> None:
    images = np.arange(3 * 3 * 2 * 2, dtype=np.float32).reshape(3, 3, 2, 2)
    samples = tuple(Sample(f"{index}.png", "good") for index in range(3))
    batches = [Batch(samples[:2], images[:2]), Batch(samples[2:], images[2:])]
    predictor = OnnxPredictor(Session(provider, "pred_score", "anomaly_map", "other"), 2, None)
    first, second = predictor.score(iter(batches))
    assert np.concatenate([first.scores, second.scores]).tolist() == [0, 12, 24]
    maps = np.concatenate([not_none(first.maps), not_none(second.maps)])
    assert np.array_equal(maps, images[:, 0])
    assert (first.batch, second.batch) == (batches[0], batches[1])


def test_a_model_that_does_not_localise_has_no_maps() -> None:
    scores, maps = OnnxPredictor(Session(CPU, "pred_score"), 2, None).run(np.ones((1, 3, 2, 2), np.float32))
    assert scores.tolist() == [1]
    assert maps is None
