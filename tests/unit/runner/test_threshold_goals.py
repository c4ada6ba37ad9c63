"""Thresholds that achieve something, against brute force over all thresholds; the promise against its definition."""

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, binom

from anomaly_api.evaluation import Threshold
from anomaly_api.inference import InferenceThreshold
from anomaly_api.status import ThresholdValues
from anomaly_api.threshold_goals import DecisionCosts
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.errors import DataInvalid, InvalidConfig
from anomaly_runner.evaluation.curves import ScoresByClass
from anomaly_runner.evaluation.goals import (
    cost_threshold,
    false_alarm_threshold,
    needed_good_images,
    recall_threshold,
)
from anomaly_runner.evaluation.inference_thresholds import inference_thresholds
from anomaly_runner.evaluation.labelled import LabelledScores
from anomaly_runner.evaluation.thresholds import check_goal, experiment_thresholds
from support.optional import not_none

Scores = NDArray[np.float32]

_FEW_VALUES = st.integers(-6, 6).map(float)
_ANY_VALUES = st.floats(-1e6, 1e6, width=32)
SCORES = st.lists(st.one_of(_FEW_VALUES, _ANY_VALUES), min_size=1, max_size=40).map(
    lambda values: np.sort(np.array(values, np.float32))
)
RATES = st.sampled_from((0.5, 0.3, 0.25, 0.1, 0.05, 0.04, 0.01))
SHARES = st.sampled_from((0.01, 0.1, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0))


def every_threshold(*scores: Scores) -> list[float]:
    """All thresholds that decide differently: each score, and one above all of them."""
    distinct = np.unique(np.concatenate(scores))
    return [*(float(score) for score in distinct), float(np.nextafter(distinct[-1], np.float32(np.inf)))]


def reached(scores: Scores, threshold: float) -> int:
    return int((scores.astype(np.float64) >= threshold).sum())


@given(SCORES, RATES)
def test_the_false_alarm_threshold_is_the_lowest_that_few_enough_good_images_reach(good: Scores, rate: float) -> None:
    # Of n good scores and a new one, each is as likely to be any of the n + 1 in order: a new one above all but m of
    # the n has a chance of (m + 1) / (n + 1), which has to be the rate at most.
    assume(len(good) >= needed_good_images(rate))
    allowed = max(m for m in range(len(good)) if (m + 1) * 1000 <= round(rate * 1000) * (len(good) + 1))
    threshold, promise = false_alarm_threshold(good, rate)
    # The threshold is just above a score: in no gap between scores, which a new one may fall into.
    lower = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    assert lower in good
    assert reached(good, threshold) <= allowed
    assert reached(good, float(lower)) > allowed
    assert promise.expected == pytest.approx((allowed + 1) / (len(good) + 1), abs=1e-12)
    assert promise.expected <= rate + 1e-12


@pytest.mark.parametrize(("rate", "needed"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.03, 33), (0.01, 99), (0.001, 999)])
def test_so_many_good_images_are_needed_and_one_fewer_is_too_few(rate: float, needed: int) -> None:
    assert needed_good_images(rate) == needed
    scores = np.arange(needed, dtype=np.float32)
    threshold, promise = false_alarm_threshold(scores, rate)
    assert reached(scores, threshold) == 0
    assert promise.expected == pytest.approx(1 / (needed + 1))
    if needed > 1:
        _, smallest = false_alarm_threshold(scores[1:], rate)
        assert smallest.expected == pytest.approx(1 / needed)
        assert smallest.expected > rate


def test_the_interval_is_that_of_the_beta_distribution_of_the_true_rate() -> None:
    _, promise = false_alarm_threshold(np.arange(200, dtype=np.float32), 0.05)
    # 0.05 * 201 = 10.05: ten of 201 places in order may be above.
    assert promise.good_images == 200
    assert promise.expected == pytest.approx(10 / 201)
    assert (promise.low, promise.high) == pytest.approx(beta.interval(0.9, 10, 191), abs=1e-9)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_the_promise_holds_on_average_and_its_interval_nine_times_in_ten(rate: float) -> None:
    # The scores are uniform, so that the true rate of a threshold is known: 1 - threshold.
    random, count, tries = np.random.default_rng(8), 60, 4000
    found = [false_alarm_threshold(np.sort(random.random(count).astype(np.float32)), rate) for _ in range(tries)]
    true = np.array([1 - threshold for threshold, _ in found])
    _, promise = found[0]
    spread = true.std() / np.sqrt(tries)
    assert abs(true.mean() - promise.expected) < 4 * spread
    inside = int(((true >= promise.low) & (true <= promise.high)).sum())
    low, high = binom.interval(0.9999, tries, 0.9)
    assert low <= inside <= high


def test_equal_scores_do_not_break_the_promise() -> None:
    # Nine of ten good images score the same; a threshold on that score would alarm on nearly all new ones.
    good = np.array([1.0] * 90 + [2.0] * 10, np.float32)
    threshold, _ = false_alarm_threshold(good, 0.2)
    assert 1.0 < threshold <= 2.0


