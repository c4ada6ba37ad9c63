"""Parts whose way on a GPU differs from that on CPUs: PatchCore's coreset, and batches that overlap."""

import numpy as np
import pytest
import torch

from anomaly_api.parameters import PadimParameters
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.models.coreset import k_center_greedy
from anomaly_runner.models.memory_models import build_memory_model
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.scoring.torch_predictor import TorchPredictor

SIZE = (64, 64)
POINTS, PICKED, NUMBERS = 20_000, 500, 64
"""So few that no two candidates are as near to each other as float32 rounds."""
BATCHES, IMAGES = 12, 5


def picked(points: torch.Tensor, threads: TorchThreads) -> list[int]:
    torch.manual_seed(2)  # the first point is drawn
    indices: list[int] = k_center_greedy(points, PICKED, lambda _: None, threads).tolist()
    return indices


def test_the_coreset_is_that_of_the_cpu(device: torch.device) -> None:
    points = torch.randn(POINTS, NUMBERS, generator=torch.Generator().manual_seed(1))
    threads = TorchThreads(device)
    found = picked(points.to(device), threads)
    assert found == picked(points, threads)
    assert len(set(found)) == PICKED


@pytest.mark.also_on_cpu
def test_batches_that_overlap_give_the_scores_of_each_alone_in_order(device: torch.device) -> None:
    threads = TorchThreads(device)
    torch.manual_seed(3)
    parameters = PadimParameters(backbone="resnet18", layers=("layer1",), n_features=8, pre_trained=False)
    model = build_memory_model(parameters, SIZE, threads, None).to(device).eval()
    model.learn([torch.randn(8, 3, *SIZE)], threads)
    random = np.random.default_rng(4)
    batches = [batch(number, random.normal(size=(count, 3, *SIZE))) for number, count in enumerate(counts())]
    found = list(TorchPredictor(model, threads, IMAGES).score(batches))
    assert [scored.batch.samples for scored in found] == [one.samples for one in batches]
    for scored in found:
        with torch.inference_mode():
            scores, maps = model(torch.from_numpy(scored.batch.images).to(device))
        assert scored.maps is not None
        assert np.array_equal(scored.scores, scores.cpu().numpy())
        assert np.array_equal(scored.maps, maps[:, 0].cpu().numpy())


def counts() -> list[int]:
    """Images in each batch: the last has fewer."""
    return [IMAGES] * (BATCHES - 1) + [2]


def batch(number: int, pixels: np.ndarray) -> Batch:
    samples = tuple(Sample(f"good/{number}-{index}.png", "good") for index in range(len(pixels)))
    return Batch(samples, pixels.astype(np.float32))
