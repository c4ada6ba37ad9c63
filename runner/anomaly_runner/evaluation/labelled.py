"""Raw scores of labelled images and pixels, sorted by class.

Pixel scores of a test set may be larger than memory, so they are sorted in unnamed memory-mapped files: the kernel can
evict their pages, and deletes them when the process ends. The only metric that is computed here is AUPRO, which needs
the maps.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from anomaly_runner.data.masks import MaskReader
from anomaly_runner.evaluation.curves import ScoresByClass, sort_by_class
from anomaly_runner.evaluation.regions import aupro
from anomaly_runner.scoring.predict import Predictions

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class _Pixels:
    """Inputs of the sorted pixel scores.

    ``maps``: (N, H, W), raw. ``masks``: reads the ground truth of a labelled sample. ``valid``: mask (H, W) of the
    pixels that count; None for all. ``work``: folder for files.
    """

    predictions: Predictions
    maps: Maps
    masks: MaskReader
    valid: NDArray[np.bool_] | None
    work: Path

    def counted(self, pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The pixels of a mask (H, W) that are in the valid area."""
        return pixels if self.valid is None else pixels & self.valid

    def defective(self) -> Iterator[tuple[Maps, NDArray[np.bool_]]]:
        """Iterate over scores (H, W) and mask (H, W) of each defective image."""
        for sample, scores in zip(self.predictions.samples, self.maps, strict=True):
            if sample.defect:
                yield scores, self.counted(self.masks(sample))


@dataclass(frozen=True)
class LabelledScores:
    """Scores of the labelled images and of their pixels; images whose label is unknown are in ``image_by_label`` alone.

    ``pixel``: None without masks or maps. ``image_by_label``: image scores (N,) of each label, ascending.
    ``image_by_defect``, ``pixel_by_defect``: scores of one kind of defect, with
    those of all good images or pixels. ``max_pixel``: highest pixel score of each image; None if the model does not
    localise.
    """

    image: ScoresByClass
    pixel: ScoresByClass | None
    image_by_label: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    image_by_defect: Mapping[str, ScoresByClass] = field(default_factory=dict)
    pixel_by_defect: Mapping[str, ScoresByClass] = field(default_factory=dict)
    max_pixel: ScoresByClass | None = None
    pixels: _Pixels | None = None

    def aupro(self) -> float | None:
        """Area under the per-region overlap, 0..1; None without a region or a good pixel. Reads all maps again."""
        if self.pixels is None or self.pixel is None or not len(self.pixel.negative):
            return None
        return aupro(self.pixels.defective(), self.pixel.negative)


def sort_labelled_scores(
    predictions: Predictions, masks: MaskReader | None, work: Path, valid: NDArray[np.bool_] | None = None
) -> LabelledScores:
    """Sort the scores that have labels.

    Args:
        predictions: raw outputs; without maps, only image scores are sorted.
        masks: reads the ground truth of a labelled sample; None to sort only image scores.
        work: folder for the files that pixel scores are sorted in.
        valid: mask (H, W) of the pixels that count; None for all.
    """
    labelled = np.array([sample.defect is not None for sample in predictions.samples])
    positive = np.array([bool(sample.defect) for sample in predictions.samples])
    image = sort_by_class(predictions.scores[labelled], positive[labelled])
    by_label = {label: _sorted_scores_of(predictions, label) for label in {one.label for one in predictions.samples}}
    by_defect = {label: ScoresByClass(by_label[label], image.negative) for label in _kinds_of_defect(predictions)}
    highest = predictions.max_pixel_scores
    max_pixel = None if highest is None else sort_by_class(highest[labelled], positive[labelled])
    if masks is None or predictions.maps is None:
        return LabelledScores(image, None, by_label, by_defect, max_pixel=max_pixel)
    pixels = _Pixels(predictions, predictions.maps, masks, valid, work)
    good, defective = _sort_pixel_scores(pixels)
    return LabelledScores(
        image=image,
        pixel=ScoresByClass(_merge_sorted(defective.values(), work), good),
        image_by_label=by_label,
        image_by_defect=by_defect,
        pixel_by_defect={label: ScoresByClass(scores, good) for label, scores in defective.items()},
        max_pixel=max_pixel,
        pixels=pixels,
    )


def _sorted_scores_of(predictions: Predictions, label: str) -> NDArray[np.float32]:
    chosen = np.array([sample.label == label for sample in predictions.samples])
    return np.sort(predictions.scores[chosen])


def _kinds_of_defect(predictions: Predictions) -> list[str]:
    return sorted({sample.label for sample in predictions.samples if sample.defect})


def _sort_pixel_scores(pixels: _Pixels) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Sorted scores of the good pixels, and of the defective ones by kind of defect."""
    with ExitStack() as files:
        good = files.enter_context(tempfile.TemporaryFile(dir=pixels.work))
        kinds = {
            label: files.enter_context(tempfile.TemporaryFile(dir=pixels.work))
            for label in _kinds_of_defect(pixels.predictions)
        }
        for sample, scores in zip(pixels.predictions.samples, pixels.maps, strict=True):
            if sample.defect is not None:
                mask = pixels.masks(sample)
                scores[pixels.counted(~mask)].tofile(good)
                if sample.defect:
                    scores[pixels.counted(mask)].tofile(kinds[sample.label])
        return _sorted_file(good), {label: _sorted_file(file) for label, file in kinds.items()}


def _merge_sorted(parts: Iterable[NDArray[np.float32]], work: Path) -> NDArray[np.float32]:
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    with tempfile.TemporaryFile(dir=work) as file:
        for part in parts:
            part.tofile(file)
        return _sorted_file(file)


def _sorted_file(file: IO[bytes]) -> NDArray[np.float32]:
    """Sort the float32 numbers of a file in place, and return them memory-mapped."""
    file.flush()
    if file.tell() == 0:
        return np.empty(0, np.float32)
    values = np.memmap(file, np.float32, "r+")
    values.sort()
    return values