@given(SCORES, SHARES)
def test_the_recall_threshold_is_the_highest_that_finds_enough(defective: Scores, share: float) -> None:
    hundredths = round(share * 100)
    enough = [t for t in every_threshold(defective) if reached(defective, t) * 100 >= hundredths * len(defective)]
    assert recall_threshold(defective, share) == max(enough)


@given(SCORES, SCORES, st.integers(1, 50), st.integers(1, 50))
def test_no_threshold_costs_less_and_no_lower_one_as_little(
    defective: Scores, good: Scores, miss: int, alarm: int
) -> None:
    def cost(threshold: float) -> int:
        return miss * (len(defective) - reached(defective, threshold)) + alarm * reached(good, threshold)

    found = cost_threshold(ScoresByClass(defective, good), DecisionCosts(miss=miss, false_alarm=alarm))
    cheapest = min(map(cost, every_threshold(defective, good)))
    assert cost(found) == cheapest
    # Of several, the lowest that is the score of a defective image, or else one above everything.
    at_defects = [float(t) for t in np.unique(defective) if cost(float(t)) == cheapest]
    assert found == (at_defects[0] if at_defects else every_threshold(defective, good)[-1])


@given(SCORES, SCORES, st.sampled_from((0.001, 0.01, 0.1, 0.5)))
def test_costs_are_weighted_by_the_share_of_defects_where_the_model_will_work(
    defective: Scores, good: Scores, share: float
) -> None:
    def cost(threshold: float) -> float:
        missed = 1 - reached(defective, threshold) / len(defective)
        return 70 * share * missed + 3 * (1 - share) * reached(good, threshold) / len(good)

    costs = DecisionCosts(miss=70, false_alarm=3, defect_share=share)
    found = cost_threshold(ScoresByClass(defective, good), costs)
    assert cost(found) == pytest.approx(min(map(cost, every_threshold(defective, good))), abs=1e-9)


def labelled(good: list[float], defective: list[float], max_pixel: ScoresByClass | None = None) -> LabelledScores:
    return LabelledScores(by_class(good, defective), None, max_pixel=max_pixel)


def by_class(good: list[float], defective: list[float]) -> ScoresByClass:
    return ScoresByClass(np.sort(np.array(defective, np.float32)), np.sort(np.array(good, np.float32)))


NINE = [float(score) for score in range(1, 10)]


def test_a_rate_of_false_alarms_needs_no_defect_and_holds_for_pixels_by_images() -> None:
    highest = by_class([score * 10 for score in NINE], [])
    found, warnings = experiment_thresholds(
        Threshold(method="falseAlarmRate", false_alarm_rate=0.2), labelled(NINE, [], highest)
    )
    # 0.2 * 10 = 2: one of the nine may reach the threshold, which lies just above the second highest.
    assert found.image == pytest.approx(8.0)
    assert found.pixel == pytest.approx(80.0)
    assert not_none(found.image) > 8.0
    assert (found.source, warnings) == ("falseAlarmRate", ())
    assert not_none(found.false_alarms).good_images == 9


def test_images_that_turn_out_to_be_unreadable_cost_the_promise_and_not_the_run() -> None:
    found, warnings = experiment_thresholds(
        Threshold(method="falseAlarmRate", false_alarm_rate=0.1), labelled(NINE[:8], [])
    )
    assert not_none(found.image) > 8.0
    assert warnings == (
        "falseAlarmRate 0.1 cannot be promised by 8 good test images that could be read: the threshold promises 0.11",
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "recall", "recall": 0.5}, (7.0, "recall")),
        ({"method": "recall", "recall": 1.0}, (3.0, "recall")),
        # Misses of 3 and 7 alone cost 1 and 2, the alarms of 5, 8 and 8 at 3 cost three times 10.
        ({"method": "cost", "cost": {"miss": 1, "falseAlarm": 10}}, (9.0, "cost")),
        ({"method": "cost", "cost": {"miss": 100, "falseAlarm": 1}}, (3.0, "cost")),
    ],
)
def test_goals_that_need_defects(settings: dict[str, Any], expected: tuple[float, str]) -> None:
    found, warnings = experiment_thresholds(
        Threshold.model_validate(settings), labelled([1.0, 5.0, 8.0, 8.0], [3.0, 7.0, 9.0])
    )
    assert ((found.image, found.source), warnings) == (expected, ())


def with_method(method: Literal["recall", "cost"]) -> Threshold:
    if method == "recall":
        return Threshold(method="recall", recall=0.9)
    return Threshold(method="cost", cost=DecisionCosts(miss=1, false_alarm=1))


@pytest.mark.parametrize("method", ["recall", "cost"])
def test_without_a_readable_defect_they_end_the_run(method: Literal["recall", "cost"]) -> None:
    with pytest.raises(DataInvalid, match=f"no defective test image can be read, and {method} needs some"):
        experiment_thresholds(with_method(method), labelled(NINE, []))


def dataset(good: int, defects: int = 0, validation: int = 0) -> DatasetIndex:
    test = [Sample(f"test/good/{index}.png", "good") for index in range(good)]
    test += [Sample(f"test/dent/{index}.png", "dent") for index in range(defects)]
    held_out = tuple(Sample(f"val/good/{index}.png", "good") for index in range(validation))
    return DatasetIndex(test=tuple(test), validation=held_out)


