"""The table of good scores says of every score how many good images score lower, nearly or exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anomaly_api.run import GoodScores
from anomaly_runner.evaluation.good_scores import share_of_good_below, summarise_good
from support.optional import not_none

SCORES = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=60)


def counted(good: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """The definition, score by score."""
    return np.array([(good < score).mean() for score in scores])


@given(SCORES, SCORES)
def test_few_scores_are_counted_exactly(good: list[float], scores: list[float]) -> None:
    known, asked = np.sort(np.array(good, np.float32)), np.array([*scores, *good], np.float32)
    table = not_none(summarise_good(known))
    # As it is read from model.json.
    table = GoodScores.model_validate_json(table.model_dump_json(by_alias=True))
    assert share_of_good_below(table, asked) == pytest.approx(counted(known, asked), abs=1e-12)


@pytest.mark.parametrize("decimals", [2, 6])  # with 2, one score is shared by up to 1,300 images
def test_many_scores_are_counted_nearly_and_the_highest_exactly(decimals: int) -> None:
    random = np.random.default_rng(3)
    good = np.sort(np.round(random.lognormal(size=200_000), decimals).astype(np.float32))
    table = not_none(summarise_good(good))
    assert 256 < len(table.scores) <= 1024 < len(np.unique(good))
    assert len(table.model_dump_json()) < 40_000
    asked = np.concatenate((random.lognormal(size=2000).astype(np.float32), good[::700]))
    found, expected = share_of_good_below(table, asked), counted(good, asked)
    assert np.abs(found - expected).max() <= 1 / 384
    assert (found >= expected).all()
    highest = np.unique(good)[-200:]
    assert share_of_good_below(table, highest) == pytest.approx(counted(good, highest), abs=1e-12)
    assert share_of_good_below(table, good[-1:] + 1).tolist() == [1.0]


def test_the_share_never_falls_as_the_score_rises() -> None:
    random = np.random.default_rng(4)
    table = not_none(summarise_good(np.sort(random.normal(size=5000).astype(np.float32))))
    shares = share_of_good_below(table, np.linspace(-5, 5, 4001, dtype=np.float32))
    assert (np.diff(shares) >= 0).all()
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_without_good_images_there_is_no_table() -> None:
    assert summarise_good(np.empty(0, np.float32)) is None
