"""Scores and maps of a run: each in its place, ranges within the valid area, and the thresholds of an inference.

The predictor is a list of batches that are scored already.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from anomaly_api.dataset import DatasetLimits
from anomaly_api.inference import InferenceSpec
from anomaly_api.run import ModelManifest
from anomaly_api.status import Stage, ThresholdValues
from anomaly_runner import inference
from anomaly_runner.context import Context
from anomaly_runner.data.batches import Batch, IntegrityLog
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.errors import DataInvalid, Diverged, Stopped
from anomaly_runner.scoring.predict import Predictions, ScoredBatch, maps_by_key, predict
from support.contexts import make_context

SIZE = (2, 3)
Values = NDArray[np.float32]


@dataclass
class Scored:
    """A predictor that answers what it was given."""

    answers: list[ScoredBatch]
    provider: str = "none"
    fallback: str | None = None
    preferred_batch_size: int = 2
    asked: list[Batch] = field(default_factory=list)

    def score(self, batches: Iterable[Batch]) -> Iterator[ScoredBatch]:
        for batch, answer in zip(batches, self.answers, strict=True):
            self.asked.append(batch)
            yield answer


def sample(index: int, label: str = "good", masks: tuple[str, ...] = ()) -> Sample:
    return Sample(f"test/{label}/{index}.png", label, masks)


def scored(first: int, scores: list[float], maps: Values | None) -> ScoredBatch:
    samples = tuple(sample(first + index) for index in range(len(scores)))
    images = np.zeros((len(scores), 3, *SIZE), np.float32)
    return ScoredBatch(Batch(samples, images), np.array(scores, np.float32), maps)


MAPS = np.array(
    [
        [[1, 2, 3], [4, 5, 6]],
        [[-7, 0, 0], [0, 0, 9]],
        [[0, 0, 4], [0, 0, 0]],
    ],
    np.float32,
)
VALID = np.array([[False, True, True], [True, True, False]])
"""All but the first and the last pixel."""


def three(maps: Values | None = MAPS) -> list[ScoredBatch]:
    """Three images in two batches."""
    first, second = (None, None) if maps is None else (maps[:2], maps[2:])
    return [scored(0, [10, 30], first), scored(2, [20], second)]


def predicted(context: Context, answers: list[ScoredBatch] | None = None, **options: Any) -> Predictions:
    answers = three() if answers is None else answers
    chosen: dict[str, Any] = {"expected": 3, "keep_maps": True} | options
    return predict(Scored(answers), [one.batch for one in answers], size=SIZE, context=context, **chosen)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path)


def test_every_score_and_map_is_that_of_its_image(context: Context) -> None:
    found = predicted(context)
    assert [one.key for one in found.samples] == ["test/good/0.png", "test/good/1.png", "test/good/2.png"]
    assert found.scores.tolist() == [10, 30, 20]
    assert found.maps is not None
    assert found.maps.tolist() == MAPS.tolist()
    assert found.max_pixel_scores is not None
    assert found.max_pixel_scores.tolist() == [6, 9, 4]
    assert found.pixel_range == (-7, 9)
    assert found.reference == ()


def test_pixels_outside_of_the_valid_area_count_for_nothing(context: Context) -> None:
    found = predicted(context, valid=VALID)
    assert found.max_pixel_scores is not None
    assert found.max_pixel_scores.tolist() == [5, 0, 4]
    assert found.pixel_range == (0, 5)
    assert found.maps is not None
    assert found.maps.tolist() == MAPS.tolist()


def test_the_lowest_pixel_may_be_in_any_batch(context: Context) -> None:
    lowest_last = MAPS[::-1].copy()
    found = predicted(context, three(lowest_last))
    assert found.pixel_range == (-7, 9)
    lowest_last[2] = -8
    assert predicted(context, three(lowest_last)).pixel_range == (-8, 9)


def test_without_room_for_maps_their_range_is_known_nevertheless(context: Context) -> None:
    found = predicted(context, keep_maps=False)
    assert found.maps is None
    assert found.pixel_range == (-7, 9)
    assert found.max_pixel_scores is not None


def test_a_model_without_maps_has_scores_alone(context: Context) -> None:
    found = predicted(context, three(None), keep_maps=False)
    assert (found.maps, found.pixel_range, found.max_pixel_scores) == (None, None, None)
    assert found.scores.tolist() == [10, 30, 20]


def test_images_that_could_not_be_read_leave_no_rows(context: Context) -> None:
    found = predicted(context, expected=7)
    assert found.scores.shape == (3,)
    assert found.maps is not None
    assert found.max_pixel_scores is not None
    assert (len(found.maps), len(found.max_pixel_scores)) == (3, 3)


@pytest.mark.parametrize(("reference", "kept"), [(0, 0), (1, 1), (2, 1), (3, 2), (9, 2)])
def test_whole_batches_are_kept_for_reference(context: Context, reference: int, kept: int) -> None:
    answers = three()
    assert predicted(context, answers, reference=reference).reference == tuple(answers[:kept])


def test_no_image_is_an_invalid_dataset(context: Context) -> None:
    with pytest.raises(DataInvalid, match="none of the images to score can be read"):
        predicted(context, [])


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_is_named_by_its_image(context: Context, odd: float) -> None:
    answers = [*three(), scored(3, [1, odd], np.zeros((2, *SIZE), np.float32))]
    with pytest.raises(Diverged, match=r"first for test/good/4\.png"):
        predicted(context, answers, expected=5)


def test_a_pixel_that_is_no_number_is_no_score_either(context: Context) -> None:
    maps = MAPS.copy()
    maps[1, 0, 0] = np.nan
    with pytest.raises(Diverged, match=r"first for test/good/1\.png"):
        predicted(context, three(maps))


def test_each_batch_is_counted_and_may_be_the_last(context: Context) -> None:
    context.stop.set()
    with pytest.raises(Stopped):
        predicted(context)


def test_maps_of_a_few_images_by_their_keys() -> None:
    answers = three()
    found = maps_by_key(Scored(answers), [one.batch for one in answers])
    assert {key: values.tolist() for key, values in found.items()} == {
        f"test/good/{index}.png": MAPS[index].tolist() for index in range(3)
    }
    without = three(None)
    assert maps_by_key(Scored(without), [one.batch for one in without]) == {}


MANIFEST = ModelManifest.model_validate(
    {
        "run": {"kind": "AnomalyExperiment", "namespace": "factory", "name": "screws", "uid": "0-1"},
        "model": "padim",
        "inputHeight": 2,
        "inputWidth": 3,
        "normalization": "none",
        "exports": (),
        "thresholds": ThresholdValues(image=15.0, pixel=1.5),
        "scoreRange": {"image": (0, 100), "pixel": (0, 10)},
        "scoreNormalization": "minMax",
        "thresholdType": "pixel",
        "task": "segmentation",
    }
)


def inputs_of(context: Context, threshold: dict[str, Any], masks: bool = True) -> Any:
    """The inputs of an inference on a good and a defective image, whose first pixel is marked."""
    spec = {"input": {"source": {"s3": {"uri": "s3://data"}}}, "output": {"s3": {"uri": "s3://results"}}}
    spec |= {"model": {"experiment": "screws"}, "threshold": threshold}
    integrity = IntegrityLog(DatasetLimits())
    samples = (sample(0), sample(1, "dent", ("mask",) if masks else ()))
    if masks:
        integrity.masks.add(samples[1].key, np.arange(6).reshape(SIZE) == 0)
    return SimpleNamespace(
        spec=InferenceSpec.model_validate(spec),
        manifest=MANIFEST,
        dataset=DatasetIndex(test=samples),
        preprocessor=Preprocessor(height=2, width=3, normalization="none"),
        integrity=integrity,
        context=context,
    )


def of_two(inputs: Any) -> Predictions:
    maps = np.full((2, *SIZE), 2, np.float32)
    maps[1, 0, 0] = 4
    return Predictions(
        inputs.dataset.test, np.array([20, 40], np.float32), maps, (2, 4), max_pixel_scores=maps.max((1, 2))
    )


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        ({"source": "training"}, ThresholdValues(image=15.0, pixel=1.5, source="training")),
        ({"source": "optimalF1"}, ThresholdValues(image=40.0, pixel=1.5, source="optimalF1")),
        ({"source": "optimalF1", "type": "pixel"}, ThresholdValues(image=15.0, pixel=4.0, source="optimalF1")),
        ({"source": "custom", "value": 200}, ThresholdValues(image=30.0, pixel=1.5, source="custom")),
        ({"source": "custom", "type": "pixel", "value": 200}, ThresholdValues(image=15.0, pixel=3.0, source="custom")),
    ],
)
def test_the_thresholds_of_an_inference(context: Context, threshold: dict[str, Any], expected: ThresholdValues) -> None:
    inputs = inputs_of(context, threshold)
    found = inference._evaluate(inputs, of_two(inputs))
    assert found.thresholds == expected
    assert found.anomalous.tolist() == [expected.image == 15.0, True]
    # minMax: the threshold that decides is shown as 0.5, by the ranges of the training
    assert found.normalized_scores[1] == pytest.approx(min(1, (40 - (expected.image or 0)) / 100 + 0.5))
    assert found.normalizer.pixel(np.array([expected.pixel], np.float32)) == pytest.approx([0.5])
    assert found.metrics.pixel["AUROC"] == 1.0
    assert context.record.warnings == ()
    assert set(context.record.seconds) == {Stage.EVALUATE.value}


def test_an_inference_without_masks_has_no_pixel_metrics(context: Context) -> None:
    inputs = inputs_of(context, {"source": "optimalF1", "type": "pixel"}, masks=False)
    found = inference._evaluate(inputs, of_two(inputs))
    assert found.metrics.pixel == {}
    assert found.thresholds == ThresholdValues(image=15.0, pixel=1.5, source="training")
    assert context.record.warnings == (
        "threshold.source optimalF1 needs masks of both classes: the training threshold is used",
    )
