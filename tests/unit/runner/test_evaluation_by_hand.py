"""Thresholds, decisions, normalised scores and summaries of a few images, whose values are worked out by hand.

Image scores are ten times the pixel scores, and no two ranges or thresholds are alike, so that a value of the wrong
level, of the wrong images or of the wrong range differs.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from anomaly_api.evaluation import Evaluation, Metrics, Threshold
from anomaly_api.inference import InferenceThreshold
from anomaly_api.run import ModelManifest, RunIdentity
from anomaly_api.status import ThresholdValues
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import DataInvalid, ModelInvalid
from anomaly_runner.evaluation.curves import ConfusionCounts, sort_by_class
from anomaly_runner.evaluation.evaluate import EvaluationResult, evaluate
from anomaly_runner.evaluation.inference_thresholds import inference_thresholds
from anomaly_runner.evaluation.intervals import auroc_interval, image_intervals, share_interval
from anomaly_runner.evaluation.labelled import LabelledScores, sort_labelled_scores
from anomaly_runner.evaluation.normalize import (
    ScoreNormalizer,
    experiment_normalizer,
    inference_normalizer,
    score_range,
)
from anomaly_runner.evaluation.regions import aupro
from anomaly_runner.evaluation.summaries import label_summaries, score_histogram, worst_mistakes
from anomaly_runner.evaluation.thresholds import experiment_thresholds, image_threshold
from anomaly_runner.scoring.predict import Predictions
from support.optional import not_none

GOOD, BAD = 3.0, 4.0
"""Highest score of a good pixel, lowest of a defective one."""
LABELS = ("good", "good", "dent", "scratch", "unknown")
SCORES = (10.0, 20.0, 50.0, 70.0, 90.0)
MAPS = (
    [[0.5, 0.5], [0.5, GOOD]],
    [[0.5, 0.5], [0.5, 0.5]],
    [[BAD, 0.5], [0.5, 0.5]],
    [[0.5, 6.0], [0.5, 0.5]],
    [[9.0, 9.0], [9.0, 9.0]],
)
MASKS = {"dent": [[True, False], [False, False]], "scratch": [[False, True], [False, False]]}
"""The dent's pixel scores 4, the scratch's 6."""


def scored(labels: Sequence[str] = LABELS, scores: Sequence[float] = SCORES) -> Predictions:
    maps = np.array(MAPS[: len(labels)], np.float32)
    samples = tuple(Sample(f"test/{label}/{index}.png", label) for index, label in enumerate(labels))
    return Predictions(
        samples=samples,
        scores=np.array(scores, np.float32),
        maps=maps,
        pixel_range=(float(maps.min()), float(maps.max())),
        max_pixel_scores=maps.max((1, 2)),
    )


def truth(sample: Sample) -> NDArray[np.bool_]:
    return np.array(MASKS.get(sample.label, [[False, False], [False, False]]))


def labelled(tmp_path: Path, found: Predictions | None = None) -> LabelledScores:
    return sort_labelled_scores(found or scored(), truth, tmp_path)


TRAINING = ThresholdValues(image=33.0, pixel=3.3, source="adaptive")


def test_optimal_f1_is_found_on_the_scores_of_its_level(tmp_path: Path) -> None:
    image, _ = inference_thresholds(InferenceThreshold(type="image"), TRAINING, labelled(tmp_path))
    assert image == ThresholdValues(image=50.0, pixel=3.3, source="optimalF1")
    pixel, _ = inference_thresholds(InferenceThreshold(type="pixel"), TRAINING, labelled(tmp_path))
    assert pixel == ThresholdValues(image=33.0, pixel=4.0, source="optimalF1")


def test_what_optimal_f1_lacks_is_named(tmp_path: Path) -> None:
    good = labelled(tmp_path, scored(LABELS[:2], SCORES[:2]))
    _, (image,) = inference_thresholds(InferenceThreshold(type="image"), TRAINING, good)
    assert image.startswith("threshold.source optimalF1 needs labelled images of both classes:")
    _, (pixel,) = inference_thresholds(InferenceThreshold(type="pixel"), TRAINING, good)
    assert pixel.startswith("threshold.source optimalF1 needs masks of both classes:")


@pytest.mark.parametrize(
    ("source", "level", "training"),
    [
        ("training", "image", ThresholdValues(pixel=1.0)),
        ("optimalF1", "image", ThresholdValues(pixel=1.0)),
        ("custom", "image", ThresholdValues(pixel=1.0)),
        ("custom", "pixel", ThresholdValues(image=1.0)),
    ],
)
def test_a_model_without_the_threshold_that_is_needed(
    source: str, level: str, training: ThresholdValues, tmp_path: Path
) -> None:
    spec = {"source": source, "type": level} | ({"value": 100} if source == "custom" else {})
    nothing = sort_labelled_scores(scored(("unknown",), (1.0,)), None, tmp_path)
    with pytest.raises(ModelInvalid, match="the model has no"):
        inference_thresholds(InferenceThreshold.model_validate(spec), training, nothing)


def test_adaptive_thresholds_of_both_levels(tmp_path: Path) -> None:
    values, warnings = experiment_thresholds(Threshold(), labelled(tmp_path))
    assert values == ThresholdValues(image=50.0, pixel=4.0, source="adaptive")
    assert warnings == ()
    assert image_threshold(values) == 50.0


def test_a_rate_of_false_alarms_needs_a_good_image_that_can_be_read(tmp_path: Path) -> None:
    spec = Threshold(method="falseAlarmRate", false_alarm_rate=0.5)
    with pytest.raises(DataInvalid, match="no good test image can be read, and falseAlarmRate needs some"):
        experiment_thresholds(spec, labelled(tmp_path, scored(LABELS[2:4], SCORES[2:4])))


def test_with_masks_the_pixel_threshold_is_that_of_the_pixels(tmp_path: Path) -> None:
    """The dent's image has its highest score, 5, beside the dent."""
    found = scored(LABELS[:3], SCORES[:3])
    np.asarray(found.maps)[2, 1, 1] = 5
    found = replace(found, max_pixel_scores=np.asarray(found.maps).max((1, 2)))
    assert experiment_thresholds(Threshold(), labelled(tmp_path, found))[0].pixel == 4.0
    assert experiment_thresholds(Threshold(), sort_labelled_scores(found, None, tmp_path))[0].pixel == 5.0


