"""Pictures of images of any size and shape: drawn, or named in a warning; raw outputs are complete and small."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IMAGEDESCRIPTION, TiffImageFile

from anomaly_api.dataset import CropArea, DatasetLimits
from anomaly_api.evaluation import Visualization
from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_runner.context import Context
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.reporting.gallery import make_gallery
from anomaly_runner.reporting.visualize import PredictionRenderer, visualize
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.storage import Prefetcher
from support.contexts import make_context

SIDE = 32
SIZES = [(1, 1), (1, 5000), (20_000, 1), (70_000, 10), (10, 70_000), (300, 200), (2500, 1500)]
ALL = Visualization(enabled=True, raw_outputs=True)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path)


def renderer_of(folder: Path, sizes: list[tuple[int, int]], crop: CropArea | None = None) -> PredictionRenderer:
    """Return a renderer of one grey image of each size, with a hot spot in its map; the threshold is 5."""
    samples = [Sample(f"{index}.png", "dent") for index in range(len(sizes))]
    for sample, size in zip(samples, sizes, strict=True):
        Image.new("L", size, 128).save(folder / sample.key)
    maps = np.zeros((len(sizes), SIDE, SIDE), np.float32)
    maps[:, 8:16, 4:12] = 10
    thresholds = ThresholdValues(image=5.0, pixel=5.0)
    normalizer = ScoreNormalizer("threshold", thresholds, {"image": (0.0, 10.0), "pixel": (0.0, 10.0)})
    predictions = Predictions(tuple(samples), maps.max((1, 2)), maps, (0.0, 10.0))
    evaluated = EvaluationResult(
        thresholds=thresholds,
        metrics=MetricValues(),
        normalizer=normalizer,
        anomalous=predictions.scores >= 5,
        normalized_scores=normalizer.image(predictions.scores),
        confusion=None,
        labels={},
    )
    preprocessor = Preprocessor(height=SIDE, width=SIDE, normalization="none", crop=crop)
    return PredictionRenderer(
        predictions, evaluated, Prefetcher(folder, lambda: None), preprocessor, DatasetLimits(max_image_pixels=10**8)
    )


def test_images_of_any_shape_get_pictures_and_raw_outputs_of_their_size(tmp_path: Path, context: Context) -> None:
    written = visualize(renderer_of(tmp_path, SIZES), ALL, tmp_path / "pictures", context)
    assert context.record.warnings == ()
    assert len(written) == 4 * len(SIZES)
    for index, size in enumerate(SIZES):
        for name in ("heatmap", "segmentation"):
            (file,) = tmp_path.glob(f"pictures/dent/{index:06d}_*_{name}.png")
            with Image.open(file) as image:
                assert image.size == size


def test_the_gallery_takes_images_of_any_shape(tmp_path: Path) -> None:
    items = make_gallery(renderer_of(tmp_path, SIZES), lambda _: {})
    assert [item.path for item in items] == [f"{index}.png" for index in range(len(SIZES))]


def test_a_picture_that_cannot_be_drawn_is_named_and_the_others_are_drawn(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = renderer_of(tmp_path, [(40, 30)] * 3)
    (tmp_path / "0.png").unlink()
    save = Image.Image.save

    def refuse_one(image: Image.Image, file: Path, *args: object, **options: object) -> None:
        if "000001" in str(file):
            raise ValueError("no such picture")
        save(image, file, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "save", refuse_one)
    written = visualize(renderer, ALL, tmp_path / "pictures", context)
    assert {file.name[:6] for file in written} == {"000002"}
    assert context.record.warnings == ("2 pictures could not be drawn: 0.png: not a file; 1.png: no such picture",)


@pytest.mark.parametrize("crop", [None, CropArea(left=100, top=50, width=640, height=480)])
def test_scores_have_the_maps_size_and_say_where_they_lie(
    tmp_path: Path, context: Context, crop: CropArea | None
) -> None:
    size = (1200, 900)
    written = visualize(renderer_of(tmp_path, [size], crop), ALL, tmp_path / "pictures", context)
    (file,) = [file for file in written if file.suffix == ".tiff"]
    with Image.open(file) as image:
        assert isinstance(image, TiffImageFile)
        scores, place = np.asarray(image), json.loads(image.tag_v2[IMAGEDESCRIPTION])
    assert scores.dtype == np.float32
    assert scores.shape == (SIDE, SIDE)
    assert (scores[8:16, 4:12] == 200).all()  # percent of the threshold
    part = {"left": 0, "top": 0, "width": 1200, "height": 900} if crop is None else crop.model_dump()
    assert place == part | {"imageWidth": size[0], "imageHeight": size[1]}
    assert file.stat().st_size < scores.nbytes