def test_what_cannot_be_promised_is_told_before_anything_is_trained() -> None:
    spec = Threshold(method="falseAlarmRate", false_alarm_rate=0.01)
    check_goal(spec, dataset(99))
    with pytest.raises(InvalidConfig, match=r"0\.01 needs 99 good test images, and there are 98, by which 0\.01 can"):
        check_goal(spec, dataset(98))
    with pytest.raises(InvalidConfig, match=r"99 good validation images, and there are 19, by which 0\.05 can"):
        check_goal(spec, dataset(500, validation=19))


@pytest.mark.parametrize("method", ["recall", "cost"])
def test_goals_that_need_defects_are_refused_without_any(method: Literal["recall", "cost"]) -> None:
    spec = with_method(method)
    check_goal(spec, dataset(5, defects=1))
    with pytest.raises(InvalidConfig, match=f"method {method} needs defective images"):
        check_goal(spec, dataset(5))


TRAINING = ThresholdValues(image=20.0, pixel=10.0, source="adaptive")


@pytest.mark.parametrize(
    ("settings", "image"),
    [
        ({"source": "recall", "recall": 0.6}, 7.0),
        ({"source": "cost", "cost": {"miss": 1, "falseAlarm": 10}}, 9.0),
    ],
)
def test_an_inference_finds_them_on_its_own_labelled_images(settings: dict[str, Any], image: float) -> None:
    spec = InferenceThreshold.model_validate(settings)
    found, warnings = inference_thresholds(spec, TRAINING, labelled([1.0, 5.0, 8.0], [3.0, 7.0, 9.0]))
    assert found == ThresholdValues(image=image, pixel=10.0, source=spec.source)
    assert warnings == ()


@pytest.mark.parametrize(
    ("level", "share", "expected"),
    [("image", None, 3.0), ("image", 0.01, 9.0), ("pixel", None, 30.0), ("pixel", 0.01, 30.0)],
)
def test_the_share_of_defective_parts_weighs_images_and_not_pixels(
    level: Literal["image", "pixel"], share: float | None, expected: float
) -> None:
    """Of three good and three defective items, at 3, 7 and 9: alarms 2, 1, 0; misses 0, 1, 2.

    A miss costs two alarms: 2, 3, 4. With one defect in a hundred parts, a miss weighs 0.06 and an alarm 2.97.
    """
    cost = {"miss": 2, "falseAlarm": 1} | ({} if share is None else {"defectShare": share})
    spec = InferenceThreshold.model_validate({"source": "cost", "type": level, "cost": cost})
    images = by_class([1.0, 5.0, 8.0], [3.0, 7.0, 9.0])
    pixels = by_class([10.0, 50.0, 80.0], [30.0, 70.0, 90.0])
    found, warnings = inference_thresholds(spec, TRAINING, LabelledScores(images, pixels))
    assert found == TRAINING.model_copy(update={level: expected, "source": "cost"})
    assert warnings == ()


def test_a_share_of_the_defective_pixels_is_found_among_the_pixels() -> None:
    spec = InferenceThreshold.model_validate({"source": "recall", "type": "pixel", "recall": 0.6})
    images, pixels = by_class([1.0], [3.0, 7.0, 9.0]), by_class([10.0], [30.0, 70.0, 90.0])
    found, _ = inference_thresholds(spec, TRAINING, LabelledScores(images, pixels))
    assert found == TRAINING.model_copy(update={"pixel": 70.0, "source": "recall"})


def test_an_inference_promises_a_rate_by_its_own_good_images() -> None:
    spec = InferenceThreshold(source="falseAlarmRate", false_alarm_rate=0.25)
    found, _ = inference_thresholds(spec, TRAINING, labelled([1.0, 5.0, 8.0], []))
    # 0.25 * 4 = 1: a new one is above all three once in four times.
    assert not_none(found.image) == pytest.approx(8.0)
    assert not_none(found.image) > 8.0
    assert not_none(found.false_alarms).expected == 0.25
    assert (found.source, found.pixel) == ("falseAlarmRate", 10.0)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"source": "falseAlarmRate", "falseAlarmRate": 0.1}, "needs 9 images labelled good for 0.1, and 3 are"),
        ({"source": "falseAlarmRate", "falseAlarmRate": 0.5, "type": "pixel"}, "needs a model with pixel scores"),
        ({"source": "recall", "recall": 0.6, "type": "pixel"}, "needs masks of both classes"),
    ],
)
def test_an_inference_without_the_images_that_it_needs_decides_as_in_training(
    settings: dict[str, Any], why: str
) -> None:
    spec = InferenceThreshold.model_validate(settings)
    found, warnings = inference_thresholds(spec, TRAINING, labelled([1.0, 5.0, 8.0], [3.0]))
    assert found == TRAINING.model_copy(update={"source": "training"})
    assert warnings == (f"threshold.source {spec.source} {why}: the training threshold is used",)
