"""The measured table that searches are tried on: it has its whole grid, and luck is counted as it is."""

import math

import pytest
from scipy.stats import nhypergeom

from anomaly_search import points
from benchmarks.search_problems import Problem, measured_grid


@pytest.fixture(scope="module")
def grid() -> Problem:
    return measured_grid()


def test_every_point_is_measured_at_each_fidelity(grid: Problem) -> None:
    total = points.count(grid.space)
    assert total == len(grid.losses)
    every = [points.point_at(grid.space, place) for place in range(total)]
    losses = [[grid.loss(point, rung) for rung in range(len(grid.costs))] for point in every]
    assert grid.costs == (0.25, 1.0)
    assert sorted(one[-1] for one in losses) == list(grid.losses)
    assert all(-1 <= loss <= 0 for loss in grid.losses), "AUROC, turned"
    few = [point for point, (quarter, _) in zip(every, losses, strict=True) if quarter == math.inf]
    assert few, "12 images of 2 x 2 patches, of which a hundredth is none"
    assert all(point["model.patchcore.layers"] == ["blocks.4"] for point in few)


@pytest.mark.parametrize("share", [0.02, 0.01, 0.005])
def test_the_median_of_random_points_without_repeats_is_that_of_scipy(grid: Problem, share: float) -> None:
    near = sum(loss <= grid.near(share) for loss in grid.losses)
    others = len(grid.losses) - near
    # Draws of points that are not near, before the first that is.
    assert grid.random_median(share) == nhypergeom(len(grid.losses), others, 1).median() + 1