def test_without_masks_the_pixel_threshold_is_that_of_the_highest_pixel_scores(tmp_path: Path) -> None:
    """Good images reach 3 and 0.5, defective ones 4 and 6; the unlabelled one does not count."""
    values, _ = experiment_thresholds(Threshold(), sort_labelled_scores(scored(), None, tmp_path))
    assert values.pixel == 4.0


@pytest.mark.parametrize(
    ("labels", "scores", "expected", "warning"),
    [
        (LABELS[:2], SCORES[:2], np.nextafter(np.float32(20), np.float32(21)), "no defective test images: the thresho"),
        (LABELS[2:4], SCORES[2:4], 50.0, "no good test images: the threshold finds every defect"),
    ],
)
def test_a_threshold_where_a_class_is_missing(
    labels: Sequence[str], scores: Sequence[float], expected: float, warning: str, tmp_path: Path
) -> None:
    found = sort_labelled_scores(scored(labels, scores), None, tmp_path)
    values, (told,) = experiment_thresholds(Threshold(), found)
    assert values.image == expected
    assert told.startswith(warning)


RANGES = {"image": (10.0, 50.0), "pixel": (0.0, 5.0)}
THRESHOLDS = ThresholdValues(image=30.0, pixel=4.0)


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_min_max_divides_by_the_range_of_its_level() -> None:
    """(score - threshold) / (highest - lowest) + 0.5, within 0..1."""
    found = ScoreNormalizer("minMax", THRESHOLDS, RANGES)
    assert found.image(floats(0, 20, 30, 40, 50, 70)) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert found.pixel(floats(1.5, 3, 4, 5)) == pytest.approx([0, 0.3, 0.5, 0.7])


