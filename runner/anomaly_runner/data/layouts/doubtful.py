"""Files among images that are probably something else: masks, and the same image in another format.

People keep masks beside images (as the Magnetic-tile-defect and KolektorSDD2 data sets do) or in a folder of each label
(as MVTec 3D-AD does). Taken for images they would be easily told from good ones, and every metric would be too high.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from anomaly_runner.data.layouts.labels import MASK_ENDING, looks_like_masks, masks_among_images
from anomaly_runner.data.layouts.placed import PlacedFile
from anomaly_runner.data.notices import name_first
from anomaly_runner.errors import DataInvalid


def check_no_masks(images: Sequence[PlacedFile], masked: Collection[str], suffix: str, uri: str) -> None:
    """Check that no image seems to be a mask: by its folder, or by a name that is that of another image with an ending.

    Args:
        images: images to learn from and to test on.
        masked: keys of those that have a mask, and are none therefore.
        suffix: what follows the name of the image in that of its mask.
        uri: the dataset's root, for messages.

    Raises:
        DataInvalid: there are some.
    """
    folder = next((folder for image in images for folder in _folders_of_masks(image)), None)
    if folder is not None:
        raise DataInvalid(masks_among_images(f"{uri}/{folder}"))
    names = set(map(_place, images))
    found = [
        image.key
        for image in images
        if any((*_place(image)[:2], name) in names for name in _without_ending(image.name, suffix))
        and image.key not in masked
    ]
    if found:
        raise DataInvalid(
            f"{len(found)} images below {uri} are named as masks of images beside them: move masks to "
            f"ground_truth/LABEL, and rename what is an image: {name_first(found)}"
        )


def same_name_warning(images: Iterable[PlacedFile]) -> tuple[str, ...]:
    """The message about images that have the same name but for its extension, if there are any."""
    images = tuple(images)
    count = Counter(map(_place, images))
    alike = [image.key for image in images if count[_place(image)] > 1]
    if not alike:
        return ()
    return (
        f"{len(alike)} images have the name of another one but for its extension: each counts, with the same masks: "
        f"{name_first(alike)}",
    )


def _place(image: PlacedFile) -> tuple[str, str, str]:
    return image.role, image.label, image.name


def _folders_of_masks(image: PlacedFile) -> Iterator[str]:
    """The folders below the label's that are named as those of masks."""
    for depth, part in enumerate(image.name.split("/")[:-1]):
        if looks_like_masks(part):
            yield "/".join((image.folder, *image.name.split("/")[: depth + 1]))


def _without_ending(name: str, suffix: str) -> Iterator[str]:
    """The names of the image whose mask has this name."""
    if suffix and name.endswith(suffix):
        yield name.removesuffix(suffix)
    if MASK_ENDING.search(name):
        yield MASK_ENDING.sub("", name)
