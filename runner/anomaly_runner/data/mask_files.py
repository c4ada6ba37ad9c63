"""Decode mask files: which pixels are set, at the mask's own size, and how a mask lies on its image.

A pixel is set if its colour is not black, in every mode of file: grey, colour, palette (by the colour, not the index),
1-bit, 16-bit, float, and label maps of any depth. A wholly transparent pixel has no colour and is not set. Colours are
never turned to grey by luminance, in which small values vanish. Files that are stored with loss are never quite black
around what was drawn: there a pixel is set from half of white on, in any channel.

A mask of another size than its image is scaled if both have the same aspect ratio, and refused otherwise: it would lie
on other parts of the image than those that were marked.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from anomaly_api.dataset import CropArea
from anomaly_runner.data.images import OpenedFile, UnreadableImageError, check_crop, opened

Size = tuple[int, int]
"""Width and height in pixels."""
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
_PNG_BITS = 24
"""Place of the bits a channel in a PNG file: in its header, which is its first chunk (RFC 2083, 4.1.1)."""
_HALF_OF_WHITE = 128
_MANY_SHADES = 16
"""Greys between black and half of white from which on a mask has shades: labels of classes are fewer."""
_ROUNDING = 0.5
"""A length in pixels that was scaled may have been rounded by so much."""
_LARGEST_DEVIATION = 0.05
"""Largest relative difference of two aspect ratios that rounding may explain: of a few pixels it explains anything."""


@dataclass(frozen=True)
class MaskFile:
    """A decoded mask.

    Attributes:
        pixels: mode 1, upright, at the mask's own size.
        lossy: whether the file is stored with loss.
        turned: whether the file has an EXIF orientation of its own, which has been applied.
        has_more_frames: whether the file has more than this mask.
        has_no_black: whether every pixel is set although their values differ, as where the background has a number.
        has_shades: whether it has white and many dark greys, as smooth edges or an earlier loss leave them.
    """

    pixels: Image.Image
    lossy: bool = False
    turned: bool = False
    has_more_frames: bool = False
    has_no_black: bool = False
    has_shades: bool = False


def open_mask(data: bytes, max_pixels: int) -> MaskFile:
    """Decode a mask.

    Raises:
        UnreadableImageError: as ``images.decode``, or the file has values that cannot be told from black.
    """
    with opened(data, max_pixels) as file:
        _spread_transparent_value(file.image, data)
        lossy = _is_lossy(file.image, data)
        pixels = _bright(file.image) if lossy else _not_black(file.image)
        if file.deep_colour and not lossy:
            pixels = pixels | _lower_bytes_set(file, data, max_pixels)
        return MaskFile(
            pixels=Image.fromarray(pixels),
            lossy=lossy,
            turned=file.turned,
            has_more_frames=file.has_more_frames,
            has_no_black=not lossy and bool(pixels.all()) and _has_several_values(file.image),
            has_shades=not lossy and _has_shades(file.image),
        )


def range_of_values(data: bytes, max_pixels: int) -> tuple[float, float]:
    """The smallest and the largest value in a mask's file, over all of its channels.

    Raises:
        UnreadableImageError: as ``images.decode``.
    """
    with opened(data, max_pixels) as file:
        values = np.asarray(file.image)
        return float(values.min()), float(values.max())


def _spread_transparent_value(image: Image.Image, data: bytes) -> None:
    """Spread the transparent grey of a PNG of 1, 2 or 4 bits over 8, as Pillow spreads the values, but not this one."""
    transparent = image.info.get("transparency")
    if image.format == "PNG" and image.mode in ("1", "L") and isinstance(transparent, int):
        bits = data[_PNG_BITS]
        # Of 1 bit, Pillow has spread it, and not the values, which are Boolean.
        image.info["transparency"] = min(transparent, 1) if bits == 1 else transparent * (255 // (2**bits - 1))


def _has_several_values(image: Image.Image) -> bool:
    values = np.asarray(image)
    return bool((values != values[0, 0]).any())


def _has_shades(image: Image.Image) -> bool:
    """Whether an image of 8 bits a channel has a value of half of white or more, and many below that are not black."""
    if image.mode not in ("L", "RGB"):
        return False
    found = np.reshape(image.histogram(), (-1, 256)).sum(0) > 0
    return bool(found[_HALF_OF_WHITE:].any() and found[1:_HALF_OF_WHITE].sum() >= _MANY_SHADES)


def _not_black(image: Image.Image) -> NDArray[np.bool_]:
    """Pixels (height, width) whose colour is not black and that are not wholly transparent."""
    if image.mode in ("F", "1") or image.mode.startswith("I"):
        return _deep_not_black(image)
    if image.mode == "LAB":  # in RGB, black would be rounded to other values
        lightness: NDArray[np.bool_] = np.asarray(image)[..., 0] != 0
        return lightness
    has_alpha = image.mode.endswith("A") or "transparency" in image.info
    if image.mode == "L" and not has_alpha:
        grey: NDArray[np.bool_] = np.asarray(image) != 0
        return grey
    values = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    set_pixels: NDArray[np.bool_] = (values[..., :3] != 0).any(-1) & (values[..., -1] > 0 if has_alpha else True)
    return set_pixels


def _deep_not_black(image: Image.Image) -> NDArray[np.bool_]:
    """As ``_not_black``, for one channel of 1, 16 or 32 bits, or of floats.

    Raises:
        UnreadableImageError: a value is NaN, or no value is known to be black.
    """
    values: Any = np.asarray(image)
    if image.mode == "F" and np.isnan(values).any():
        raise UnreadableImageError("it has values that are not numbers")
    found: NDArray[np.bool_] = values != _black(image)
    transparent = image.info.get("transparency")
    return found & (values != transparent) if isinstance(transparent, int) else found


def _black(image: Image.Image) -> int:
    """The value of black; Pillow leaves values as they are in a TIFF beyond 8 bits whose zero is white.

    Raises:
        UnreadableImageError: zero is white in a file of floats.
    """
    if not isinstance(image, TiffImageFile) or image.mode == "1":
        return 0
    if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) != 0:
        return 0
    if image.mode == "F":
        raise UnreadableImageError("it has floats of which 0 is white, so that no value is known to be black")
    return 65535


def _lower_bytes_set(file: OpenedFile, data: bytes, max_pixels: int) -> NDArray[np.bool_]:
    """Pixels that are not black by the lower 8 of 16 bits a channel, which hold the numbers of a label map.

    Raises:
        UnreadableImageError: Pillow cannot read them.
    """
    refused = "it has 16 bits a channel of which the lower 8 cannot be read: store 8 bits a channel, or grey"
    if file.image.format not in ("PNG", "TIFF"):
        raise UnreadableImageError(refused)
    try:
        with opened(data, max_pixels, lower_bytes=True) as lower:
            return _not_black(lower.image)
    except UnreadableImageError as error:
        raise UnreadableImageError(refused) from error


def _bright(image: Image.Image) -> NDArray[np.bool_]:
    """Pixels (height, width) with any colour channel at half of white or above, and not wholly transparent."""
    if image.mode.startswith("I"):
        found: NDArray[np.bool_] = np.asarray(image) >= 32768
        return found
    values = np.asarray(image.convert("RGBA"))
    return (values[..., :3] >= _HALF_OF_WHITE).any(-1) & (values[..., 3] > 0)


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    """Whether the file's format loses values: JPEG, WebP or JPEG 2000 unless lossless, and TIFF with one of these."""
    match image.format:
        case "JPEG" | "MPO":
            return True
        case "WEBP":
            return _is_lossy_webp(data)
        case "JPEG2000":
            return _has_irreversible_wavelets(data)
        case "TIFF":
            return image.info.get("compression") in _LOSSY_TIFF
    return False


