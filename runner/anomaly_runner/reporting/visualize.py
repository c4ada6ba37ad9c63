"""Stage visualize: draw a picture of each prediction, at the image's own resolution.

Pictures are JPEG, which is written ten times as fast as PNG; raw outputs, which programs read, are PNG and TIFF.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea, DatasetLimits
from anomaly_api.evaluation import Visualization
from anomaly_api.status import Stage
from anomaly_runner.context import Context
from anomaly_runner.data.batches import Preprocessor
from anomaly_runner.data.files import read_file
from anomaly_runner.data.images import Decoded, UnreadableImageError, to_rgb8
from anomaly_runner.data.masks import MaskSource
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.reporting.pictures import PixelLevels, Verdict, compose, heat_image, pixel_scores, segment
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.storage import Prefetcher
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.parallel import ordered_map


@dataclass(frozen=True)
class RenderedPrediction:
    """Pictures of one prediction, of the part of the image that the model sees, at the image's own resolution.

    ``sheet``: RGB, for people. ``heat``: grey, 128 is the threshold. ``segmentation``: (rows, columns), True is
    anomalous. ``whole``: width and height of the whole image.
    """

    verdict: Verdict
    whole: tuple[int, int]
    sheet: Image.Image
    heat: Image.Image
    segmentation: NDArray[np.bool_]


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
        size = decoded.image.size
        heat = heat_image(scores, self._levels, size)
        segmentation = segment(scores, self.evaluated.thresholds.pixel, size)
        verdict = verdict_of(self.predictions, self.evaluated, index)
        sheet = compose(to_rgb8(decoded.image), heat, segmentation, verdict, self._truth(verdict.sample, decoded))
        return RenderedPrediction(verdict, decoded.whole, sheet, heat, segmentation)

    def raw_outputs(self, index: int, rendered: RenderedPrediction) -> dict[str, Image.Image]:
        """Heat map, segmentation and normalised pixel scores, by suffix of their files' names.

        They are as large as the whole image, and empty (0, or NaN for scores) outside of the part that the model sees.
        Raises as ``image``.
        """
        scores = self.evaluated.normalizer.pixel(pixel_scores(self._scores(index), rendered.heat.size)).astype(
            np.float32
        )
        found = {
            "heatmap.png": rendered.heat,
            "segmentation.png": Image.fromarray(rendered.segmentation.astype(np.uint8) * 255),
            "scores.tiff": Image.fromarray(scores),
        }
        if self.preprocessor.crop is None:
            return found
        return {name: _on_canvas(image, self.preprocessor.crop, rendered.whole) for name, image in found.items()}

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

    def _truth(self, sample: Sample, image: Decoded) -> NDArray[np.bool_] | None:
        if not sample.masks:
            return None
        masks = MaskSource(self.prefetcher, self.limits.max_image_pixels, self.preprocessor.crop)
        return masks.read(sample.masks, image, (image.image.height, image.image.width)).pixels


def _on_canvas(image: Image.Image, crop: CropArea, size: tuple[int, int]) -> Image.Image:
    canvas = Image.new(image.mode, size, math.nan if image.mode == "F" else 0)
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

    With ``rawOutputs``, NAME_heatmap.png (grey, 128 is the threshold), NAME_segmentation.png (white is anomalous) and
    NAME_scores.tiff (float32, normalised) are written beside each picture, as large as the image.

    Raises:
        Stopped: the run was asked to stop.
    """
    if not spec.enabled:
        return []
    if renderer.predictions.maps is None:
        context.record.warn("this model answers no anomaly maps: no pictures are rendered")
        return []
    chosen = select(renderer.predictions, renderer.evaluated, spec.only_wrong)
    written: list[Path] = []
    with context.stage(Stage.VISUALIZE, len(chosen), "pictures"):
        for files in ordered_map(lambda index: _write_pictures(renderer, index, spec, folder), chosen, cpu_limit()):
            written.extend(files)
            context.advance(1)
    return written


def _write_pictures(renderer: PredictionRenderer, index: int, spec: Visualization, folder: Path) -> list[Path]:
    try:
        rendered = renderer.render(index)
        raw = renderer.raw_outputs(index, rendered) if spec.raw_outputs else {}
    except UnreadableImageError:  # the file was readable when it was scored, and its score is in the tables
        return []
    base = folder / rendered.verdict.file_name(index)
    base.parent.mkdir(parents=True, exist_ok=True)
    picture = base.with_name(f"{base.name}.jpg")
    rendered.sheet.save(picture, quality=90, subsampling=0)
    written = [picture]
    for name, content in raw.items():
        written.append(base.with_name(f"{base.name}_{name}"))
        content.save(written[-1], compress_level=1)  # used for PNG only
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
