"""results.json by hand: four images, one of each kind of outcome, and one whose label nobody knows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomaly_api.results import ImageResults
from anomaly_api.run import ConfusionMatrix
from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.curves import ScoresByClass
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.evaluation.labelled import LabelledScores
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.reporting.image_results import image_results
from anomaly_runner.scoring.predict import Predictions

SAMPLES = (
    Sample("a.png", "good"),
    Sample("test/dent/b.png", "dent"),
    Sample("test/good/c.png", "good"),
    Sample("x/unknown/d.png", "unknown"),
)
SCORES = np.array([1, 2, 3, 5], np.float32)
PREDICTIONS = Predictions(SAMPLES, SCORES, None, None)


def evaluated(threshold: float = 3.0, **changes: object) -> EvaluationResult:
    thresholds = ThresholdValues(image=threshold)
    made = EvaluationResult(
        thresholds=thresholds,
        metrics=MetricValues(),
        normalizer=ScoreNormalizer("none", thresholds, {"image": (1.0, 5.0)}),
        anomalous=threshold <= SCORES,
        normalized_scores=SCORES.astype(float),
        confusion=None,
        labels={},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def made(found: EvaluationResult, training: float | None = 4.0, folder: Path = Path("/nowhere")) -> ImageResults:
    return image_results(PREDICTIONS, found, ThresholdValues(image=training), folder)


def test_each_image_has_its_decision_beside_its_label() -> None:
    observations = made(evaluated()).observations
    assert [(one.image_path, one.file_name) for one in observations] == [
        (".", "a.png"),
        ("test/dent", "b.png"),
        ("test/good", "c.png"),
        ("x/unknown", "d.png"),
    ]
    assert [one.expectation for one in observations] == [0, 1, 0, ""]
    assert [one.prediction for one in observations] == [0, 0, 1, 1]
    assert [one.is_correct for one in observations] == [True, False, False, True]
    assert [one.unnormalized_score for one in observations] == [1, 2, 3, 5]
    assert [one.good_below for one in observations] == [None] * 4
    shares = evaluated(good_below=np.array([0.25, 0.5, 0.75, 1.0]))
    assert [one.good_below for one in made(shares).observations] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("training", "scores", "threshold"),
    [
        (4.0, [25, 50, 75, 125], 75),
        (0.0, [125, 150, 175, 225], 175),  # in shares of the spread of 4
        (None, [100 / 3, 200 / 3, 100, 500 / 3], 100),  # of the run's own threshold, 3
        (-2.0, [250, 300, 350, 450], 350),
    ],
)
def test_scores_are_in_percent_of_the_trained_threshold(
    training: float | None, scores: list[float], threshold: float
) -> None:
    found = made(evaluated(), training)
    assert [one.anomaly_score for one in found.observations] == pytest.approx(scores)
    assert (found.threshold, found.unnormalized_threshold) == (threshold, 3)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(3.0, [0, 0.25, 0.5, 1]), (2.0, [0.25, 0.5, 0.75, 1]), (10.0, [0, 0, 0, 0]), (-10.0, [1, 1, 1, 1])],
)
def test_a_probability_is_a_half_at_the_threshold_on_the_scale_of_the_scores(
    threshold: float, expected: list[float]
) -> None:
    assert [one.anomaly_probability for one in made(evaluated(threshold)).observations] == expected


def test_scores_that_are_all_the_same_have_a_scale_of_one() -> None:
    same = replace(PREDICTIONS, scores=np.full(4, 2.75, np.float32))
    found = image_results(same, evaluated(), ThresholdValues(), Path("/nowhere"))
    assert [one.anomaly_probability for one in found.observations] == [0.25] * 4


def test_decisions_against_labels_are_counted() -> None:
    confusion = ConfusionMatrix(true_negatives=5, false_positives=1, false_negatives=2, true_positives=3)
    found = made(evaluated(confusion=confusion))
    assert found.metrics.confusion_matrix.matrix == ((5, 1), (2, 3))
    assert found.f1_score == pytest.approx(6 / 9)
    without = made(evaluated())
    assert (without.metrics.confusion_matrix.matrix, without.f1_score) == (((0, 0), (0, 0)), 0)


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [([2], [1, 3], 2), ([3], [1, 2], 0), ([1], [5], 4), ([], [1, 3], 0), ([2], [], 0)],
)
def test_images_between_the_lowest_defect_and_the_highest_good_one_overlap(
    positive: list[float], negative: list[float], expected: int
) -> None:
    scores = ScoresByClass(np.array(positive, np.float32), np.array(negative, np.float32))
    found = made(evaluated(labelled=LabelledScores(scores, None)))
    assert found.metrics.overlapping_scores == expected
    assert made(evaluated()).metrics.overlapping_scores == 0


def test_pictures_are_named_where_they_were_drawn(tmp_path: Path) -> None:
    heat = "visualizations/dent/000001_b_good_2_WRONG_heatmap.png"
    mask = "visualizations/good/000002_c_anomalous_3_WRONG_segmentation.png"
    for name in (heat, mask):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    observations = made(evaluated(), folder=tmp_path).observations
    assert [one.prediction_heatmap for one in observations] == ["", heat, "", ""]
    assert [one.prediction_mask for one in observations] == ["", "", mask, ""]
