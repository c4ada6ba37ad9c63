"""Thresholds, decisions, normalised scores; metrics against scikit-learn on raw scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    jaccard_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

from anomaly_api.evaluation import Evaluation, Metrics, Threshold
from anomaly_api.inference import InferenceThreshold
from anomaly_api.status import ThresholdValues
from anomaly_runner.data.masks import MaskReader
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import DataInvalid
from anomaly_runner.evaluation.evaluate import EvaluationResult, evaluate
from anomaly_runner.evaluation.inference_thresholds import inference_thresholds
from anomaly_runner.evaluation.labelled import sort_labelled_scores
from anomaly_runner.evaluation.normalize import ScoreNormalizer, experiment_normalizer, score_range
from anomaly_runner.evaluation.synthetic import marked_synthetic, with_synthetic_metrics
from anomaly_runner.evaluation.thresholds import experiment_thresholds
from anomaly_runner.scoring.predict import Predictions
from support.optional import not_none

SHAPE = (16, 12)


def predictions(labels: Sequence[str], seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    samples = tuple(Sample(f"test/{label}/{index}.png", label) for index, label in enumerate(labels))
    maps = np.round(random.normal(10, 3, (len(labels), *SHAPE)), 1).astype(np.float32)
    for index, sample in enumerate(samples):
        if sample.defect:
            maps[index][truth(sample)] += np.float32(4)
    max_pixel_scores = maps.max((1, 2))
    return Predictions(
        samples,
        max_pixel_scores.copy(),
        maps,
        (float(maps.min()), float(maps.max())),
        max_pixel_scores=max_pixel_scores,
    )


def truth(sample: Sample) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    if sample.defect:
        mask[3:8, 2:9] = True
    return mask


LABELS = ["good"] * 6 + ["dent"] * 4 + ["unknown"] * 3 + ["scratch"] * 3


def evaluated(
    found: Predictions, tmp_path: Path, spec: Evaluation | None = None, masks: MaskReader | None = truth
) -> EvaluationResult:
    spec = spec or Evaluation()
    labelled = sort_labelled_scores(found, masks, tmp_path)
    thresholds, warnings = experiment_thresholds(spec.threshold, labelled)
    normalizer = experiment_normalizer(spec, thresholds, score_range(found))
    return evaluate(
        found, labelled, thresholds, normalizer=normalizer, metrics=Metrics(pixel=Metrics().image), warnings=warnings
    )


def test_image_and_pixel_metrics_equal_scikit_learn_and_leave_unknown_out(tmp_path: Path) -> None:
    found = predictions(LABELS)
    result = evaluated(found, tmp_path)
    known = [index for index, sample in enumerate(found.samples) if sample.defect is not None]
    image_labels = [found.samples[index].defect for index in known]
    pixel_labels = np.stack([truth(found.samples[index]) for index in known]).ravel()
    pixel_scores = not_none(found.maps)[known].ravel()
    for level, labels, scores in (("image", image_labels, found.scores[known]), ("pixel", pixel_labels, pixel_scores)):
        values = getattr(result.metrics, level)
        assert values["AUROC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
        assert values["AUPR"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
        threshold = getattr(result.thresholds, level)
        assert values["F1Score"] == pytest.approx(f1_score(labels, scores >= threshold), abs=1e-9)


def test_confusion_and_label_summaries(tmp_path: Path) -> None:
    found = predictions(LABELS)
    result = evaluated(found, tmp_path)
    matrix = not_none(result.confusion)
    total = matrix.true_negatives + matrix.false_positives + matrix.false_negatives + matrix.true_positives
    assert total == 13
    assert list(result.labels) == ["good", "dent", "scratch", "unknown"]
    assert result.labels["unknown"].images == 3
    assert result.labels["good"].anomalous == matrix.false_positives
    assert result.labels["dent"].mean_score == pytest.approx(found.scores[6:10].mean(dtype=float), abs=1e-12)


def test_manual_thresholds(tmp_path: Path) -> None:
    spec = Evaluation(threshold=Threshold(method="manual", image=15.0))
    result = evaluated(predictions(LABELS), tmp_path, spec)
    assert result.thresholds == ThresholdValues(image=15.0, pixel=15.0, source="manual")
    spec = Evaluation(threshold=Threshold(method="manual", image=15.0, pixel=12.5))
    assert evaluated(predictions(LABELS), tmp_path, spec).thresholds.pixel == 12.5


def test_a_score_at_the_threshold_is_anomalous(tmp_path: Path) -> None:
    found = predictions(["good", "dent"])
    found.scores[:] = [1.0, 2.0]
    result = evaluated(found, tmp_path, masks=None)
    assert result.thresholds.image == 2.0
    assert result.anomalous.tolist() == [False, True]
    assert result.metrics.image["F1Score"] == 1.0


def test_without_defects_the_threshold_alarms_on_nothing_and_metrics_are_left_out(tmp_path: Path) -> None:
    result = evaluated(predictions(["good"] * 4), tmp_path, masks=None)
    assert not result.anomalous.any()
    assert result.metrics.image == {}
    assert len(result.warnings) == 2
    assert not_none(result.confusion).true_negatives == 4


def test_without_good_images_metrics_are_left_out(tmp_path: Path) -> None:
    result = evaluated(predictions(["dent"] * 4), tmp_path, masks=None)
    assert result.anomalous.all()
    assert result.metrics.image == {}


def test_constant_scores(tmp_path: Path) -> None:
    found = predictions(LABELS)
    found.scores[:] = 5.0
    result = evaluated(found, tmp_path, masks=None)
    assert result.metrics.image["AUROC"] == 0.5
    assert result.anomalous.all()
    assert set(result.normalized_scores) == {0.5}


@pytest.mark.parametrize(("method", "at_threshold"), [("minMax", 0.5), ("threshold", 100.0)])
def test_normalised_scores_cross_the_threshold_with_the_decision(
    tmp_path: Path, method: Literal["minMax", "threshold"], at_threshold: float
) -> None:
    found = predictions(LABELS)
    result = evaluated(found, tmp_path, Evaluation(normalization=method))
    assert np.array_equal(result.normalized_scores >= at_threshold, result.anomalous)
    assert np.array_equal(np.argsort(result.normalized_scores, kind="stable"), np.argsort(found.scores, kind="stable"))
    if method == "minMax":
        assert result.normalized_scores.min() >= 0
        assert result.normalized_scores.max() <= 1


def test_raw_scores_stay_as_they_are(tmp_path: Path) -> None:
    found = predictions(LABELS)
    assert np.array_equal(evaluated(found, tmp_path, Evaluation(normalization="none")).normalized_scores, found.scores)


def test_threshold_type_picks_the_threshold_of_pixel_scores() -> None:
    thresholds = ThresholdValues(image=20.0, pixel=10.0)
    scores = np.array([5.0, 10.0, 20.0], np.float32)
    ranges = {"image": (0.0, 40.0), "pixel": (0.0, 40.0)}
    assert ScoreNormalizer("threshold", thresholds, ranges, "image").pixel(scores).tolist() == [25, 50, 100]
    assert ScoreNormalizer("threshold", thresholds, ranges, "pixel").pixel(scores).tolist() == [50, 100, 200]


TRAINING = ThresholdValues(image=20.0, pixel=10.0, source="adaptive")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (InferenceThreshold(source="training"), ThresholdValues(image=20.0, pixel=10.0, source="training")),
        (InferenceThreshold(source="custom", value=100), ThresholdValues(image=20.0, pixel=10.0, source="custom")),
        (InferenceThreshold(source="custom", value=120), ThresholdValues(image=24.0, pixel=10.0, source="custom")),
        (
            InferenceThreshold(source="custom", type="pixel", value=50),
            ThresholdValues(image=20.0, pixel=5.0, source="custom"),
        ),
    ],
)
def test_inference_thresholds_from_training(
    spec: InferenceThreshold, expected: ThresholdValues, tmp_path: Path
) -> None:
    labelled = sort_labelled_scores(predictions(LABELS), None, tmp_path)
    assert inference_thresholds(spec, TRAINING, labelled) == (expected, ())


def best_by_scikit_learn(labels: NDArray[np.bool_], scores: NDArray[np.float32], threshold: float) -> bool:
    """Whether no threshold has a higher F1."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-30))
    return bool(abs(f1_score(labels, scores >= threshold) - best) < 1e-12)


