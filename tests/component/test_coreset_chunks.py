"""A coreset of coresets: what is counted, and how well it covers the patches."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anomaly_runner.models.coreset import k_center_greedy
from anomaly_runner.models.coreset_chunks import ChunkedCoreset, CoresetSize
from anomaly_runner.models.threads import TorchThreads

THREADS = TorchThreads(torch.device("cpu"))


def pick(patches: Tensor, count: int) -> Tensor:
    return patches[k_center_greedy(patches, count, lambda _: None, THREADS)]


def reduced(patches: Tensor, ratio: float, chunk: int, part: int = 100) -> Tensor:
    torch.manual_seed(2)
    coreset = ChunkedCoreset(pick, ratio, chunk)
    coreset.add(torch.split(patches, part))
    assert coreset.rows == len(patches)
    return coreset.finish()


def radius(patches: Tensor, centres: Tensor) -> float:
    """Distance of the patch that is farthest from its nearest centre, by torch's own function."""
    return float(torch.cdist(patches, centres, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max())


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def in_order() -> Tensor:
    """Clusters one after the other, each with a patch far from it: every chunk has patches that no other has."""
    points = (drawn(40, 16) * 3).repeat_interleave(200, 0) + drawn(8000, 16) * 0.3
    points[::200] *= 3
    return points


def mixed() -> Tensor:
    return in_order()[torch.randperm(8000, generator=torch.Generator().manual_seed(3))]


def test_one_chunk_is_the_coreset_itself() -> None:
    torch.manual_seed(2)
    expected = pick(mixed(), 800)
    assert torch.equal(reduced(mixed(), 0.1, 8000), expected)


@pytest.mark.parametrize("patches", [in_order, mixed])
@pytest.mark.parametrize(("ratio", "chunk"), [(0.02, 2000), (0.1, 2000), (0.1, 800)])
def test_chunks_cover_the_patches_nearly_as_well(
    patches: Callable[[], Tensor], ratio: float, chunk: int, measured: Callable[[str], None]
) -> None:
    points = patches()
    exact, chunked = reduced(points, ratio, len(points)), reduced(points, ratio, chunk)
    loss = radius(points, chunked) / radius(points, exact)
    measured(f"{patches.__name__}, {ratio} kept in chunks of {chunk}: {loss:.3f} times the radius")
    assert chunked.shape == exact.shape
    assert loss < 1.2
    # as many points drawn at random cover them far worse: the bound means something
    drawn_at_random = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(4))[: len(exact)]]
    assert radius(points, drawn_at_random) > 1.2 * radius(points, exact)


@pytest.mark.parametrize(("rows", "ratio"), [(1000, 0.1), (1001, 0.37), (999, 0.5), (1000, 0.9), (700, 1.0)])
@pytest.mark.parametrize("chunk", [64, 130, 500, 1000])
def test_the_share_is_kept_to_the_patch(rows: int, ratio: float, chunk: int) -> None:
    patches = drawn(rows, 4)
    found = reduced(patches, ratio, chunk, part=7)
    assert len(found) == int(rows * ratio)
    assert {tuple(patch) for patch in found.tolist()} <= {tuple(patch) for patch in patches.tolist()}


def test_no_reduction_is_larger_than_a_chunk() -> None:
    sizes: list[int] = []

    def counted(patches: Tensor, count: int) -> Tensor:
        sizes.append(len(patches))
        return patches[:count]

    coreset = ChunkedCoreset(counted, 0.2, 500)
    coreset.add(torch.split(drawn(10_000, 4), 50))
    coreset.finish()
    # 20 chunks, each reduced to 200, and those in groups of two
    assert sizes == [500] * 20 + [400] * 10


def test_too_few_patches_leave_none() -> None:
    assert len(reduced(drawn(9, 4), 0.1, 1000)) == 0


def test_bytes_by_hand() -> None:
    size = CoresetSize(rows=1_000_000, channels=100, ratio=0.05)
    assert (size.picked, size.kept) == (50_000, 100_000)
    # no projection: all rows twice and 8 numbers each, and the picked ones
    assert size.exact_bytes() == 4 * (1_000_000 * 208 + 50_000 * 100)
    # what all chunks keep, and the reduction of one chunk to 2,000
    assert size.chunked_bytes(20_000) == 4 * (100_000 * 100 + 20_000 * 208 + 2_000 * 100)
    # Of 80 % of the memory that is free, 40 MB are for what is kept; a row takes 832 bytes, and 40 for its share in the
    # chunk's coreset: 45,871 rows would fit, 91,743 with 50 MB more, and 229,357 with 200 MB more.
    assert size.largest_chunk(100_000_000) == 1 << 15
    assert size.largest_chunk(150_000_000) == 1 << 16
    assert size.largest_chunk(300_000_000) == 1 << 17
    assert size.largest_chunk(1 << 40) == 1 << 18
    assert size.largest_chunk(0) == 1 << 14
