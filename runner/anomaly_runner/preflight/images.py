"""Look at a few images of each label and split, and at their masks: download, decode and prepare them as the run would.

How much is looked at is bounded, so that the check of any dataset takes seconds; the log says how much it was.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from anomaly_api.status import Stage
from anomaly_runner.context import Context
from anomaly_runner.data.batches import Changes, IntegrityLog, ReadImage, read_image
from anomaly_runner.data.fetch import ListedDataset, prefetch_images
from anomaly_runner.data.files import read_file
from anomaly_runner.data.mask_files import range_of_values
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import DatasetIndex, Sample

logger = logging.getLogger(__name__)

PER_LABEL = 3
"""Images of each label of each split that are looked at: the first, the last and the middle one."""
MAX_IMAGES = 48
"""Images that are looked at in all."""
MAX_BYTES = 128 << 20
"""Bytes of images and masks that are downloaded in all."""
_NAMED = 4
_MODES = {"RGB": "8-bit colour", "L": "8-bit grey", "F": "grey of more than 8 bits"}
"""What ``images.Decoded`` calls the channels and depths of a file."""


@dataclass
class Look:
    """What was seen in the files.

    Attributes:
        sizes: images by width and height, before the crop.
        modes: images by channels and depth.
        masks: masks by their smallest and largest value.
        marked: share of the pixels that the masks of each image mark, 0..1.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    masks: Counter[tuple[float, float]] = field(default_factory=Counter)
    marked: list[float] = field(default_factory=list)

    def describe(self) -> str:
        """What was seen, for people."""
        sizes = _counted(f"{width} x {height}" for width, height in self.sizes.elements())
        modes = _counted(_MODES.get(mode, mode) for mode in self.modes.elements())
        images = f"{sizes} pixels, {modes}" if self.sizes else "none could be decoded"
        if not self.masks:
            return images
        values = _counted(f"{low:g} to {high:g}" for low, high in self.masks.elements())
        return f"{images}; masks with values {values}, marking {min(self.marked):.2%} to {max(self.marked):.2%}"


def _counted(names: Iterator[str]) -> str:
    found = Counter(names).most_common()
    named = ", ".join(f"{name} ({count})" for name, count in found[:_NAMED])
    return named + (", ..." if len(found) > _NAMED else "")


def choose_images(dataset: DatasetIndex, sizes: Mapping[str, int]) -> list[Sample]:
    """Choose a few images of each label and split, one of each before a second one of any.

    Args:
        dataset: images by split.
        sizes: bytes of each file by its key; an image that no longer fits into ``MAX_BYTES`` is left out.
    """
    chosen, left = list[Sample](), MAX_BYTES
    for sample in _in_turn([_spread(samples) for samples in _by_label(dataset)]):
        size = sum(sizes[key] for key in (sample.key, *sample.masks))
        if len(chosen) < MAX_IMAGES and size <= left:
            chosen.append(sample)
            left -= size
    return chosen


def _by_label(dataset: DatasetIndex) -> list[list[Sample]]:
    found: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    for split in ("train", "validation", "test"):
        for sample in getattr(dataset, split):
            if sample.source is None:  # synthetic defects are painted on images that are looked at anyway
                found[split, sample.label].append(sample)
    return list(found.values())


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """The first, the last and the middle image of a label: what is wrong with files often begins or ends somewhere."""
    places = dict.fromkeys((0, len(samples) - 1, len(samples) // 2))
    return [samples[place] for place in places]


def _in_turn(groups: Sequence[Sequence[Sample]]) -> Iterator[Sample]:
    for row in zip_longest(*groups):
        yield from (sample for sample in row if sample is not None)


def look_at_images(
    listed: ListedDataset, preprocessor: Preprocessor, integrity: IntegrityLog, context: Context
) -> Look:
    """Download and decode some images as the run would.

    Args:
        listed: the images.
        preprocessor: of the run.
        integrity: filled as the images are read.
        context: for the scratch folder, progress, warnings and stopping.

    Raises:
        DataInvalid: more of them cannot be used than the dataset tolerates.
        RunFailed: the storage failed, or the run was asked to stop.
    """
    objects = {info.key: info for info in listed.objects}
    chosen = choose_images(listed.dataset, {key: info.size for key, info in objects.items()})
    wanted = dict.fromkeys(key for sample in chosen for key in (sample.key, *sample.masks))
    prefetcher = prefetch_images(replace(listed, objects=tuple(objects[key] for key in wanted)), context)
    look, max_pixels = Look(), integrity.limits.max_image_pixels
    try:
        with context.stage(Stage.CHECK, len(chosen)):
            for sample in chosen:  # one at a time, so that memory holds one decoded image
                read = read_image(prefetcher, preprocessor, max_pixels, Changes(), sample)
                integrity.record(read)
                masks = [read_file(prefetcher, key) for key in sample.masks] if read.mask else []
                _note(look, read, [range_of_values(mask, max_pixels) for mask in masks])
                context.advance(1)
    finally:
        prefetcher.close()
    _tell(look, chosen, listed.dataset)
    warnings = integrity.warnings(preprocessor.size, listed.dataset)
    context.record.warn(*(f"of the images looked at: {text}" for text in warnings))
    return look


def _note(look: Look, read: ReadImage, masks: Sequence[tuple[float, float]]) -> None:
    if read.whole is not None:
        look.sizes[read.whole] += 1
        look.modes[read.mode] += 1
    if read.mask is not None:
        look.masks.update(masks)
        look.marked.append(float(read.mask.pixels.mean()))


def _tell(look: Look, chosen: Sequence[Sample], dataset: DatasetIndex) -> None:
    groups = _by_label(dataset)
    total, seen = sum(len(group) for group in groups), {sample.key for sample in chosen}
    logger.info("looked at %d of %d images, of each label and split: %s", len(chosen), total, look.describe())
    unseen = [group[0].label for group in groups if not any(sample.key in seen for sample in group)]
    if unseen:
        logger.warning(
            "of %d labels and splits no image was looked at, since only %d images of %d MB in all are: %s",
            len(unseen),
            MAX_IMAGES,
            MAX_BYTES >> 20,
            ", ".join(unseen[:_NAMED]),
        )
