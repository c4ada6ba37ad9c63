"""PatchCore's coreset is that of the plain algorithm, which looks at all points after each pick."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anomaly_runner.models import coreset
from anomaly_runner.models.coreset import Cover, PickingInBlock, compared_numbers, k_center_greedy, projected
from anomaly_runner.models.threads import TorchThreads

SEED = 5
THREADS = TorchThreads(torch.device("cpu"))


def one_by_one(points: Tensor, count: int) -> list[int]:
    """The plain algorithm, with the same first point."""
    torch.manual_seed(SEED)
    picked = [int(torch.randint(high=len(points), size=(1,)))]
    distance = torch.full((len(points),), torch.inf)
    while len(picked) < count:
        difference = points - points[picked[-1]]
        distance = torch.minimum(distance, torch.linalg.norm(difference, ord=2, dim=1))
        distance[picked[-1]] = 0
        picked.append(int(distance.argmax()))
    return picked


def in_blocks(points: Tensor, count: int, check: Callable[[int], None] = lambda _: None) -> list[int]:
    torch.manual_seed(SEED)
    indices: list[int] = k_center_greedy(points, count, check, THREADS).tolist()
    return indices


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def clustered() -> Tensor:
    return drawn(6000, 48) * 0.05 + drawn(60, 48).repeat(100, 1)


POINTS: dict[str, Callable[[], Tensor]] = {
    "scattered": lambda: drawn(6000, 48),
    "in clusters": clustered,
    "far from zero": lambda: drawn(6000, 48) + 1000,
    "a few far away": lambda: torch.cat([drawn(3000, 16), 30 + drawn(300, 16)]),
    "on a grid, so that many are equally far": lambda: drawn(6000, 5).round(),
    "each as far from each": lambda: torch.eye(1200),
    "fewer than a block": lambda: drawn(500, 48),
}


@pytest.mark.parametrize("kind", POINTS)
def test_the_points_are_those_picked_one_by_one(kind: str) -> None:
    points = POINTS[kind]()
    count = len(points) // 10
    assert in_blocks(points, count) == one_by_one(points, count)


@pytest.mark.parametrize("kind", ["scattered", "on a grid, so that many are equally far"])
def test_the_size_of_parts_does_not_change_the_points(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_BLOCK_ON_CPU": 40, "_ROWS_ON_CPU": 64, "_PRODUCTS_ON_CPU": 512, "_PAIRS_ON_CPU": 7}.items():
        monkeypatch.setattr(coreset, name, value)
    points = POINTS[kind]()[:2000]
    assert in_blocks(points, 200) == one_by_one(points, 200)


@pytest.mark.parametrize(("kinds", "count"), [(1, 40), (30, 60)])
def test_copies_are_picked_only_where_nothing_else_is_left(kinds: int, count: int) -> None:
    points = drawn(kinds, 4).repeat(3000, 1)
    found = in_blocks(points, count)
    assert found == one_by_one(points, count)
    assert len({tuple(point) for point in points[found].tolist()}) == kinds


def test_the_number_of_threads_does_not_change_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    found = in_blocks(POINTS["scattered"](), 600)
    monkeypatch.setattr(THREADS, "_threads", 3)
    assert in_blocks(POINTS["scattered"](), 600) == found


def test_distances_are_to_the_last_bit_those_of_differences() -> None:
    """The product of matrices alone is wrong by far more than float32 rounds."""
    points = drawn(3000, 48) + 100
    cover = Cover(points, THREADS)
    cover.add(torch.arange(50))
    expected = torch.stack([torch.linalg.norm(points - points[index], dim=1) for index in range(50)]).amin(0)
    assert torch.equal(cover.distance, expected)
    squares = points.square().sum(1)
    product = (squares[:50] - 2 * points @ points[:50].T).amin(1) + squares
    assert (product[50:].clamp(min=0).sqrt() - expected[50:]).abs().max() > 1e-3


def test_a_gpu_picks_points_of_a_block_without_reading_a_value_back() -> None:
    """Tensors on torch's device ``meta`` have no values: reading one raises."""
    picking = PickingInBlock(torch.empty(500, 8, device="meta"), torch.empty(500, device="meta"))
    indices, distances = picking.pick(100)
    assert indices.device == distances.device == torch.device("meta")


def test_a_stop_is_seen_while_points_are_picked() -> None:
    seen: list[int] = []
    in_blocks(POINTS["scattered"](), 600, seen.append)
    assert seen == sorted(set(seen))
    assert seen[0] == 1
    assert len(seen) > 3


@pytest.mark.parametrize(
    ("samples", "features", "expected"),
    # sklearn.random_projection.johnson_lindenstrauss_min_dim(100_000, eps=0.9) is 284
    [(100_000, 152, 152), (100_000, 284, 284), (100_000, 1536, 284), (1, 1536, 17)],
)
def test_patches_are_projected_only_where_that_makes_them_shorter(samples: int, features: int, expected: int) -> None:
    assert compared_numbers(samples, features) == expected


def test_projected_patches_are_as_long_as_said() -> None:
    few, many = drawn(2000, 48), drawn(2000, 400)
    assert projected(few, SEED) is few
    assert projected(many, SEED).shape == (2000, compared_numbers(2000, 400))
