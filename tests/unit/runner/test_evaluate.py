"""Thresholds, decisions, normalised scores; pixel metrics against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from anomaly_api.evaluation import Evaluation, Metrics, Threshold
from anomaly_api.inference import InferenceThreshold
from anomaly_api.status import ThresholdValues
from anomaly_runner.dataset import Sample
from anomaly_runner.evaluate import (
    ScoreScale,
    evaluate,
    experiment_scale,
    experiment_thresholds,
    rank_truth,
    score_range,
)
from anomaly_runner.inference import inference_thresholds
from anomaly_runner.predict import Predictions

SHAPE = (16, 12)


def predictions(labels, seed=0):
    random = np.random.default_rng(seed)
    samples = tuple(Sample(f"test/{label}/{index}.png", label) for index, label in enumerate(labels))
    maps = np.round(random.normal(10, 3, (len(labels), *SHAPE)), 1).astype(np.float32)
    for index, sample in enumerate(samples):
        if sample.defect:
            maps[index][truth(sample)] += np.float32(4)
    return Predictions(samples, maps.max((1, 2)), maps, (float(maps.min()), float(maps.max())))


def truth(sample):
    mask = np.zeros(SHAPE, bool)
    if sample.defect:
        mask[3:8, 2:9] = True
    return mask


LABELS = ["good"] * 6 + ["dent"] * 4 + ["unknown"] * 3 + ["scratch"] * 3


def evaluated(found, tmp_path, spec=None, masks=truth):
    spec = spec or Evaluation()
    ranked = rank_truth(found, masks, tmp_path)
    thresholds, warnings = experiment_thresholds(spec.threshold, ranked)
    scale = experiment_scale(spec, thresholds, score_range(found))
    return evaluate(found, ranked, thresholds, scale=scale, metrics=Metrics(pixel=Metrics().image), warnings=warnings)


def test_image_and_pixel_metrics_equal_scikit_learn_and_leave_unknown_out(tmp_path):
    found = predictions(LABELS)
    result = evaluated(found, tmp_path)
    known = [index for index, sample in enumerate(found.samples) if sample.defect is not None]
    image_labels = [found.samples[index].defect for index in known]
    pixel_labels = np.stack([truth(found.samples[index]) for index in known]).ravel()
    pixel_scores = found.maps[known].ravel()
    for level, labels, scores in (("image", image_labels, found.scores[known]), ("pixel", pixel_labels, pixel_scores)):
        values = getattr(result.metrics, level)
        assert values["AUROC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
        assert values["AUPR"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
        threshold = getattr(result.thresholds, level)
        assert values["F1Score"] == pytest.approx(f1_score(labels, scores >= threshold), abs=1e-9)


def test_confusion_and_label_summaries(tmp_path):
    found = predictions(LABELS)
    result = evaluated(found, tmp_path)
    matrix = result.confusion
    total = matrix.true_negatives + matrix.false_positives + matrix.false_negatives + matrix.true_positives
    assert total == 13
    assert list(result.labels) == ["good", "dent", "scratch", "unknown"]
    assert result.labels["unknown"].images == 3
    assert result.labels["good"].anomalous == matrix.false_positives
    assert result.labels["dent"].mean_score == pytest.approx(found.scores[6:10].mean(dtype=float), abs=1e-12)


def test_manual_thresholds(tmp_path):
    spec = Evaluation(threshold=Threshold(method="manual", image=15.0))
    result = evaluated(predictions(LABELS), tmp_path, spec)
    assert result.thresholds == ThresholdValues(image=15.0, pixel=15.0, source="manual")
    spec = Evaluation(threshold=Threshold(method="manual", image=15.0, pixel=12.5))
    assert evaluated(predictions(LABELS), tmp_path, spec).thresholds.pixel == 12.5


def test_a_score_at_the_threshold_is_anomalous(tmp_path):
    found = predictions(["good", "dent"])
    found.scores[:] = [1.0, 2.0]
    result = evaluated(found, tmp_path, masks=None)
    assert result.thresholds.image == 2.0
    assert result.anomalous.tolist() == [False, True]
    assert result.metrics.image["F1Score"] == 1.0


def test_without_defects_the_threshold_alarms_on_nothing_and_metrics_are_left_out(tmp_path):
    result = evaluated(predictions(["good"] * 4), tmp_path, masks=None)
    assert not result.anomalous.any()
    assert result.metrics.image == {}
    assert len(result.warnings) == 2
    assert result.confusion.true_negatives == 4


def test_without_good_images_metrics_are_left_out(tmp_path):
    result = evaluated(predictions(["dent"] * 4), tmp_path, masks=None)
    assert result.anomalous.all()
    assert result.metrics.image == {}


def test_constant_scores(tmp_path):
    found = predictions(LABELS)
    found.scores[:] = 5.0
    result = evaluated(found, tmp_path, masks=None)
    assert result.metrics.image["AUROC"] == 0.5
    assert result.anomalous.all()
    assert set(result.shown) == {0.5}


@pytest.mark.parametrize(("method", "at_threshold"), [("minMax", 0.5), ("threshold", 100.0)])
def test_normalised_scores_cross_the_threshold_with_the_decision(tmp_path, method, at_threshold):
    found = predictions(LABELS)
    result = evaluated(found, tmp_path, Evaluation(normalization=method))
    assert np.array_equal(result.shown >= at_threshold, result.anomalous)
    assert np.array_equal(np.argsort(result.shown, kind="stable"), np.argsort(found.scores, kind="stable"))
    if method == "minMax":
        assert result.shown.min() >= 0
        assert result.shown.max() <= 1


def test_raw_scores_stay_as_they_are(tmp_path):
    found = predictions(LABELS)
    assert np.array_equal(evaluated(found, tmp_path, Evaluation(normalization="none")).shown, found.scores)


def test_threshold_type_picks_the_threshold_of_pixel_scores():
    thresholds = ThresholdValues(image=20.0, pixel=10.0)
    scores = np.array([5.0, 10.0, 20.0], np.float32)
    ranges = {"image": (0.0, 40.0), "pixel": (0.0, 40.0)}
    assert ScoreScale("threshold", thresholds, ranges, "image").pixel(scores).tolist() == [25, 50, 100]
    assert ScoreScale("threshold", thresholds, ranges, "pixel").pixel(scores).tolist() == [50, 100, 200]


TRAINING = ThresholdValues(image=20.0, pixel=10.0, source="adaptive")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (InferenceThreshold(source="training"), ThresholdValues(image=20.0, pixel=10.0, source="training")),
        (InferenceThreshold(source="custom", value=100), ThresholdValues(image=20.0, pixel=10.0, source="custom")),
        (InferenceThreshold(source="custom", value=120), ThresholdValues(image=24.0, pixel=10.0, source="custom")),
        (InferenceThreshold(source="custom", type="pixel", value=50),
         ThresholdValues(image=20.0, pixel=5.0, source="custom")),
    ],
)  # fmt: skip
def test_inference_thresholds_from_training(spec, expected, tmp_path):
    ranked = rank_truth(predictions(LABELS), None, tmp_path)
    assert inference_thresholds(spec, TRAINING, ranked) == (expected, ())


def test_optimal_f1_on_the_images_of_the_run(tmp_path):
    found = predictions(LABELS)
    image = rank_truth(found, None, tmp_path)
    values, warnings = inference_thresholds(InferenceThreshold(), TRAINING, image)
    assert (values.source, values.pixel, warnings) == ("optimalF1", 10.0, ())
    assert values.image in found.scores
    both = rank_truth(found, truth, tmp_path)
    values, _ = inference_thresholds(InferenceThreshold(type="pixel"), TRAINING, both)
    assert values.image == 20.0
    assert values.pixel in found.maps


@pytest.mark.parametrize("labels", [["unknown"] * 3, ["good"] * 3, ["dent"] * 3])
@pytest.mark.parametrize("level", ["image", "pixel"])
def test_optimal_f1_without_labels_of_both_classes_falls_back_and_says_so(labels, level, tmp_path):
    ranked = rank_truth(predictions(labels), None, tmp_path)
    values, warnings = inference_thresholds(InferenceThreshold(type=level), TRAINING, ranked)
    assert values == TRAINING.model_copy(update={"source": "training"})
    assert "training threshold is used" in warnings[0]
