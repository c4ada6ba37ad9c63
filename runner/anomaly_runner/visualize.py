"""Stage visualize: what the model saw, image by image, at the image's own resolution (Pillow and numpy alone).

A picture shows the image, the heat map over it and the segmentation's contour, with the verdict above. Small
images are enlarged by a whole factor so that the caption can be read. Pictures are JPEG, ten times cheaper to
write than PNG; raw outputs, which programs read, are PNG.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anomaly_api.evaluation import Visualization
from anomaly_api.status import Stage
from anomaly_runner.batches import InputForm, read_file
from anomaly_runner.colormap import TURBO
from anomaly_runner.context import Context
from anomaly_runner.dataset import Sample
from anomaly_runner.evaluate import Evaluated
from anomaly_runner.images import to_rgb8
from anomaly_runner.machine import cpu_limit
from anomaly_runner.parallel import ordered_map
from anomaly_runner.predict import Predictions
from anomaly_runner.storage import Pull

_SMALLEST = 224
"""Shorter side of a panel in pixels, at least."""
_CAPTION = 44
_GAP = 6
_COVER = [int(70 + 0.5 * level) for level in range(256)]
"""How much a heat map hides of the image, by heat: the image stays visible where nothing is wrong."""
_INK, _PAPER, _DIM = (235, 238, 242), (24, 27, 33), (150, 158, 170)
_RED, _GREEN, _AMBER = (255, 92, 92), (82, 196, 120), (255, 190, 80)


@dataclass(frozen=True)
class Verdict:
    """One image's decision, as its caption says it."""

    sample: Sample
    score: float
    shown: float
    anomalous: bool
    threshold: float

    @property
    def wrong(self) -> bool:
        """Decided against its label."""
        return self.sample.defect is not None and self.sample.defect != self.anomalous

    @property
    def word(self) -> str:
        """The decision."""
        return "anomalous" if self.anomalous else "good"

    def file_name(self, index: int) -> str:
        """Unique in a run; tells label, decision and score."""
        mark = "_WRONG" if self.wrong else ""
        stem = PurePosixPath(self.sample.key).stem[:80]
        return f"{self.sample.label}/{index:06d}_{stem}_{self.word}_{self.shown:.4g}{mark}"


def select(predictions: Predictions, evaluated: Evaluated, only_wrong: bool) -> list[int]:
    """Indices of the predictions that get a picture."""
    wrong = [sample.defect is not None and sample.defect != bool(said)
             for sample, said in zip(predictions.samples, evaluated.anomalous, strict=True)]  # fmt: skip
    return [index for index in range(len(predictions.samples)) if wrong[index] or not only_wrong]


def visualize(
    predictions: Predictions,
    evaluated: Evaluated,
    *,
    pull: Pull,
    form: InputForm,
    spec: Visualization,
    max_pixels: int,
    folder: Path,
    context: Context,
) -> list[Path]:
    """Draw the pictures that are asked for into ``folder``, one sub-folder a label; none unless enabled.

    With ``rawOutputs`` each picture has NAME_heatmap.png (grey, 128 is the threshold) and NAME_segmentation.png
    (white is anomalous) beside it, at the image's own resolution.
    """
    if not spec.enabled:
        return []
    if predictions.maps is None:
        context.journal.warn("this model answers no anomaly maps: no pictures are drawn")
        return []
    chosen = select(predictions, evaluated, spec.only_wrong)
    artist = _Artist(predictions, evaluated, pull, form, spec, max_pixels, folder)
    written: list[Path] = []
    with context.stage(Stage.VISUALIZE, len(chosen), "pictures"):
        for files in ordered_map(artist.draw, chosen, cpu_limit()):
            written.extend(files)
            context.step(1)
    return written


@dataclass(frozen=True)
class _Artist:
    predictions: Predictions
    evaluated: Evaluated
    pull: Pull
    form: InputForm
    spec: Visualization
    max_pixels: int
    folder: Path

    def draw(self, index: int) -> list[Path]:
        """Draw one prediction."""
        assert self.predictions.maps is not None
        sample = self.predictions.samples[index]
        image = to_rgb8(self.form.decode(read_file(self.pull, sample.key), self.max_pixels))
        scores = np.asarray(self.predictions.maps[index])
        heat = heat_image(scores, self.evaluated, image.size)
        segmentation = _segmentation(scores, self.evaluated.thresholds.pixel, image.size)
        verdict = verdict_of(self.predictions, self.evaluated, index)
        base = self.folder / verdict.file_name(index)
        base.parent.mkdir(parents=True, exist_ok=True)
        return list(self._write(base, image, heat, segmentation, verdict))

    def _write(
        self, base: Path, image: Image.Image, heat: Image.Image, segmentation: NDArray[np.bool_], verdict: Verdict
    ) -> Iterator[Path]:
        picture = base.with_name(f"{base.name}.jpg")
        compose(image, heat, segmentation, verdict).save(picture, quality=90, subsampling=0)
        yield picture
        if self.spec.raw_outputs:
            raw = {"heatmap": heat, "segmentation": Image.fromarray(segmentation.astype(np.uint8) * 255)}
            for name, content in raw.items():
                file = base.with_name(f"{base.name}_{name}.png")
                content.save(file, compress_level=1)
                yield file