def test_optimal_f1_on_the_images_of_the_run(tmp_path: Path) -> None:
    found = predictions(LABELS)
    image = sort_labelled_scores(found, None, tmp_path)
    values, warnings = inference_thresholds(InferenceThreshold(), TRAINING, image)
    assert (values.source, values.pixel, warnings) == ("optimalF1", 10.0, ())
    known = [index for index, sample in enumerate(found.samples) if sample.defect is not None]
    defects = np.array([bool(found.samples[index].defect) for index in known])
    assert best_by_scikit_learn(defects, found.scores[known], not_none(values.image))
    both = sort_labelled_scores(found, truth, tmp_path)
    values, _ = inference_thresholds(InferenceThreshold(type="pixel"), TRAINING, both)
    assert values.image == 20.0
    masks = np.stack([truth(found.samples[index]) for index in known]).ravel()
    assert best_by_scikit_learn(masks, not_none(found.maps)[known].ravel(), not_none(values.pixel))


@pytest.mark.parametrize("labels", [["unknown"] * 3, ["good"] * 3, ["dent"] * 3])
@pytest.mark.parametrize("level", ["image", "pixel"])
def test_optimal_f1_without_labels_of_both_classes_falls_back_and_says_so(
    labels: list[str], level: Literal["image", "pixel"], tmp_path: Path
) -> None:
    labelled = sort_labelled_scores(predictions(labels), None, tmp_path)
    values, warnings = inference_thresholds(InferenceThreshold(type=level), TRAINING, labelled)
    assert values == TRAINING.model_copy(update={"source": "training"})
    assert "training threshold is used" in warnings[0]


