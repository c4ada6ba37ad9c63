"""Draw a picture of a prediction, with Pillow and numpy alone.

A sheet has three panels below a caption with the decision: the image, with the outline of the true defect if there is a
mask; the heat map over the image; the image with the outline of the segmentation. Panels have the image's own
resolution; small images are enlarged so that the caption can be read, and large ones are reduced, because a sheet is
for people. Images that are much longer than wide are stretched across.

For speed, most work is done on bytes and at the map's size, and contours are computed only around what is found: a
sheet of 1024 x 1024 pixels takes about 10 ms.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anomaly_runner.data.samples import Sample
from anomaly_runner.reporting.colormap import TURBO
from anomaly_runner.system.names import file_name

_SMALLEST = 224
"""Smallest length of a panel's shorter side in pixels."""
_LARGEST = 2048
"""Largest length of a panel's longer side; three panels stay far below the 65,535 pixels that JPEG can hold."""
_CAPTION = 44
_BAND = 64
"""Number of rows that are coloured at a time."""
_GAP = 6
_STEM = 120
"""Bytes of a label or an image's name in its picture's name, which file systems limit to 255 bytes in all."""
_INK, _PAPER, _DIM = (235, 238, 242), (24, 27, 33), (150, 158, 170)
_RED, _GREEN, _AMBER = (255, 92, 92), (82, 196, 120), (255, 190, 80)


def printable(name: str) -> str:
    """Make a name printable on one line: other characters become question marks."""
    return "".join(sign if sign.isprintable() else "?" for sign in name)


def has_own_name(sample: Sample) -> bool:
    """Whether the picture of an image has the image's label and name as they are."""
    return all(file_name(name, _STEM) == name for name in (sample.label, PurePosixPath(sample.key).stem))


@dataclass(frozen=True)
class Verdict:
    """The decision about one image, as shown in its caption; ``threshold`` is normalised, ``score`` is raw."""

    sample: Sample
    score: float
    normalized_score: float
    anomalous: bool
    threshold: float

    @property
    def wrong(self) -> bool:
        """Whether the decision contradicts the label; false where the label is unknown."""
        return self.sample.defect is not None and self.sample.defect != self.anomalous

    @property
    def word(self) -> str:
        """The decision in one word."""
        return "anomalous" if self.anomalous else "good"

    def file_name(self, index: int) -> str:
        """File name without extension, in the label's folder: unique in a run, with decision and score."""
        mark = "_WRONG" if self.wrong else ""
        label, stem = (file_name(name, _STEM) for name in (self.sample.label, PurePosixPath(self.sample.key).stem))
        return f"{label}/{index:06d}_{stem}_{self.word}_{self.normalized_score:.4g}{mark}"


@dataclass(frozen=True)
class PixelLevels:
    """Lowest and highest raw pixel score of a run, and the pixel threshold, None if there is none."""

    low: float
    threshold: float | None
    high: float