def _is_lossy_webp(data: bytes) -> bool:
    """Whether the first frame of a WebP file is a VP8 and not a VP8L chunk (RFC 9649, section 2)."""
    place = 12
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, place)
        if kind in (b"VP8 ", b"VP8L"):
            return bool(kind == b"VP8 ")
        # The chunks of an animation's frame follow 16 bytes about the frame; others are padded to an even length.
        place += 24 if kind == b"ANMF" else 8 + size + size % 2
    return True


def _has_irreversible_wavelets(data: bytes) -> bool:
    """Whether a JPEG 2000 file uses the 9-7 wavelets, which lose values (ISO/IEC 15444-1, A.6.1)."""
    style = data.find(b"\xff\x52", data.find(b"\xff\x4f\xff\x51"))
    return data[style + 13 : style + 14] != b"\1"


def check_fit(mask: Size, image: Size) -> None:
    """Check that a mask can be scaled to an image: both have the same aspect ratio, but for rounding to whole pixels.

    Raises:
        UnreadableImageError: they have different aspect ratios.
    """
    if not has_same_aspect(mask, image):
        raise UnreadableImageError(
            f"it has {mask[0]} x {mask[1]} pixels, which is not the aspect ratio of the image's {image[0]} x {image[1]}"
        )


def has_same_aspect(mask: Size, image: Size) -> bool:
    """Whether some scale turns the image's size into the mask's, each length rounded to whole pixels."""
    lowest = max((have - _ROUNDING) / full for have, full in zip(mask, image, strict=True))
    highest = min((have + _ROUNDING) / full for have, full in zip(mask, image, strict=True))
    deviation = abs(mask[0] * image[1] / (mask[1] * image[0]) - 1)
    return lowest <= highest and deviation <= _LARGEST_DEVIATION


def resize_mask(
    mask: Image.Image, height: int, width: int, crop: CropArea | None, whole: Size | None = None
) -> NDArray[np.bool_]:
    """Scale a mask to its image, crop it like the image, and resize it to (height, width); all by nearest neighbour.

    Args:
        mask: mode 1.
        height: rows of the result.
        width: columns of the result.
        crop: the part of the image that is kept; None for the whole image.
        whole: width and height of the image; None for those of the mask.

    Raises:
        UnreadableImageError: the image is smaller than the crop.
    """
    box = place_on_mask(mask.size, crop, whole or mask.size)
    return np.asarray(mask.resize((width, height), Image.Resampling.NEAREST, box=box))


def place_on_mask(mask: Size, crop: CropArea | None, whole: Size) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the image's crop, in the mask's pixels; arguments are those of ``resize_mask``.

    Raises:
        UnreadableImageError: the image is smaller than the crop.
    """
    if crop is None:
        return (0, 0, *mask)
    check_crop(whole, crop)
    across, down = mask[0] / whole[0], mask[1] / whole[1]
    right, bottom = crop.left + crop.width, crop.top + crop.height
    return crop.left * across, crop.top * down, right * across, bottom * down