def negatives(count: int = 400, seed: int = 4) -> tuple[NDArray[np.float32], float]:
    """Return scores like those of flows, all below zero, and a threshold."""
    random = np.random.default_rng(seed)
    scores = (random.normal(size=count) * 3 - 40).astype(np.float32)
    return scores, float(scores[count // 2])


@pytest.mark.parametrize("method", ["minMax", "threshold"])
def test_negative_scores_keep_their_order_and_their_side(method: Literal["minMax", "threshold"]) -> None:
    scores, threshold = negatives()
    thresholds = ThresholdValues(image=threshold, pixel=threshold)
    ends = (float(scores.min()), float(scores.max()))
    shown = ScoreNormalizer(method, thresholds, {"image": ends, "pixel": ends}).image(scores)
    assert (np.diff(shown[np.argsort(scores)]) >= 0).all()
    assert np.array_equal(shown >= (0.5 if method == "minMax" else 100.0), scores >= threshold)


def quadra(raw: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Normalise as quadra does by a threshold other than 0, without its clipping."""
    return raw / threshold * 100.0 if threshold > 0 else 200.0 - raw / threshold * 100.0


@pytest.mark.parametrize("threshold", [-40.25, 12.5])
def test_percent_of_a_threshold_is_quadras(threshold: float) -> None:
    scores = np.linspace(-60, 60, 41).astype(np.float32)
    shown = ScoreNormalizer("threshold", ThresholdValues(image=threshold), {}).image(scores)
    assert shown == pytest.approx(quadra(scores.astype(float), threshold), abs=1e-9)


@pytest.mark.parametrize("threshold", [-40.25, 12.5, 0.0])
@pytest.mark.parametrize("percent", [50, 100, 130])
def test_a_custom_threshold_is_where_that_percentage_is_shown(threshold: float, percent: float, tmp_path: Path) -> None:
    training = ThresholdValues(image=threshold, pixel=threshold)
    ranges = {"image": (-60.0, 20.0), "pixel": (-60.0, 20.0)}
    labelled = sort_labelled_scores(predictions(LABELS), None, tmp_path)
    spec = InferenceThreshold(source="custom", value=percent)
    found, _ = inference_thresholds(spec, training, labelled, ranges)
    shown = ScoreNormalizer("threshold", training, ranges).image(np.array([found.image], np.float32))
    assert shown == pytest.approx([percent], abs=1e-5)


def test_rounding_lifts_no_score_onto_the_threshold() -> None:
    threshold = 1.0
    below = np.nextafter(np.float32(threshold), np.float32(0))
    normalizer = ScoreNormalizer("minMax", ThresholdValues(image=threshold), {"image": (0.0, 1e12)})
    shown = normalizer.image(np.array([below, threshold], np.float32))
    assert shown[0] < 0.5 <= shown[1]


RANKED = ("AUROC", "AUPR", "F1Score", "F1Max", "Precision", "Recall")
EVERYTHING = Metrics(image=(*RANKED, "Accuracy"), pixel=(*RANKED, "AUPRO", "IoU", "Dice"))


def evaluate_everything(
    found: Predictions, tmp_path: Path, valid: NDArray[np.bool_] | None = None, threshold: Threshold | None = None
) -> EvaluationResult:
    """Evaluate all metrics, with thresholds that are not optimal."""
    labelled = sort_labelled_scores(found, truth, tmp_path, valid)
    thresholds, _ = experiment_thresholds(threshold or Threshold(method="manual", image=20.0, pixel=14.0), labelled)
    normalizer = experiment_normalizer(Evaluation(), thresholds, score_range(found))
    return evaluate(found, labelled, thresholds, normalizer=normalizer, metrics=EVERYTHING)


def reference(labels: ArrayLike, scores: ArrayLike, threshold: float) -> dict[str, float]:
    """Return metrics by scikit-learn on raw scores."""
    labels, scores = np.asarray(labels, bool), np.asarray(scores, np.float64)
    decided = scores >= threshold
    precision, recall, _ = precision_recall_curve(labels, scores)
    return {
        "AUROC": roc_auc_score(labels, scores),
        "AUPR": average_precision_score(labels, scores),
        "F1Score": f1_score(labels, decided),
        "F1Max": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-30)),
        "Precision": precision_score(labels, decided, zero_division=0),
        "Recall": recall_score(labels, decided),
        "Accuracy": accuracy_score(labels, decided),
        "IoU": jaccard_score(labels, decided),
        "Dice": f1_score(labels, decided),
    }


def expected_metrics(
    found: Predictions,
    chosen: Sequence[int],
    level: Literal["image", "pixel"],
    threshold: float,
    valid: NDArray[np.bool_] | None,
) -> dict[str, float]:
    """Return the reference metrics of the chosen images at one level."""
    if level == "image":
        return reference([bool(found.samples[index].defect) for index in chosen], found.scores[chosen], threshold)
    masks = np.stack([truth(found.samples[index]) for index in chosen])
    where = np.ones(SHAPE, bool) if valid is None else valid
    return reference(masks[:, where].ravel(), not_none(found.maps)[chosen][:, where].ravel(), threshold)


def right_half() -> NDArray[np.bool_]:
    valid = np.zeros(SHAPE, bool)
    valid[:, 5:] = True
    return valid


@pytest.mark.parametrize("level", ["image", "pixel"])
@pytest.mark.parametrize("valid", [None, right_half()], ids=["all", "valid"])
def test_every_metric_equals_scikit_learn(
    level: Literal["image", "pixel"], valid: NDArray[np.bool_] | None, tmp_path: Path
) -> None:
    found = predictions(LABELS)
    result = evaluate_everything(found, tmp_path, valid)
    known = [index for index, sample in enumerate(found.samples) if sample.defect is not None]
    expected = expected_metrics(found, known, level, 20.0 if level == "image" else 14.0, valid)
    values = getattr(result.metrics, level)
    assert set(values) == set(getattr(EVERYTHING, level))
    for name in set(values) - {"AUPRO"}:  # which scikit-learn does not have: test_regions
        assert values[name] == pytest.approx(expected[name], abs=1e-9)


def test_iou_and_dice_from_counts(tmp_path: Path) -> None:
    found = predictions(LABELS)
    values = evaluate_everything(found, tmp_path).metrics.pixel
    known = [index for index, sample in enumerate(found.samples) if sample.defect is not None]
    masks = np.stack([truth(found.samples[index]) for index in known])
    said = not_none(found.maps)[known] >= 14.0
    assert values["IoU"] == pytest.approx(jaccard_score(masks.ravel(), said.ravel()), abs=1e-12)
    assert values["Dice"] == pytest.approx(2 * (masks & said).sum() / (masks.sum() + said.sum()), abs=1e-12)


@pytest.mark.parametrize("label", ["dent", "scratch"])
def test_metrics_of_one_kind_of_defect(label: str, tmp_path: Path) -> None:
    found = predictions(LABELS)
    result = evaluate_everything(found, tmp_path)
    chosen = [index for index, sample in enumerate(found.samples) if sample.label in ("good", label)]
    expected = expected_metrics(found, chosen, "image", 20.0, None)
    values = result.metrics_by_defect[label].image
    assert values == {name: pytest.approx(expected[name], abs=1e-9) for name in EVERYTHING.image}
    masks = np.stack([truth(sample) for sample in found.samples])
    good = np.concatenate(
        [
            not_none(found.maps)[index][~masks[index]]
            for index, sample in enumerate(found.samples)
            if sample.defect is not None
        ]
    )
    bad = np.concatenate([not_none(found.maps)[index][masks[index]] for index in chosen])
    expected = reference(np.arange(len(bad) + len(good)) < len(bad), np.concatenate([bad, good]), 14.0)
    pixel = result.metrics_by_defect[label].pixel
    assert pixel == {name: pytest.approx(expected[name], abs=1e-9) for name in EVERYTHING.pixel if name != "AUPRO"}


def test_intervals_are_those_that_were_asked_for(tmp_path: Path) -> None:
    found = predictions(LABELS)
    result = evaluate_everything(found, tmp_path)
    assert set(result.intervals) == {"AUROC", "Precision", "Recall", "Accuracy"}
    for name, (low, high) in result.intervals.items():
        assert 0 <= low <= result.metrics.image[name] <= high <= 1
    labelled = sort_labelled_scores(found, None, tmp_path)
    metrics = Metrics(image=("Recall",), confidence_intervals=False)
    assert evaluate(found, labelled, result.thresholds, normalizer=result.normalizer, metrics=metrics).intervals == {}
    metrics = Metrics(image=("Recall",))
    assert set(
        evaluate(found, labelled, result.thresholds, normalizer=result.normalizer, metrics=metrics).intervals
    ) == {"Recall"}


def test_the_histogram_counts_every_image_once(tmp_path: Path) -> None:
    found = predictions(LABELS)
    histogram = not_none(evaluate_everything(found, tmp_path).histogram)
    assert (sum(histogram.good), sum(histogram.defect), sum(histogram.unknown)) == (6, 7, 3)
    assert len(histogram.edges) == len(histogram.good) + 1
    assert (histogram.edges[0], histogram.edges[-1]) == (found.scores.min(), found.scores.max())
    assert not_none(evaluate_everything(predictions(["good", "dent"]), tmp_path).histogram).unknown == ()


def test_mistakes_are_the_worst_first_and_a_hundred_at_most(tmp_path: Path) -> None:
    found = predictions(["good"] * 130 + ["dent"] * 130)
    found.scores[:] = np.random.default_rng(0).permutation(found.scores)  # as many mistakes as right decisions
    result = evaluate_everything(
        found, tmp_path, threshold=Threshold(method="manual", image=float(np.median(found.scores)))
    )
    wrong = {
        sample.key: abs(float(score) - not_none(result.thresholds.image))
        for sample, score, said in zip(found.samples, found.scores, result.anomalous, strict=True)
        if sample.defect != said
    }
    distances = [wrong[mistake.path] for mistake in result.mistakes]
    assert len(wrong) > 101
    assert distances == sorted(wrong.values(), reverse=True)[:100]
    assert "unknown" not in {mistake.label for mistake in evaluate_everything(predictions(LABELS), tmp_path).mistakes}


def test_pixels_outside_the_valid_area_change_nothing(tmp_path: Path) -> None:
    found, valid = predictions(LABELS), right_half()
    wild = not_none(found.maps).copy()
    wild[:, ~valid] = 1000
    other = Predictions(found.samples, found.scores, wild, found.pixel_range)
    assert evaluate_everything(found, tmp_path, valid).metrics == evaluate_everything(other, tmp_path, valid).metrics


@pytest.mark.parametrize("labels", [LABELS, ["good"] * 5])
def test_without_masks_pixels_have_a_threshold_of_their_own_scale(labels: list[str], tmp_path: Path) -> None:
    """The thresholds differ where image scores are not the highest pixel scores, and agree where they are."""
    found = predictions(labels)
    same = evaluated(found, tmp_path, masks=None).thresholds
    assert same.pixel == same.image
    found.scores[:] = 1000 + 5 * found.scores
    other = evaluated(found, tmp_path, masks=None)
    assert other.thresholds.pixel == same.pixel
    assert not_none(other.thresholds.image) > 1000
    raised = not_none(found.max_pixel_scores) >= not_none(other.thresholds.pixel)
    assert raised.tolist() == other.anomalous.tolist()


def test_good_masks_alone_are_no_reason_for_another_pixel_threshold(tmp_path: Path) -> None:
    good = predictions(["good"] * 5)
    highest = not_none(good.max_pixel_scores).max()
    assert evaluated(good, tmp_path).thresholds.pixel == np.nextafter(highest, np.float32(np.inf))


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_threshold_without_any_label(part: Literal["test", "validation"], tmp_path: Path) -> None:
    labelled = sort_labelled_scores(predictions(["unknown"] * 3), None, tmp_path)
    with pytest.raises(DataInvalid, match=f"no labelled {part} image can be read"):
        experiment_thresholds(Threshold(), labelled, part)
    assert experiment_thresholds(Threshold(method="manual", image=3.0), labelled, part)[0].image == 3.0


def test_warnings_name_the_images_that_thresholds_are_found_on(tmp_path: Path) -> None:
    labelled = sort_labelled_scores(predictions(["good"] * 3), None, tmp_path)
    _, warnings = experiment_thresholds(Threshold(), labelled, "validation")
    assert warnings == (
        "no defective validation images: the threshold is just above the highest good score; "
        "evaluation.threshold.method falseAlarmRate would promise a rate of false alarms",
    )


def test_the_range_is_that_of_all_scores() -> None:
    first, second = predictions(["good"] * 3, 1), predictions(["dent"] * 3, 2)
    every = np.concatenate([first.maps, second.maps])
    scores = np.concatenate([first.scores, second.scores])
    assert score_range(first, second) == {"image": (scores.min(), scores.max()), "pixel": (every.min(), every.max())}


def test_a_model_without_maps_has_image_metrics_alone(tmp_path: Path) -> None:
    found = predictions(LABELS)
    without = Predictions(found.samples, found.scores, None, None)
    labelled = sort_labelled_scores(without, None, tmp_path)
    thresholds, _ = experiment_thresholds(Threshold(), labelled)
    normalizer = experiment_normalizer(Evaluation(), thresholds, score_range(without))
    result = evaluate(without, labelled, thresholds, normalizer=normalizer, metrics=EVERYTHING)
    assert set(result.metrics.image) == set(EVERYTHING.image)
    assert result.metrics.pixel == {}
    assert thresholds.pixel is None
    assert set(normalizer.ranges) == {"image"}


def test_metrics_of_synthetic_defects_have_names_of_their_own_and_those_of_the_test_images_stay(tmp_path: Path) -> None:
    tested, validation = predictions(["good"] * 6, seed=1), predictions(LABELS, seed=2)
    metrics = Metrics(image=("AUROC", "F1Score"), pixel=("AUPR", "IoU"))
    thresholds = ThresholdValues(image=20.0, pixel=14.0, source="adaptive")
    normalizer = experiment_normalizer(Evaluation(), thresholds, score_range(tested))
    labelled = sort_labelled_scores(tested, truth, tmp_path)
    before = evaluate(tested, labelled, thresholds, normalizer=normalizer, metrics=metrics)
    found = with_synthetic_metrics(before, sort_labelled_scores(validation, truth, tmp_path), metrics).metrics
    known = [index for index, sample in enumerate(validation.samples) if sample.defect is not None]
    labels = [validation.samples[index].defect for index in known]
    pixels = np.stack([truth(validation.samples[index]) for index in known]).ravel()
    assert (found.image, found.pixel) == ({}, {})
    assert found.synthetic == pytest.approx(
        {
            "imageAUROC": roc_auc_score(labels, validation.scores[known]),
            "pixelAUPR": average_precision_score(pixels, not_none(validation.maps)[known].ravel()),
        },
        abs=1e-9,
    )


@pytest.mark.parametrize(("source", "expected"), [("adaptive", True), ("recall", True), ("falseAlarmRate", None)])
def test_a_threshold_is_called_synthetic_where_a_defect_has_a_part_in_it(
    source: Literal["adaptive", "recall", "falseAlarmRate"], expected: bool | None
) -> None:
    assert marked_synthetic(ThresholdValues(image=1.0, source=source)).synthetic is expected
