"""AUPRO and confidence intervals compared with independent implementations."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from skimage.measure import label
from sklearn.metrics import roc_auc_score

from anomaly_runner.evaluation.curves import ConfusionCounts, sort_by_class
from anomaly_runner.evaluation.intervals import auroc_interval, image_intervals, share_interval
from anomaly_runner.evaluation.regions import aupro
from support.optional import not_none

FPR_LIMIT = 0.3
"""That of Bergmann et al. (2020), written out: the product's own would hide a wrong one."""


def naive_aupro(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Return AUPRO over every threshold, as in MVTec AD's evaluation: by the trapezoidal rule over falling scores."""
    good = np.concatenate([scores[~mask] for scores, mask in zip(maps, masks, strict=True)])
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        numbered = label(mask, connectivity=2)
        regions += [scores[numbered == number] for number in range(1, numbered.max() + 1)]
    thresholds = np.unique(np.concatenate([good, *regions]))[::-1]
    rates = [0.0] + [float((good >= t).mean()) for t in thresholds]
    overlaps = [0.0] + [float(np.mean([(region >= t).mean() for region in regions])) for t in thresholds]
    inside = [(rate, overlap) for rate, overlap in zip(rates, overlaps, strict=True) if rate <= FPR_LIMIT]
    following = rates[len(inside)], overlaps[len(inside)]
    last = np.interp(FPR_LIMIT, [inside[-1][0], following[0]], [inside[-1][1], following[1]])
    xs, ys = zip(*inside, (FPR_LIMIT, last), strict=True)
    return float(np.trapezoid(ys, xs)) / FPR_LIMIT


def scenes(seed: int, ties: bool) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    random = np.random.default_rng(seed)
    masks: NDArray[np.bool_] = np.zeros((4, 24, 20), bool)
    masks[0, 3:8, 3:9] = masks[0, 15:18, 12:16] = masks[1, 10:12, :] = True
    masks[1, 12, 19] = True  # a bulge of the line
    masks[2, 0, 0] = masks[2, 1, 1] = masks[2, 1, 2] = True  # touch by a corner
    raised = masks * np.float32(1.2)
    maps = (random.normal(size=masks.shape).astype(np.float32) + raised).astype(np.float32, copy=False)
    return (maps.round(1) if ties else maps), masks


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_aupro_is_that_of_every_threshold(seed: int, ties: bool) -> None:
    maps, masks = scenes(seed, ties)
    good = np.sort(maps[~masks])
    found = aupro(zip(maps, masks, strict=True), good)
    assert found == pytest.approx(naive_aupro(maps, masks), abs=1e-9)


def test_aupro_of_perfect_and_of_worst_scores() -> None:
    _, masks = scenes(0, False)
    perfect = masks.astype(np.float32)
    assert aupro(zip(perfect, masks, strict=True), np.sort(perfect[~masks])) == pytest.approx(1.0)
    assert aupro(zip(-perfect, masks, strict=True), np.sort(-perfect[~masks])) == 0.0
    assert aupro([(perfect[3], masks[3])], np.zeros(5, np.float32)) is None


def test_delong_interval_covers_as_often_as_it_says() -> None:
    """Of 400 samples of a known distribution, some 95 % hold the true AUROC."""
    random = np.random.default_rng(1)
    truth, hits = 0.760250, 0  # of two normal distributions one deviation apart: Phi(1 / sqrt(2))
    for _ in range(400):
        scores = np.concatenate([random.normal(1, 1, 60), random.normal(0, 1, 80)]).astype(np.float32)
        low, high = not_none(auroc_interval(sort_by_class(scores, np.arange(140) < 60)))
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_delong_variance_is_the_bootstraps() -> None:
    random = np.random.default_rng(2)
    labels = np.arange(300) < 120
    scores = (random.normal(size=300) + labels).astype(np.float32)
    low, high = not_none(auroc_interval(sort_by_class(scores, labels)))
    drawn = [random.integers(0, 300, 300) for _ in range(500)]
    spread = np.std([roc_auc_score(labels[rows], scores[rows]) for rows in drawn])
    assert (high - low) / (2 * 1.96) == pytest.approx(spread, rel=0.12)


def test_wilson_as_published() -> None:
    """Newcombe, Statistics in Medicine 17, 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for (part, whole), (low, high) in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert share_interval(part, whole) == pytest.approx((low, high), abs=5e-5)


def test_intervals_hold_their_metrics() -> None:
    labels = np.arange(60) < 30
    scores = np.concatenate([np.linspace(0.3, 1, 30), np.linspace(0, 0.6, 30)]).astype(np.float32)
    found = image_intervals(sort_by_class(scores, labels), ConfusionCounts(20, 5, 25, 10))
    assert found["Precision"][0] < 20 / 25 < found["Precision"][1]
    assert found["Recall"][0] < 20 / 30 < found["Recall"][1]
    assert found["Accuracy"][0] < 45 / 60 < found["Accuracy"][1]
    assert auroc_interval(sort_by_class(scores[:30], labels[:30])) is None


@pytest.mark.parametrize(("scores", "middle"), [(np.arange(10), 1.0), (np.arange(10)[::-1], 0.0), (np.zeros(10), 0.5)])
def test_no_interval_is_a_point(scores: NDArray[np.float64], middle: float) -> None:
    """Each end is where the standard error of Hanley and McNeil (1982), N being the classes' mean size, meets it."""

    def gap(value: float) -> float:
        first, second = value / (2 - value), 2 * value**2 / (1 + value)
        variance = (value * (1 - value) + 4 * (first - value**2) + 4 * (second - value**2)) / 25
        return float(abs(middle - value) - 1.959964 * np.sqrt(max(variance, 0)))

    low, high = not_none(auroc_interval(sort_by_class(scores.astype(np.float32), np.arange(10) >= 5)))
    assert low == pytest.approx(brentq(gap, 0, middle - 1e-9) if middle else 0, abs=1e-6)
    assert high == pytest.approx(brentq(gap, middle + 1e-9, 1) if middle < 1 else 1, abs=1e-6)


def test_perfect_separation_of_few_images_is_no_certainty() -> None:
    """For perfectly separated samples, the interval still contains the true AUROC, 0.921."""
    random = np.random.default_rng(4)
    perfect, hits = 0, 0
    for _ in range(600):
        scores = np.concatenate([random.normal(2, 1, 6), random.normal(0, 1, 6)]).astype(np.float32)
        low, high = not_none(auroc_interval(sort_by_class(scores, np.arange(12) < 6)))
        if high == 1 and scores[:6].min() > scores[6:].max():
            perfect += 1
            hits += low <= 0.9214
    assert perfect > 50
    assert hits == perfect
