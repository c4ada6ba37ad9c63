"""Metrics equal scikit-learn's on raw scores, ties and degenerate cases included."""

from collections.abc import Iterator

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

from anomaly_runner.evaluation import curves
from anomaly_runner.evaluation.curves import auroc, average_precision, best_f1_threshold, confusion_at, sort_by_class


def cases() -> list[ParameterSet]:
    return list(_cases())


def _cases() -> Iterator[ParameterSet]:
    random = np.random.default_rng(5)
    for name, count, decimals, share in [
        ("plain", 500, 12, 0.3),
        ("tied", 500, 1, 0.5),
        ("many ties", 3000, 0, 0.1),
        ("few positive", 1000, 12, 0.002),
        ("nearly all positive", 1000, 2, 0.99),
        ("two", 2, 12, 0.5),
    ]:
        labels = random.random(count) < share
        labels[0], labels[1] = True, False
        scores = np.round(random.normal(labels * 1.0, 1.0) * 10 + 42, decimals).astype(np.float32)
        yield pytest.param(scores, labels, id=name)
    yield pytest.param(np.full(20, 3.5, np.float32), np.arange(20) < 7, id="constant")
    yield pytest.param(np.arange(20, dtype=np.float32), np.arange(20) >= 12, id="separable")
    yield pytest.param(np.arange(20, dtype=np.float32), np.arange(20) < 12, id="wrong way round")


@pytest.mark.parametrize(("scores", "labels"), cases())
def test_ranking_metrics_equal_scikit_learn(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    ranked = sort_by_class(scores, labels)
    assert auroc(ranked) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert average_precision(ranked) == pytest.approx(average_precision_score(labels, scores), abs=1e-9)


@pytest.mark.parametrize(("scores", "labels"), cases())
def test_best_f1_is_the_best_of_all_thresholds(scores: NDArray[np.float32], labels: NDArray[np.bool_]) -> None:
    threshold = best_f1_threshold(sort_by_class(scores, labels))
    precision, recall, _ = precision_recall_curve(labels, scores)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-30))
    assert f1_score(labels, scores >= threshold) == pytest.approx(best, abs=1e-12)
    assert threshold in scores[labels]


@pytest.mark.parametrize(("scores", "labels"), cases())
@pytest.mark.parametrize("quantile", [0, 0.37, 0.9, 1])
def test_decisions_equal_scikit_learn(scores: NDArray[np.float32], labels: NDArray[np.bool_], quantile: float) -> None:
    threshold = float(np.quantile(scores, quantile, method="nearest"))
    counts = confusion_at(sort_by_class(scores, labels), threshold)
    decided = scores >= threshold
    assert counts.f1 == pytest.approx(f1_score(labels, decided), abs=1e-9)
    assert counts.precision == pytest.approx(precision_score(labels, decided, zero_division=0), abs=1e-9)
    assert counts.recall == pytest.approx(recall_score(labels, decided), abs=1e-9)


def test_a_separable_case_is_decided_without_a_fault() -> None:
    ranked = sort_by_class(np.array([1, 2, 3, 4], np.float32), np.array([False, False, True, True]))
    assert best_f1_threshold(ranked) == 3
    assert confusion_at(ranked, 3).f1 == 1


def test_a_threshold_between_two_float32_is_compared_exactly() -> None:
    score = np.float32(0.1)
    ranked = sort_by_class(np.array([score], np.float32), np.array([True]))
    assert confusion_at(ranked, float(score)).true_positive == 1
    assert confusion_at(ranked, float(score) + 1e-12).true_positive == 0
    assert confusion_at(ranked, 1e300).true_positive == 0
    assert confusion_at(ranked, -1e300).true_positive == 1


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunks_do_not_change_results(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    random = np.random.default_rng(1)
    labels = random.random(200) < 0.4
    scores = np.round(random.normal(labels, 1.0), 1).astype(np.float32)
    ranked = sort_by_class(scores, labels)
    whole = auroc(ranked), average_precision(ranked), best_f1_threshold(ranked)
    monkeypatch.setattr(curves, "_CHUNK", chunk)
    parts = auroc(ranked), average_precision(ranked), best_f1_threshold(ranked)
    assert parts == pytest.approx(whole, abs=1e-12)