def test_min_max_of_scores_that_are_all_alike_divides_by_one() -> None:
    alike = ScoreNormalizer("minMax", ThresholdValues(image=2.0), {"image": (2.0, 2.0)})
    assert alike.image(floats(1.75, 2, 2.25)) == pytest.approx([0.25, 0.5, 0.75])
    assert ScoreNormalizer("minMax", ThresholdValues(image=2.0), {}).image(floats(1.75)) == pytest.approx([0.25])


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (30.0, [50, 100, 150]),  # 15, 30, 45: percent of the threshold
        (-40.0, [62.5, 100, 137.5]),  # -55, -40, -25: 15 are 37.5 % of 40
        (0.0, [62.5, 100, 137.5]),  # -15, 0, 15: 15 are 37.5 % of the range's 40
    ],
)
def test_percent_of_the_threshold(threshold: float, expected: list[float]) -> None:
    found = ScoreNormalizer("threshold", ThresholdValues(image=threshold), RANGES)
    assert found.image(floats(threshold - 15, threshold, threshold + 15)) == pytest.approx(expected)


def test_percent_of_nothing_is_percent_of_one() -> None:
    found = ScoreNormalizer("threshold", ThresholdValues(image=0.0), {})
    assert found.image(floats(-0.5, 0, 0.5)) == pytest.approx([50, 100, 150])


def test_rounding_lifts_no_percentage_onto_the_threshold() -> None:
    found = ScoreNormalizer("threshold", ThresholdValues(image=0.0), {"image": (-1e12, 0.0)})
    below, at = found.image(floats(-1e-9, 0))
    assert below < 100 == at


def test_without_a_threshold_scores_stay_raw() -> None:
    for method in ("minMax", "threshold", "none"):
        found = ScoreNormalizer(method, ThresholdValues(image=30.0), RANGES)
        assert found.pixel(floats(1.5, 30)).tolist() == [1.5, 30]
    assert ScoreNormalizer("none", THRESHOLDS, RANGES).image(floats(1.5, 30)).tolist() == [1.5, 30]


def test_percent_of_a_pixel_threshold_of_zero_is_percent_of_the_pixels_range(tmp_path: Path) -> None:
    spec = InferenceThreshold(source="custom", type="pixel", value=120)
    training = ThresholdValues(image=30.0, pixel=0.0)
    values, _ = inference_thresholds(spec, training, labelled(tmp_path), RANGES)
    assert values == ThresholdValues(image=30.0, pixel=1.0, source="custom")


def model_manifest(normalization: str, pixels_from: str) -> ModelManifest:
    """The manifest of a model with these ranges and thresholds."""
    run = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="screws", uid="0-1")
    return ModelManifest.model_validate(
        {
            "run": run,
            "model": "padim",
            "inputHeight": 2,
            "inputWidth": 2,
            "normalization": "none",
            "exports": (),
            "thresholds": THRESHOLDS,
            "scoreRange": RANGES,
            "scoreNormalization": normalization,
            "thresholdType": pixels_from,
            "task": "segmentation",
        }
    )


@pytest.mark.parametrize(
    ("method", "image", "pixel"),
    [("minMax", 50.0, 5.0), ("threshold", 30.0, 4.0)],
    ids=["minMax: this run's threshold", "threshold: the training's"],
)
@pytest.mark.parametrize("pixels_from", ["image", "pixel"])
def test_the_threshold_that_an_inference_normalises_around(
    method: str, image: float, pixel: float, pixels_from: str
) -> None:
    found = inference_normalizer(model_manifest(method, pixels_from), ThresholdValues(image=50.0, pixel=5.0))
    middle = 0.5 if method == "minMax" else 100.0
    assert found.image(floats(image)) == pytest.approx([middle])
    assert found.pixel(floats(image if pixels_from == "image" else pixel)) == pytest.approx([middle])
    assert found.ranges == RANGES


