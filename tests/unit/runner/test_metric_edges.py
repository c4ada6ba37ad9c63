"""Metrics and thresholds where something is missing, equal, at a limit or in parts; expected values are by hand."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly_api.evaluation import Metrics, Threshold
from anomaly_api.inference import InferenceThreshold
from anomaly_api.run import GoodScores
from anomaly_api.status import FalseAlarms, ThresholdValues
from anomaly_api.threshold_goals import DecisionCosts
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.errors import DataInvalid, InvalidConfig, ModelInvalid
from anomaly_runner.evaluation import curves
from anomaly_runner.evaluation.curves import ScoresByClass, best_f1_threshold, operating_points
from anomaly_runner.evaluation.evaluate import evaluate, metrics_of_levels
from anomaly_runner.evaluation.goals import cost_threshold, goal_threshold
from anomaly_runner.evaluation.good_scores import summarise_good
from anomaly_runner.evaluation.inference_thresholds import inference_thresholds
from anomaly_runner.evaluation.labelled import LabelledScores, sort_labelled_scores
from anomaly_runner.evaluation.left_out import without_defects
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.evaluation.synthetic import marked_synthetic
from anomaly_runner.evaluation.thresholds import check_goal, experiment_thresholds, image_threshold
from anomaly_runner.scoring.predict import Predictions
from support.optional import not_none

THRESHOLDS = ThresholdValues(image=2.0, pixel=2.0, source="adaptive")
NOTHING = np.empty(0, np.float32)


def by_class(positive: list[float], negative: list[float]) -> ScoresByClass:
    return ScoresByClass(np.array(positive, np.float32), np.array(negative, np.float32))


def in_parts(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Have the curves look at so few scores at a time, as they do at a million of them."""
    monkeypatch.setattr(curves, "_CHUNK", size)


def test_scores_that_are_equal_stay_in_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts(monkeypatch, 2)
    parts = operating_points(by_class([1, 2, 2, 3, 4], [2]))
    assert [part.threshold.tolist() for part in parts] == [[1, 2], [3, 4]]


def test_of_parts_with_the_same_f1_the_lowest_threshold_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1: two found, two false alarms, 4 / 6. At 3: one found, no false alarm, 2 / 3."""
    in_parts(monkeypatch, 1)
    assert best_f1_threshold(by_class([1, 3], [1.5, 2])) == 1


def test_of_parts_that_cost_the_same_the_lowest_threshold_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1 a false alarm, at 3 a miss."""
    in_parts(monkeypatch, 1)
    assert cost_threshold(by_class([1, 3], [2]), DecisionCosts(miss=1, false_alarm=1)) == 1


RARE = by_class([1, 1, 1, 1, 3], [0, 0, 0, 0, 2])
"""At 1 all is found with one false alarm; at 3 four of five are missed."""


@pytest.mark.parametrize(("share", "threshold"), [(0.25, 1), (0.05, 3)])
def test_the_share_of_defective_parts_weighs_misses_and_false_alarms(share: float, threshold: float) -> None:
    """Of 25 %: one alarm of five good parts 0.75 / 5, four misses of five 0.25 * 4 / 5. Of 5 %: 0.19 and 0.04."""
    costs = DecisionCosts(miss=1, false_alarm=1, defect_share=share)
    assert cost_threshold(RARE, costs) == threshold


def with_cost(share: float) -> Threshold:
    return Threshold(method="cost", cost=DecisionCosts(miss=1, false_alarm=1, defect_share=share))


def test_scores_are_those_of_images_unless_they_are_said_to_be_of_pixels() -> None:
    assert goal_threshold(with_cost(0.05), RARE) == 3
    assert goal_threshold(with_cost(0.05), RARE, pixels=True) == 1


def test_the_share_of_defective_parts_does_not_weigh_the_pixels_of_masks() -> None:
    masks = LabelledScores(RARE, RARE, max_pixel=RARE)
    assert experiment_thresholds(with_cost(0.05), masks)[0] == ThresholdValues(image=3, pixel=1, source="cost")
    # The highest pixel of each image is one number an image.
    images = LabelledScores(RARE, None, max_pixel=RARE)
    assert experiment_thresholds(with_cost(0.05), images)[0] == ThresholdValues(image=3, pixel=3, source="cost")


def test_just_enough_good_images_promise_the_rate_without_a_warning() -> None:
    spec = Threshold(method="falseAlarmRate", false_alarm_rate=0.1)
    _, warnings = experiment_thresholds(spec, LabelledScores(by_class([], list(range(9))), None))
    assert warnings == ()


def test_a_goal_names_the_class_that_it_lacks() -> None:
    spec = Threshold(method="recall", recall=0.9)
    with pytest.raises(DataInvalid, match="no good validation image can be read, and recall needs some"):
        experiment_thresholds(spec, LabelledScores(by_class([1], []), None), "validation")


def test_a_goal_without_defects_is_told_what_needs_none() -> None:
    good = Sample("test/good/0.png", "good")
    with pytest.raises(InvalidConfig, match=r"no test image is defective: falseAlarmRate needs none$"):
        check_goal(Threshold(method="recall", recall=0.9), DatasetIndex(train=(good,), test=(good,)))


def test_a_model_without_an_image_threshold() -> None:
    with pytest.raises(ModelInvalid, match=r"^the model has no image threshold from training$"):
        image_threshold(ThresholdValues(pixel=1.0))