def verdict_of(predictions: Predictions, evaluated: Evaluated, index: int) -> Verdict:
    """What was decided of one prediction."""
    threshold = evaluated.scale.image(np.array([evaluated.thresholds.image], np.float32))
    return Verdict(predictions.samples[index], float(predictions.scores[index]), float(evaluated.shown[index]),
                   bool(evaluated.anomalous[index]), float(threshold[0]))  # fmt: skip


def draw_picture(predictions: Predictions, evaluated: Evaluated, index: int, image: Image.Image) -> Image.Image:
    """One prediction's picture over its image."""
    assert predictions.maps is not None
    scores = np.asarray(predictions.maps[index])
    segmentation = _segmentation(scores, evaluated.thresholds.pixel, image.size)
    return compose(image, heat_image(scores, evaluated, image.size), segmentation,
                   verdict_of(predictions, evaluated, index))  # fmt: skip


def heat_image(scores: NDArray[np.float32], evaluated: Evaluated, size: tuple[int, int]) -> Image.Image:
    """Raw pixel scores (H, W) as a grey image of ``size`` (width, height): 0 is the lowest score of the range, 128
    the threshold, 255 the highest, linear in between, so that colours mean the same in every picture of a run.
    """
    low, high = evaluated.scale.ranges["pixel"]
    threshold = evaluated.thresholds.pixel
    middle = (low + high) / 2 if threshold is None else min(max(threshold, low), high)
    levels = np.interp(scores, *_increasing((low, middle, high), (0.0, 128.0, 255.0)))
    return Image.fromarray((levels + 0.5).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def _increasing(points: tuple[float, ...], values: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Without points that are no higher than the one before: what numpy.interp wants."""
    kept = [index for index in range(len(points)) if index == 0 or points[index] > points[index - 1]]
    return tuple(points[index] for index in kept), tuple(values[index] for index in kept)


def _segmentation(scores: NDArray[np.float32], threshold: float | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    full = Image.fromarray(scores).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(full) >= (np.inf if threshold is None else threshold)


def compose(image: Image.Image, heat: Image.Image, segmentation: NDArray[np.bool_], verdict: Verdict) -> Image.Image:
    """Three panels under a caption."""
    factor = max(1, -(-_SMALLEST // min(image.size)))
    size = (image.width * factor, image.height * factor)
    panel = _enlarged(image, size, Image.Resampling.NEAREST)
    sheet = Image.new("RGB", (3 * size[0] + 2 * _GAP, size[1] + _CAPTION), _PAPER)
    places = [(index * (size[0] + _GAP), _CAPTION) for index in range(3)]
    sheet.paste(panel, places[0])
    sheet.paste(panel.convert("L"), places[1])  # grey, so that all colour is heat
    _cover(sheet, _enlarged(heat, size, Image.Resampling.BICUBIC), places[1])
    sheet.paste(panel, places[2])
    region = _enlarged(Image.fromarray(segmentation.astype(np.uint8) * 255), size, Image.Resampling.BILINEAR)
    outline = _contour(np.asarray(region) >= 128, thickness=max(2, min(size) // 250))
    sheet.paste(_RED, places[2], Image.fromarray(outline.astype(np.uint8) * 255))
    _write_caption(sheet, verdict)
    return sheet


def _enlarged(image: Image.Image, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
    return image if image.size == size else image.resize(size, method)


def _cover(sheet: Image.Image, heat: Image.Image, place: tuple[int, int]) -> None:
    colours = heat.copy()
    colours.putpalette(TURBO)
    sheet.paste(colours.convert("RGB"), place, heat.point(_COVER))


def _contour(inside: NDArray[np.bool_], thickness: int) -> NDArray[np.bool_]:
    """Pixels of the region that are within ``thickness`` of its border."""
    core = inside.copy()
    for _ in range(thickness):
        smaller = core.copy()
        smaller[1:] &= core[:-1]
        smaller[:-1] &= core[1:]
        smaller[:, 1:] &= core[:, :-1]
        smaller[:, :-1] &= core[:, 1:]
        core = smaller
    return inside & ~core


def _write_caption(sheet: Image.Image, verdict: Verdict) -> None:
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(17), ImageFont.load_default(12)
    colour = _AMBER if verdict.wrong else _RED if verdict.anomalous else _GREEN
    draw.rectangle((0, 0, 5, _CAPTION - _GAP), fill=colour)
    title = verdict.word.upper() + ("  -  WRONG" if verdict.wrong else "")
    draw.text((14, 1), title, fill=colour, font=large)
    draw.text((14, 23), f"score {verdict.shown:.4g}   threshold {verdict.threshold:.4g}   raw {verdict.score:.4g}",
              fill=_INK, font=small)  # fmt: skip
    draw.text((sheet.width - 8, 4), f"label: {verdict.sample.label}", fill=_INK, font=small, anchor="ra")
    name = verdict.sample.key if len(verdict.sample.key) <= 48 else "..." + verdict.sample.key[-45:]
    draw.text((sheet.width - 8, 23), name, fill=_DIM, font=small, anchor="ra")