def test_an_experiment_normalises_as_its_spec_says() -> None:
    spec = Evaluation(normalization="threshold", threshold_type="image")
    found = experiment_normalizer(spec, THRESHOLDS, RANGES)
    assert found == ScoreNormalizer("threshold", THRESHOLDS, RANGES, "image")


def test_ranges_are_of_all_predictions_and_of_each_level() -> None:
    first, second = scored(LABELS[:2], SCORES[:2]), scored()
    assert score_range(first, second) == {"image": (10.0, 90.0), "pixel": (0.5, 9.0)}
    assert score_range(first) == {"image": (10.0, 20.0), "pixel": (0.5, 3.0)}


def evaluated(
    tmp_path: Path, thresholds: ThresholdValues, metrics: Metrics | None = None, found: Predictions | None = None
) -> EvaluationResult:
    found = found or scored()
    return evaluate(
        found,
        labelled(tmp_path, found),
        thresholds,
        normalizer=ScoreNormalizer("none", thresholds, {}),
        metrics=metrics or Metrics(),
        warnings=("said before",),
    )


def test_decisions_and_what_is_counted(tmp_path: Path) -> None:
    """At 15: the second good image is a false alarm; at 60: the dent is missed. The unlabelled one is decided too."""
    eager = evaluated(tmp_path, ThresholdValues(image=15.0, pixel=4.0))
    assert eager.anomalous.tolist() == [False, True, True, True, True]
    counts = not_none(eager.confusion)
    assert (counts.true_negatives, counts.false_positives) == (1, 1)
    assert (counts.false_negatives, counts.true_positives) == (0, 2)
    assert [(mistake.path, mistake.label, mistake.score) for mistake in eager.mistakes] == [
        ("test/good/1.png", "good", 20.0)
    ]
    late = evaluated(tmp_path, ThresholdValues(image=60.0, pixel=4.0))
    counts = not_none(late.confusion)
    assert (counts.true_negatives, counts.false_positives) == (2, 0)
    assert (counts.false_negatives, counts.true_positives) == (1, 1)
    summaries = [(name, one.images, one.mean_score, one.anomalous) for name, one in late.labels.items()]
    assert summaries == [
        ("good", 2, 15.0, 0),
        ("dent", 1, 50.0, 0),
        ("scratch", 1, 70.0, 1),
        ("unknown", 1, 90.0, 1),
    ]
    assert late.image_threshold == 60.0
    assert late.normalized_scores.tolist() == list(SCORES)


def test_every_anomalous_image_of_a_label_is_counted() -> None:
    found = label_summaries(scored(("good", "good", "dent"), (1.0, 2.0, 3.0)), np.array([True, True, False]))
    assert [(one.images, one.anomalous) for one in found.values()] == [(2, 2), (1, 0)]


def test_a_class_of_pixels_that_is_missing_is_named_as_pixels(tmp_path: Path) -> None:
    found = scored(("good", "dent"), (1.0, 2.0))
    only = replace(labelled(tmp_path, found), pixel=sort_by_class(floats(4), np.array([True])))
    thresholds = ThresholdValues(image=2.0, pixel=4.0)
    result = evaluate(found, only, thresholds, normalizer=ScoreNormalizer("none", thresholds, {}), metrics=Metrics())
    assert result.warnings == ("no good pixels among the labelled ones: pixel metrics are left out",)
    assert result.labelled is only


def test_the_mistake_that_is_furthest_from_the_threshold_comes_first() -> None:
    found = scored(("good", "dent", "good", "unknown"), (12.0, 1.0, 30.0, 99.0))
    worst = worst_mistakes(found, found.scores >= 10, 10.0)
    assert [mistake.score for mistake in worst] == [30.0, 1.0, 12.0]


