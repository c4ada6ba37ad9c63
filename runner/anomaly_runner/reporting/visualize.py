"""Stage visualize: draw a picture of each prediction, at the image's own resolution.

Pictures are JPEG, which is written ten times as fast as PNG; raw outputs, which programs read, are PNG and TIFF. Pixel
scores are written as the model answers them: enlarged to the size of a camera's image, a map of 256 x 256 takes 48 MB
and says no more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import IMAGEDESCRIPTION, PREDICTOR

from anomaly_api.dataset import CropArea, DatasetLimits
from anomaly_api.evaluation import Visualization
from anomaly_api.status import Stage
from anomaly_runner.context import About, Context
from anomaly_runner.data.files import read_file
from anomaly_runner.data.images import Decoded, to_rgb8
from anomaly_runner.data.masks import MaskSource
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import RunFailed
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.reporting.pictures import PixelLevels, Verdict, compose, drawing_size, heat_image, segment
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.storage import Prefetcher
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.parallel import ordered_map

_FLOAT_PREDICTOR = 3
"""TIFF's predictor for floats: differences of bytes, which compress better (Adobe, TIFF Technical Note 3)."""


@dataclass(frozen=True)
class RenderedPrediction:
    """The picture of one prediction, of the part of the image that the model sees.

    ``sheet``: RGB, for people. ``part``: width and height of that part of the image. ``whole``: those of all of it.
    """

    verdict: Verdict
    whole: tuple[int, int]
    part: tuple[int, int]
    sheet: Image.Image