def test_a_training_threshold_keeps_its_promise() -> None:
    promise = FalseAlarms(good_images=99, expected=0.01, low=0.0005, high=0.03)
    training = ThresholdValues(image=2.0, source="falseAlarmRate", false_alarms=promise)
    nothing = LabelledScores(by_class([], []), None)
    found, warnings = inference_thresholds(InferenceThreshold(source="training", type="image"), training, nothing)
    assert found == ThresholdValues(image=2.0, source="training", false_alarms=promise)
    assert warnings == ()


@pytest.mark.parametrize("source", ["manual", "falseAlarmRate"])
def test_a_threshold_that_no_defect_has_a_part_in_is_not_synthetic(source: Any) -> None:
    thresholds = ThresholdValues(image=2.0, source=source)
    assert marked_synthetic(thresholds) == thresholds


def scored(labels: list[str], maps: list[list[list[float]]]) -> Predictions:
    pixels = np.array(maps, np.float32)
    return Predictions(
        samples=tuple(Sample(f"test/{label}/{index}.png", label) for index, label in enumerate(labels)),
        scores=np.arange(len(labels), dtype=np.float32),
        maps=pixels,
        pixel_range=(float(pixels.min()), float(pixels.max())),
        max_pixel_scores=pixels.max((1, 2)),
    )


FOUND = scored(["good", "dent", "scratch"], [[[1, 2]], [[3, 4]], [[5, 6]]])
"""Image scores 0, 1 and 2; maps of one row."""


def second(sample: Sample) -> Any:
    return np.array([[False, bool(sample.defect)]])


@pytest.mark.parametrize("masks", [None, second])
def test_image_scores_are_kept_by_label_with_and_without_masks(masks: Any, tmp_path: Path) -> None:
    found = sort_labelled_scores(FOUND, masks, tmp_path)
    assert {label: scores.tolist() for label, scores in found.image_by_label.items()} == {
        "good": [0],
        "dent": [1],
        "scratch": [2],
    }
    kinds = {
        kind: (scores.positive.tolist(), scores.negative.tolist()) for kind, scores in found.image_by_defect.items()
    }
    assert kinds == {"dent": ([1], [0]), "scratch": ([2], [0])}


def test_pixels_are_sorted_in_files_of_the_folder_for_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []
    temporary_file = tempfile.TemporaryFile

    def noted(**settings: Any) -> Any:
        folders.append(settings["dir"])
        return temporary_file(**settings)

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    sort_labelled_scores(FOUND, second, tmp_path)
    # Of good pixels, of each kind of defect, and of all kinds.
    assert folders == [tmp_path] * 4


def test_a_defect_without_a_pixel_has_no_scores(tmp_path: Path) -> None:
    found = sort_labelled_scores(FOUND, lambda _: np.array([[False, False]]), tmp_path)
    for scores in (not_none(found.pixel), *found.pixel_by_defect.values()):
        assert scores.positive.size == 0
        assert scores.positive.dtype == np.float32
    metrics, warnings = metrics_of_levels(found, Metrics(), THRESHOLDS)
    assert metrics.pixel == {}
    assert warnings == ("no defective pixels among the labelled ones: pixel metrics are left out",)


def test_without_a_good_pixel_there_is_no_region_to_tell_from(tmp_path: Path) -> None:
    found = sort_labelled_scores(scored(["dent"], [[[3, 4]]]), lambda _: np.array([[True, True]]), tmp_path)
    assert found.aupro() is None


def test_each_map_belongs_to_a_sample(tmp_path: Path) -> None:
    maps = np.asarray(FOUND.maps)[:2]
    with pytest.raises(ValueError, match="shorter"):
        sort_labelled_scores(replace(FOUND, maps=maps), second, tmp_path)
    found = sort_labelled_scores(FOUND, second, tmp_path)
    with pytest.raises(ValueError, match="shorter"):
        replace(found, pixels=replace(not_none(found.pixels), maps=maps)).aupro()


def test_each_image_has_its_share_of_good_images_that_score_lower(tmp_path: Path) -> None:
    labelled = sort_labelled_scores(FOUND, None, tmp_path)
    raw = ScoreNormalizer("none", THRESHOLDS, {})
    good = GoodScores(images=4, scores=(0.0, 0.5, 1.0), lower=(0, 1, 3))
    found = evaluate(FOUND, labelled, THRESHOLDS, normalizer=raw, metrics=Metrics(), good=good)
    assert not_none(found.good_below).tolist() == [0, 0.75, 1]
    assert evaluate(FOUND, labelled, THRESHOLDS, normalizer=raw, metrics=Metrics()).good_below is None


def test_a_table_has_all_of_1024_scores() -> None:
    scores = np.arange(1024, dtype=np.float32)
    assert not_none(summarise_good(scores)).scores == tuple(scores.tolist())


@pytest.mark.parametrize(
    ("metrics", "localises", "named"),
    [
        (Metrics(image=("AUROC",), pixel=("AUPRO",)), True, "image AUROC and pixel AUPRO"),
        (Metrics(image=("AUROC",), pixel=("AUPRO",)), False, "image AUROC"),
        (Metrics(image=(), pixel=("AUPRO",)), False, "no metrics"),
    ],
)
def test_only_metrics_that_the_model_would_have_are_left_out(metrics: Metrics, localises: bool, named: str) -> None:
    told = without_defects(metrics, localises=localises)
    assert told == f"no labelled image is defective: {named} are left out"