def test_metrics_of_each_level_and_of_each_kind_of_defect(tmp_path: Path) -> None:
    """Image threshold 60: the dent is missed. Pixel threshold 1: one of the 14 good pixels is a false alarm."""
    metrics = Metrics(image=("AUROC", "Recall", "Precision", "Accuracy"), pixel=("AUROC", "Recall", "Precision", "IoU"))
    found = evaluated(tmp_path, ThresholdValues(image=60.0, pixel=1.0), metrics)
    assert found.metrics.image == {"AUROC": 1.0, "Recall": 0.5, "Precision": 1.0, "Accuracy": 0.75}
    third = pytest.approx(2 / 3)
    assert found.metrics.pixel == {"AUROC": 1.0, "Recall": 1.0, "Precision": third, "IoU": third}
    assert set(found.metrics_by_defect) == {"dent", "scratch"}
    dent, scratch = found.metrics_by_defect["dent"], found.metrics_by_defect["scratch"]
    assert dent.image == {"AUROC": 1.0, "Recall": 0.0, "Precision": 0.0, "Accuracy": pytest.approx(2 / 3)}
    assert scratch.image == {"AUROC": 1.0, "Recall": 1.0, "Precision": 1.0, "Accuracy": 1.0}
    assert dent.pixel == scratch.pixel == {"AUROC": 1.0, "Recall": 1.0, "Precision": 0.5, "IoU": 0.5}
    assert found.warnings == ("said before",)


WITHOUT_DEFECTS = (
    "no labelled image is defective: image AUROC, AUPR, F1Score, Precision, Recall and pixel AUROC, AUPR, F1Score are "
    "left out"
)


@pytest.mark.parametrize(
    ("labels", "warnings"),
    [
        (("good", "good"), [WITHOUT_DEFECTS]),
        (("dent", "scratch"), ["no good images among the"]),
    ],
)
def test_a_missing_class_is_named_for_each_level(labels: Sequence[str], warnings: list[str], tmp_path: Path) -> None:
    found = evaluated(tmp_path, ThresholdValues(image=60.0, pixel=1.0), found=scored(labels, (1.0, 2.0)))
    said, *more = found.warnings
    assert said == "said before"
    assert [told.partition(" labelled ones")[0] for told in more] == warnings
    assert found.metrics.image == {}
    assert found.intervals == {}


def test_the_histogram_has_forty_bins_of_equal_width() -> None:
    """From 0 to 80, so each is 2 wide: 1.9 is in the first, 2 in the second and 80 in the last."""
    found = score_histogram(scored(("good", "good", "dent", "unknown"), (0.0, 1.9, 2.0, 80.0)))
    assert found.edges == tuple(float(2 * index) for index in range(41))
    assert (found.good, found.defect) == ((2, *[0] * 39), (0, 1, *[0] * 38))
    assert found.unknown == (*[0] * 39, 1)


def test_aupro_of_two_regions_by_hand() -> None:
    """Of ten good pixels, the highest two score 5: the rate at 5 is 0.2, beyond that 0.3 is reached by lower scores.

    The first region, one pixel of 9, is found from rate 0 on: 0.3. The second has two pixels: one of 9, and one of 4,
    which is found from rate 0.2 on: (0.3 + 0.1) / 2. So the area is (0.3 + 0.2) / 2, of 0.3.
    """
    good = np.sort(floats(1, 1, 1, 1, 1, 1, 1, 1, 5, 5))
    scores = np.array([[9, 1, 1, 9], [1, 1, 1, 4]], np.float32)
    mask = np.array([[True, False, False, True], [False, False, False, True]])
    assert aupro([(scores, mask)], good) == pytest.approx((0.3 + 0.2) / 2 / 0.3)


def test_pixels_that_touch_by_a_corner_are_one_region() -> None:
    """Nine of ten good pixels score 1, so each pixel of 4 is found from rate 0.1 on, and each of 9 from rate 0 on.

    One region of two pixels, of 9 and of 4: (0.3 + 0.2) / 2. As two regions it would be the same; so a third pixel of 4
    lies beside the first: (0.3 + 0.2 + 0.2) / 3 as one region, ((0.3 + 0.2) / 2 + 0.2) / 2 as two.
    """
    good = np.sort(floats(1, 1, 1, 1, 1, 1, 1, 1, 1, 5))
    scores, mask = np.array([[9, 4, 1], [1, 1, 4]], np.float32), np.array([[True, True, False], [False, False, True]])
    assert aupro([(scores, mask)], good) == pytest.approx((0.3 + 0.2 + 0.2) / 3 / 0.3)