def heat_image(scores: NDArray[np.float32], levels: PixelLevels, size: tuple[int, int]) -> Image.Image:
    """Draw raw pixel scores (H, W) as a grey image of ``size`` (width, height).

    0 is the lowest score of the run, 128 the threshold, 255 the highest, linear in between, so that a colour means the
    same in every picture. If all scores of the run reach the threshold, none is below 128; if none does, none is above.
    """
    scores = _max_pooled(scores, size)
    known, heats = zip(*_heats(levels), strict=True)
    heat = np.interp(scores, known, heats)
    return Image.fromarray((heat + 0.5).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def _max_pooled(scores: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Reduce a map that is larger than ``size`` (width, height) by max pooling: a mean would hide small defects."""
    for axis, target in ((0, size[1]), (1, size[0])):
        length = scores.shape[axis]
        if length > target:
            scores = np.maximum.reduceat(scores, np.arange(target) * length // target, axis)
    return scores


def _heats(levels: PixelLevels) -> list[tuple[float, float]]:
    """Points (score, heat) that the heat is interpolated between, ascending."""
    low, high = levels.low, levels.high
    middle = (low + high) / 2 if levels.threshold is None else levels.threshold
    below = [(low, 0.0)] if low < middle else []
    above = [(high, 255.0)] if high > middle else []
    return [*below, (middle, 128.0), *above]


def segment(scores: NDArray[np.float32], threshold: float | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Find where raw pixel scores (H, W), interpolated to ``size`` (width, height), reach the threshold.

    Interpolated scores are never higher than the map's scores around them, so only the surroundings of scores that
    reach the threshold are interpolated.

    Returns:
        A mask (height, width); all False without a threshold.
    """
    scores = _max_pooled(scores, size)
    full = np.zeros((size[1], size[0]), np.bool_)
    if threshold is None:
        return full
    found = _bounding_box(scores >= threshold)
    if found is None:
        return full
    rows, columns = (
        _resized_span(span, *lengths)
        for span, lengths in zip(found, zip(scores.shape, full.shape, strict=True), strict=True)
    )
    across, down = scores.shape[1] / size[0], scores.shape[0] / size[1]
    box = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
    part = (columns.stop - columns.start, rows.stop - rows.start)
    near = Image.fromarray(scores).resize(part, Image.Resampling.BILINEAR, box=box)
    full[rows, columns] = np.asarray(near) >= threshold
    return full


def _bounding_box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, slice] | None:
    """Rows and columns of the smallest rectangle around all set pixels, with a margin; None if no pixel is set."""
    spans = []
    for along, length in ((mask.any(1), mask.shape[0]), (mask.any(0), mask.shape[1])):
        places = np.flatnonzero(along)
        if not len(places):
            return None
        spans.append(slice(max(0, int(places[0]) - margin), min(length, int(places[-1]) + 1 + margin)))
    return spans[0], spans[1]


def _resized_span(span: slice, length: int, target: int) -> slice:
    """Pixels that depend on ``span`` when a line of ``length`` pixels is resized bilinearly to ``target`` pixels.

    ``length`` must not be larger than ``target``.
    """
    scale = length / target
    first = math.floor((span.start - 1) / scale) - 1
    last = math.ceil((span.stop + 1) / scale) + 1
    return slice(max(0, first), min(target, last))


def compose(
    image: Image.Image,
    heat: Image.Image,
    segmentation: NDArray[np.bool_],
    verdict: Verdict,
    truth: NDArray[np.bool_] | None = None,
) -> Image.Image:
    """Draw three panels under a caption: image with the true defect, heat map, image with the segmentation.

    Args:
        image: RGB.
        heat: grey, of the image's size or of the panel's.
        segmentation: mask (height, width) of the anomalous pixels, of either size.
        verdict: for the caption.
        truth: mask (height, width) of the defective pixels, if known, of either size.
    """
    size = panel_size(image.size)
    sheet, places = _empty_sheet(size)
    panel = _resized(image, size, Image.Resampling.NEAREST)
    sheet.paste(panel, places[0])
    if truth is not None:
        _outline(sheet, truth, size, places[0], _GREEN)
    _paste_heat(sheet, panel, _resized(heat, size, Image.Resampling.BICUBIC), places[1])
    sheet.paste(panel, places[2])
    _outline(sheet, segmentation, size, places[2], _RED)
    _write_caption(sheet, verdict)
    return sheet


def _empty_sheet(size: tuple[int, int]) -> tuple[Image.Image, list[tuple[int, int]]]:
    """A sheet for three panels of ``size``, and the panels' positions; only what panels do not cover is painted."""
    sheet = Image.new("RGB", (3 * size[0] + 2 * _GAP, size[1] + _CAPTION), None)
    places = [(index * (size[0] + _GAP), _CAPTION) for index in range(3)]
    sheet.paste(_PAPER, (0, 0, sheet.width, _CAPTION))
    for left, top in places[1:]:
        sheet.paste(_PAPER, (left - _GAP, top, left, sheet.height))
    return sheet, places


def panel_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size of the panel that shows an image of ``size`` (width, height).

    A small image is enlarged by a whole factor, and an image that is too long is reduced; the shorter side of one that
    is much longer than wide is then stretched to the smallest length.
    """
    shorter, longer = min(size), max(size)
    factor = max(1, -(-_SMALLEST // shorter))
    scale = min(factor, max(1, _LARGEST // longer)) if longer <= _LARGEST else _LARGEST / longer
    width, height = (max(_SMALLEST, round(length * scale)) for length in size)
    return width, height


def drawing_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size in which an image of ``size`` (width, height) is drawn before its panel is enlarged or stretched."""
    panel = panel_size(size)
    return min(size[0], panel[0]), min(size[1], panel[1])


def _resized(image: Image.Image, size: tuple[int, int], enlarging: Image.Resampling) -> Image.Image:
    """Enlarge by the given method, or reduce with antialiasing."""
    if image.size == size:
        return image
    is_larger = size[0] >= image.width and size[1] >= image.height
    return image.resize(size, enlarging if is_larger else Image.Resampling.BILINEAR)


@cache
def _blend_table() -> NDArray[np.uint32]:
    """Colours (RGB and an unused byte) by heat x 256 + grey; low heat covers less, so that the image stays visible."""
    cover = (70 + 0.5 * np.arange(256)) / 255
    colours = np.frombuffer(TURBO, np.uint8).reshape(256, 1, 3)
    mixed = np.zeros((256, 256, 4), np.uint8)
    mixed[..., :3] = colours * cover[:, None, None] + np.arange(256)[:, None] * (1 - cover[:, None, None]) + 0.5
    table: NDArray[np.uint32] = mixed.view(np.uint32).reshape(-1)
    return table


def _paste_heat(sheet: Image.Image, image: Image.Image, heat: Image.Image, place: tuple[int, int]) -> None:
    """Paste the heat map over the image in grey, so that every colour is heat.

    Works on a few rows at a time, which stay in the CPU's cache.
    """
    hot, grey = np.asarray(heat), np.asarray(image.convert("L"))
    for top in range(0, image.height, _BAND):
        index = np.left_shift(hot[top : top + _BAND], 8, dtype=np.uint16)
        index |= grey[top : top + _BAND]
        band = Image.frombytes("RGB", (image.width, len(index)), _blend_table().take(index).data, "raw", "RGBX")
        sheet.paste(band, (place[0], place[1] + top))


def _outline(
    sheet: Image.Image,
    region: NDArray[np.bool_],
    size: tuple[int, int],
    place: tuple[int, int],
    colour: tuple[int, int, int],
) -> None:
    """Draw a region's contour into the panel of ``size`` at ``place``, with a dark border that shows on any image."""
    if region.shape != (size[1], size[0]):
        smooth = Image.fromarray(region.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
        region = np.asarray(smooth) >= 128
    thickness = max(2, min(size) // 250)
    seam = thickness // 2
    extent = _bounding_box(region, margin=seam + 1)
    if extent is None:
        return
    inside = region[extent]
    at = (place[0] + extent[1].start, place[1] + extent[0].start)
    for line, ink in ((~inside & ~_eroded(~inside, seam), _PAPER), (inside & ~_eroded(inside, thickness), colour)):
        sheet.paste(ink, at, Image.fromarray(line.astype(np.uint8) * 255))


def _eroded(region: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """Erode a region ``times`` times by its 4-neighbourhood; the edges of the array do not erode it."""
    core = region
    for _ in range(times):
        smaller = core.copy()
        smaller[1:] &= core[:-1]
        smaller[:-1] &= core[1:]
        smaller[:, 1:] &= core[:, :-1]
        smaller[:, :-1] &= core[:, 1:]
        core = smaller
    return core


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _write_caption(sheet: Image.Image, verdict: Verdict) -> None:
    draw = ImageDraw.Draw(sheet)
    large, small = _font(17), _font(12)
    colour = _AMBER if verdict.wrong else _RED if verdict.anomalous else _GREEN
    draw.rectangle((0, 0, 5, _CAPTION - _GAP), fill=colour)
    title = verdict.word.upper() + ("  -  WRONG" if verdict.wrong else "")
    draw.text((14, 1), title, fill=colour, font=large)
    draw.text(
        (14, 23),
        f"score {verdict.normalized_score:.4g}   threshold {verdict.threshold:.4g}   raw {verdict.score:.4g}",
        fill=_INK,
        font=small,
    )
    draw.text((sheet.width - 8, 4), f"label: {printable(verdict.sample.label)}", fill=_INK, font=small, anchor="ra")
    key = printable(verdict.sample.key)
    name = key if len(key) <= 48 else "..." + key[-45:]
    draw.text((sheet.width - 8, 23), name, fill=_DIM, font=small, anchor="ra")