@dataclass(frozen=True)
class PredictionRenderer:
    """Draws the predictions of a run; safe to use from many threads.

    ``extra_maps``: maps (H, W) by index, for predictions whose maps were not kept.
    """

    predictions: Predictions
    evaluated: EvaluationResult
    prefetcher: Prefetcher
    preprocessor: Preprocessor
    limits: DatasetLimits
    extra_maps: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)

    def image(self, index: int) -> Image.Image:
        """Decode the part of the image that the model sees, at the image's own resolution, as RGB.

        Raises:
            UnreadableImageError: the file has disappeared or changed since it was scored.
        """
        return to_rgb8(self._decoded(index).image)

    def _decoded(self, index: int) -> Decoded:
        key = self.predictions.samples[index].key
        return self.preprocessor.decode(read_file(self.prefetcher, key), self.limits.max_image_pixels)

    def render(self, index: int) -> RenderedPrediction:
        """Draw one prediction.

        Raises:
            UnreadableImageError: the file has disappeared or changed since it was scored.
            LookupError: there is no map of the prediction.
        """
        decoded, scores = self._decoded(index), self._scores(index)
        size = drawing_size(decoded.image.size)
        heat = heat_image(scores, self._levels, size)
        segmentation = segment(scores, self.evaluated.thresholds.pixel, size)
        verdict = verdict_of(self.predictions, self.evaluated, index)
        truth = self._truth(verdict.sample, decoded, size)
        sheet = compose(to_rgb8(decoded.image), heat, segmentation, verdict, truth)
        return RenderedPrediction(verdict, decoded.whole, decoded.image.size, sheet)

    def raw_outputs(self, index: int, rendered: RenderedPrediction) -> dict[str, Image.Image]:
        """Heat map and segmentation, by suffix of their files' names.

        They are as large as the whole image, and empty (0) outside of the part that the model sees.
        """
        scores, part = self._scores(index), rendered.part
        segmentation = segment(scores, self.evaluated.thresholds.pixel, part)
        found = {
            "heatmap.png": heat_image(scores, self._levels, part),
            "segmentation.png": Image.fromarray(segmentation.astype(np.uint8) * 255),
        }
        if self.preprocessor.crop is None:
            return found
        return {name: _on_canvas(image, self.preprocessor.crop, rendered.whole) for name, image in found.items()}

    def map_file(self, index: int, rendered: RenderedPrediction) -> bytes:
        """The normalised pixel scores at the map's own size: TIFF of float32, compressed without loss.

        Its ImageDescription is JSON: ``left``, ``top``, ``width`` and ``height`` of the rectangle of the image, in
        pixels, that the map covers; ``imageWidth`` and ``imageHeight`` of the whole image.
        """
        crop = self.preprocessor.crop
        place = {
            "left": crop.left if crop else 0,
            "top": crop.top if crop else 0,
            "width": rendered.part[0],
            "height": rendered.part[1],
            "imageWidth": rendered.whole[0],
            "imageHeight": rendered.whole[1],
        }
        scores = self.evaluated.normalizer.pixel(self._scores(index)).astype(np.float32)
        buffer = BytesIO()
        tags = {IMAGEDESCRIPTION: json.dumps(place), PREDICTOR: _FLOAT_PREDICTOR}
        Image.fromarray(scores).save(buffer, "TIFF", compression="tiff_adobe_deflate", tiffinfo=tags)
        return buffer.getvalue()

    @property
    def _levels(self) -> PixelLevels:
        """Pixel scores of the heat map's 0, 128 and 255.

        128 is the threshold that decides in this run, even if 100 percent is the threshold of the training.
        """
        normalizer = self.evaluated.normalizer
        low, high = normalizer.ranges["pixel"]
        return PixelLevels(low, normalizer.pixel_threshold(self.evaluated.thresholds), high)

    def _scores(self, index: int) -> NDArray[np.float32]:
        """The map (H, W), with the run's lowest score outside of the valid area, so that nothing is found there."""
        scores = self._map(index)
        valid = self.preprocessor.valid
        return scores if valid is None else np.where(valid, scores, np.float32(self._levels.low))

    def _map(self, index: int) -> NDArray[np.float32]:
        if index in self.extra_maps:
            return self.extra_maps[index]
        if self.predictions.maps is None:
            raise LookupError(f"there is no map of {self.predictions.samples[index].key}")
        return np.asarray(self.predictions.maps[index])

    def _truth(self, sample: Sample, image: Decoded, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """The mask of an image at ``size`` (width, height); None without a mask."""
        if not sample.masks:
            return None
        masks = MaskSource(self.prefetcher, self.limits.max_image_pixels, self.preprocessor.crop)
        return masks.read(sample.masks, image, (size[1], size[0])).pixels


def _on_canvas(image: Image.Image, crop: CropArea, size: tuple[int, int]) -> Image.Image:
    canvas = Image.new(image.mode, size)
    canvas.paste(image, (crop.left, crop.top))
    return canvas


def select(predictions: Predictions, evaluated: EvaluationResult, only_wrong: bool) -> list[int]:
    """Indices of the predictions that get a picture: all, or only the wrong ones."""
    wrong = [
        sample.defect is not None and sample.defect != bool(decision)
        for sample, decision in zip(predictions.samples, evaluated.anomalous, strict=True)
    ]
    return [index for index in range(len(predictions.samples)) if wrong[index] or not only_wrong]


def visualize(renderer: PredictionRenderer, spec: Visualization, folder: Path, context: Context) -> list[Path]:
    """Draw the pictures that the spec asks for into ``folder``, one sub-folder a label, and return their files.

    With ``rawOutputs``, NAME_heatmap.png (grey, 128 is the threshold) and NAME_segmentation.png (white is anomalous)
    are written beside each picture, as large as the image, and NAME_scores.tiff (float32, normalised), as large as the
    map.
    Pictures that cannot be drawn are named in a warning: the scores of their images are in the tables.

    Raises:
        Stopped: the run was asked to stop.
    """
    if not spec.enabled:
        return []
    if renderer.predictions.maps is None:
        context.record.warn("this model answers no anomaly maps: no pictures are rendered", about=About.EXTRAS)
        return []
    chosen = select(renderer.predictions, renderer.evaluated, spec.only_wrong)
    written: list[Path] = []
    problems: list[str] = []
    with context.stage(Stage.VISUALIZE, len(chosen), "pictures"):
        for drawn in ordered_map(lambda index: _try_to_draw(renderer, index, spec, folder), chosen, cpu_limit()):
            if isinstance(drawn, str):
                problems.append(drawn)
            else:
                written.extend(drawn)
            context.advance(1)
    if problems:
        context.record.warn(
            f"{len(problems)} pictures could not be drawn: {'; '.join(problems[:3])}", about=About.EXTRAS
        )
    return written


def _try_to_draw(renderer: PredictionRenderer, index: int, spec: Visualization, folder: Path) -> list[Path] | str:
    """Files of one picture, or the reason why it cannot be drawn."""
    try:
        return write_pictures(renderer, index, spec, folder)
    except RunFailed:
        raise
    except Exception as error:  # noqa: BLE001 - a picture is not worth a run, whatever its library says about it
        return f"{renderer.predictions.samples[index].key}: {error or type(error).__name__}"


def write_pictures(renderer: PredictionRenderer, index: int, spec: Visualization, folder: Path) -> list[Path]:
    """Draw one picture and, if the spec asks for them, its raw outputs; returns the files.

    Raises:
        UnreadableImageError: the file has disappeared or changed since it was scored.
    """
    rendered = renderer.render(index)
    base = folder / rendered.verdict.file_name(index)
    base.parent.mkdir(parents=True, exist_ok=True)
    written = [base.with_name(f"{base.name}.jpg")]
    rendered.sheet.save(written[0], quality=90, subsampling=0)
    if not spec.raw_outputs:
        return written
    for name, content in renderer.raw_outputs(index, rendered).items():
        written.append(base.with_name(f"{base.name}_{name}"))
        content.save(written[-1], compress_level=1)
    written.append(base.with_name(f"{base.name}_scores.tiff"))
    written[-1].write_bytes(renderer.map_file(index, rendered))
    return written


def verdict_of(predictions: Predictions, evaluated: EvaluationResult, index: int) -> Verdict:
    """The decision about one image, with normalised score and threshold."""
    threshold = evaluated.normalizer.image(np.array([evaluated.image_threshold], np.float32))
    return Verdict(
        sample=predictions.samples[index],
        score=float(predictions.scores[index]),
        normalized_score=float(evaluated.normalized_scores[index]),
        anomalous=bool(evaluated.anomalous[index]),
        threshold=float(threshold[0]),
    )