def test_aupro_counts_a_rate_of_nought_point_three_and_no_more() -> None:
    """A region that is found from a rate of 0.3 on has no area; of one at the ties from 0.2 to 0.4, a triangle.

    The triangle's overlap grows by 1 within 0.2; up to 0.3 it is half a square of 0.1 by 0.5.
    """
    at_limit = np.sort(floats(*[1] * 7, *[5] * 3))
    assert aupro([(np.full((1, 1), 4, np.float32), np.ones((1, 1), bool))], at_limit) == 0.0
    tied = np.sort(floats(*[1] * 6, 4, 4, 5, 5))
    found = aupro([(np.full((1, 1), 4, np.float32), np.ones((1, 1), bool))], tied)
    assert found == pytest.approx(0.1 * 0.5 / 2 / 0.3)


def psi(defect: float, good: float) -> float:
    return 1.0 if defect > good else 0.5 if defect == good else 0.0


def test_the_interval_of_the_auroc_by_delongs_own_formula() -> None:
    """DeLong, DeLong and Clarke-Pearson (1988), equations 4 to 6: sums over all pairs, with a tie."""
    defects, goods = [4.0, 2.0, 7.0, 3.0], [1.0, 2.0, 5.0]
    auroc = np.mean([[psi(defect, good) for good in goods] for defect in defects])
    by_defect = [np.mean([psi(defect, good) for good in goods]) for defect in defects]
    by_good = [np.mean([psi(defect, good) for defect in defects]) for good in goods]
    variance = sum((one - auroc) ** 2 for one in by_defect) / (3 * 4)
    variance += sum((one - auroc) ** 2 for one in by_good) / (2 * 3)
    scores, positive = floats(*defects, *goods), np.arange(7) < 4
    half = 1.959964 * variance**0.5
    assert auroc_interval(sort_by_class(scores, positive)) == pytest.approx(
        (auroc - half, min(auroc + half, 1)), abs=1e-6
    )


def test_two_images_of_each_class_have_an_interval_and_one_has_none() -> None:
    four = sort_by_class(floats(1, 3, 2, 4), np.arange(4) % 2 == 1)
    assert auroc_interval(four) is not None
    assert auroc_interval(sort_by_class(floats(1, 3, 2), np.array([False, True, True]))) is None
    assert auroc_interval(sort_by_class(floats(1, 3, 2), np.array([False, False, True]))) is None


@pytest.mark.parametrize(("part", "whole"), [(0, 1), (1, 1), (3, 7), (20, 25), (49, 50)])
def test_intervals_of_shares_are_scipys(part: int, whole: int) -> None:
    expected = binomtest(part, whole).proportion_ci(0.95, "wilson")
    assert share_interval(part, whole) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert share_interval(0, 0) is None


def test_each_image_metric_has_the_interval_of_its_share() -> None:
    """20 of 30 defects are found, with 5 false alarms on 30 good images."""
    ranked = sort_by_class(np.arange(60, dtype=np.float32), np.arange(60) < 30)
    found = image_intervals(
        ranked, ConfusionCounts(true_positive=20, false_positive=5, true_negative=25, false_negative=10)
    )
    for name, part, whole in (("Precision", 20, 25), ("Recall", 20, 30), ("Accuracy", 45, 60)):
        expected = binomtest(part, whole).proportion_ci(0.95, "wilson")
        assert found[name] == pytest.approx((expected.low, expected.high), abs=1e-12)
    nothing = ConfusionCounts(true_positive=0, false_positive=0, true_negative=30, false_negative=30)
    assert set(image_intervals(ranked, nothing)) == {"AUROC", "Recall", "Accuracy"}
