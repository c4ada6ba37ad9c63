"""Decode image files and convert them to the model's input, identically in training and inference (Pillow, numpy).

Depths: 8-bit colour images become RGB, and grey images stay grey; deeper grey is scaled by the white that the file
states (65535 unless it is a PGM, a JPEG 2000 or a packed TIFF), or by the maximum of ``transforms.bitDepth``, such as
4095 for a 12-bit camera; float images hold 0..1; of 16-bit colour, which Pillow does not support, the upper 8 bits are
used. Values that Pillow would clip to white are refused instead.

Conventions: alpha is dropped, not composited, as in OpenCV and Pillow, because cameras write it without a meaning; the
first frame of several is used; EXIF orientation is applied to images and masks, as in OpenCV, because people label
images as they are displayed.

Files are untrusted: only formats of cameras are opened, the size is read from the header before anything is decoded,
and a truncated file is refused. Texts and colour profiles in PNG files may have any size: they are not unpacked.
"""

import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from anomaly_api.dataset import CropArea

_EXTENSIONS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"),
    *(".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx"),
)
"""File name endings, in lower case, that count as images; other files are ignored, and named."""
_CLUTTER = ("thumbs.db", "desktop.ini")
"""Names, in lower case, of files that file managers leave behind, besides those that begin with a dot."""
_CLUTTER_FOLDERS = re.compile(r"(?:^|/)(?:@eaDir|__MACOSX|\$RECYCLE\.BIN|System Volume Information)/", re.IGNORECASE)
"""Folders of file servers and managers: thumbnails of the images beside them, or what was deleted."""
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "GIF")
_ORIENTATION = 0x0112
"""EXIF's tag of the orientation, which TIFF has too; 1 is upright."""
_TURNED = range(2, 9)
"""Values of the orientation that turn or mirror the image; others have no meaning."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_NOTES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Chunks of texts and colour profiles. Pillow unpacks them, and refuses a file in which they are larger than 1 MiB."""
_METADATA_BYTES = 64 << 20
"""What a file may hold besides its pixels: texts, colour profiles, previews."""
_GREY = ("1", "L", "LA", "La")
_FLOAT_TOLERANCE = 1e-3
"""Tolerance of the range 0..1 of float images, which may have been rounded when they were written."""
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
)
"""Exceptions that Pillow's decoders raise on damaged files."""

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
"""ImageNet's mean and standard deviation of the RGB channels scaled to 0..1, as in torchvision."""

Image.MAX_IMAGE_PIXELS = None  # the limit is the dataset's own, checked in decode()


def is_image_name(key: str) -> bool:
    """Whether a file counts as an image by its name; "._x.png" is what macOS notes about x.png."""
    name = key.rpartition("/")[2]
    return name.lower().endswith(_EXTENSIONS) and not name.startswith("._") and not _CLUTTER_FOLDERS.search(key)


def is_clutter(key: str) -> bool:
    """Whether a file is left behind by a file manager, or a folder's marker on S3, so that nobody misses it."""
    name = key.rpartition("/")[2]
    return not name or name.startswith(".") or name.lower() in _CLUTTER or bool(_CLUTTER_FOLDERS.search(key))


def max_file_bytes(max_pixels: int) -> int:
    """Size in bytes of the largest file of an image with ``max_pixels``: uncompressed, four channels of 32 bits."""
    return 16 * max_pixels + _METADATA_BYTES


class UnreadableImageError(Exception):
    """The file cannot be used as an image; ``str()`` is the reason, for people."""


@dataclass(frozen=True)
class Decoded:
    """A decoded image file.

    Attributes:
        image: mode RGB or L (grey) with 8 bits a channel, or F (grey, 0..1) for higher depths; upright and cropped.
        whole: width and height before the crop, upright.
        turned: whether the file's pixels were turned or mirrored, as its EXIF orientation says.
        has_more_frames: whether the file has more than this image.
    """

    image: Image.Image
    whole: tuple[int, int]
    turned: bool = False
    has_more_frames: bool = False


def decode(
    data: bytes,
    max_pixels: int,
    crop: CropArea | None = None,
    *,
    bit_depth: int | None = None,
    before_crop: Callable[[Image.Image], Image.Image] | None = None,
) -> Decoded:
    """Decode an image file.

    Args:
        data: the file.
        max_pixels: largest width x height that is decoded.
        crop: the part that is kept; None for the whole image.
        bit_depth: significant bits of 16-bit grey, 8..16; None for those that the file states.
        before_crop: applied to the whole image before the crop.

    Raises:
        UnreadableImageError: the file is not an image or is damaged, or the image is larger than ``max_pixels``, has an
            unknown depth or values beyond its depth, or is smaller than the crop.
    """
    with opened(data, max_pixels) as file:
        whole = _to_standard_mode(file, bit_depth)
        kept = _cropped(before_crop(whole) if before_crop else whole, crop)
        return Decoded(kept, whole.size, file.turned, file.has_more_frames)


@dataclass(frozen=True)
class OpenedFile:
    """The first frame of a file, decoded and upright, in Pillow's mode for the file.

    ``white``: the largest value that the file states. ``deep_colour``: whether that is more than 255 in each colour
    channel, of which Pillow keeps the upper 8 bits. ``turned`` and ``has_more_frames``: see ``Decoded``.
    """

    image: Image.Image
    white: int
    deep_colour: bool
    turned: bool
    has_more_frames: bool


@contextmanager
def opened(data: bytes, max_pixels: int, *, lower_bytes: bool = False) -> Iterator[OpenedFile]:
    """Decode a file; what Pillow raises about it inside of the block becomes an UnreadableImageError too.

    Args:
        data: the file.
        max_pixels: largest width x height that is decoded.
        lower_bytes: of PNG and TIFF files with 16 bits a colour channel, read the lower 8 instead of the upper.

    Raises:
        UnreadableImageError: Pillow cannot decode the file, or the image has more than ``max_pixels``.
    """
    try:
        with Image.open(BytesIO(without_notes(data)), formats=_FORMATS) as image:
            _check_size(image, max_pixels)
            white, has_more_frames = _stated_white(image, data), bool(getattr(image, "is_animated", False))
            deep_colour = _is_deep_colour(image, white)
            turned = _tiff_tag(image, _ORIENTATION, 1) in _TURNED  # Pillow turns a TIFF while it loads it
            if lower_bytes:
                _swap_byte_order(image)
            _keep_stored_grey(image)
            image.load()
            turned |= _turn_upright(image)
            yield OpenedFile(image, white, deep_colour, turned, has_more_frames)
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(_problem(error)) from error


def without_notes(data: bytes) -> bytes:
    """A PNG file without its texts and its colour profile; any other file as it is."""
    if not data.startswith(_PNG_SIGNATURE):
        return data
    notes = [span for kind, span in _png_chunks(data) if kind in _PNG_NOTES]
    if not notes:
        return data
    starts, ends = [0, *(note.stop for note in notes)], [*(note.start for note in notes), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True))


def _png_chunks(data: bytes) -> Iterable[tuple[bytes, slice]]:
    """Type and place of each chunk of a PNG file, up to where it is damaged."""
    start = len(_PNG_SIGNATURE)
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        yield kind, slice(start, start + 12 + length)
        start += 12 + length


def _turn_upright(image: Image.Image) -> bool:
    """Apply EXIF orientation in place, and tell whether there was one; a damaged EXIF block is ignored."""
    if "exif" in image.info:
        with suppress(*_DECODER_ERRORS):
            orientation = image.getexif().get(_ORIENTATION)
            ImageOps.exif_transpose(image, in_place=True)
            return orientation in _TURNED
    return False


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UnreadableImageError(f"{image.width} x {image.height} pixels are more than maxImagePixels {max_pixels}")


def _problem(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return f"damaged file: {error}"[:200]


def _to_standard_mode(file: OpenedFile, bit_depth: int | None) -> Image.Image:
    """Convert to mode RGB, L, or F with values of 0..1; arguments and exceptions are those of ``decode``."""
    image, white = file.image, (1 << bit_depth) - 1 if bit_depth else file.white
    if image.mode == "F":
        return _unit_range(np.asarray(image, np.float32), 1.0)
    if image.mode.startswith("I"):  # I;16 in its byte orders, and I, which Pillow also uses for 16 bits
        return _deep_grey(file, white)
    if file.deep_colour and white != file.white:
        raise UnreadableImageError(
            f"16-bit colour, of which the upper 8 bits are read: bitDepth {bit_depth} "
            "cannot be used; store 8 bits a channel"
        )
    if image.mode == "P":  # Pillow warns of a palette that is transparent by degrees unless its alpha is read
        return image.convert("RGBA").convert("RGB")
    return image.convert("L" if image.mode in _GREY else "RGB")


def _deep_grey(file: OpenedFile, white: int) -> Image.Image:
    """Convert grey of more than 8 bits to mode F with values of 0..1."""
    values = np.asarray(file.image).astype(np.float32)
    if file.image.format == "JPEG2000":  # Pillow multiplies the values, so that they fill 16 bits
        values /= (1 << 16) // (file.white + 1)
    zero_is_white = _tiff_tag(file.image, PHOTOMETRIC_INTERPRETATION, 1) == 0  # Pillow ignores it beyond 8 bits
    if zero_is_white:
        values = white - values
    return _unit_range(values, float(white))


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    found = image.tag_v2.get(tag, default) if isinstance(image, TiffImageFile) else default
    return int(found[0] if isinstance(found, tuple) else found)


def _stated_white(image: ImageFile.ImageFile, data: bytes) -> int:
    """The largest value of a channel by the file itself, which of PGM only the decoder's arguments show."""
    match image.format:
        case "PPM":
            args = image.tile[0].args
            return args[-1] if isinstance(args, tuple) else 65535 if image.mode == "I" else 255
        case "JPEG2000":
            bits = _bits_of_jpeg2000(data)
        case _:
            bits = _tiff_tag(image, BITSPERSAMPLE, 16)
    return (1 << min(bits, 16)) - 1


def _is_deep_colour(image: ImageFile.ImageFile, white: int) -> bool:
    """Whether a colour file has 16 bits a channel, which of PNG and TIFF only the decoder's arguments show."""
    if image.mode.startswith("I"):
        return False
    if image.format in ("PPM", "JPEG2000"):
        return white > 255
    return any(";16" in str(tile.args) for tile in image.tile)


def _bits_of_jpeg2000(data: bytes) -> int:
    """Bits of the first channel: Ssiz in the header of the code stream (ISO/IEC 15444-1, A.5.1)."""
    return (data[data.index(b"\xff\x4f\xff\x51") + 42] & 0x7F) + 1


def _keep_stored_grey(image: ImageFile.ImageFile) -> None:
    """Have the decoder leave values of PGM as they are: it would scale them to 65535, and cut those beyond white."""
    if image.format == "PPM" and image.mode == "I":
        (tile,) = image.tile
        if tile.codec_name == "ppm_plain":
            image.tile = [tile._replace(args=(65535,))]
        else:  # that of other depths is a loop in Python
            image.tile = [tile._replace(codec_name="raw", args="I;16B")]


_OTHER_BYTE_ORDER = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}


def _swap_byte_order(image: ImageFile.ImageFile) -> None:
    """Have the decoder take 16-bit colour for the other byte order, so that it keeps the lower bytes."""
    for index, tile in enumerate(image.tile):
        args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        mode, _, order = str(args[0]).partition(";")
        swapped = (f"{mode};{_OTHER_BYTE_ORDER[order]}", *args[1:])
        image.tile[index] = tile._replace(args=swapped)


def _unit_range(values: NDArray[np.float32], full: float) -> Image.Image:
    """Convert grey values (H, W) in 0..``full`` to an image of mode F with values of 0..1.

    Raises:
        UnreadableImageError: a value is outside of the range, or NaN.
    """
    scaled = values / np.float32(full)
    low, high = float(scaled.min()), float(scaled.max())
    kind, tolerance = ("float", _FLOAT_TOLERANCE) if full == 1.0 else ("grey", 0.0)
    if not (low >= -tolerance and high <= 1 + tolerance):  # also catches NaN
        raise UnreadableImageError(f"{kind} values from {low * full:g} to {high * full:g}; expected 0 to {full:g}")
    return Image.fromarray(np.clip(scaled, 0, 1))


def _cropped(image: Image.Image, crop: CropArea | None) -> Image.Image:
    if crop is None:
        return image
    check_crop(image.size, crop)
    return image.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))


def check_crop(size: tuple[int, int], crop: CropArea) -> None:
    """Check that an image of ``size`` (width, height) covers the crop.

    Raises:
        UnreadableImageError: it does not.
    """
    right, bottom = crop.left + crop.width, crop.top + crop.height
    if right > size[0] or bottom > size[1]:
        raise UnreadableImageError(f"{size[0]} x {size[1]} pixels do not cover cropArea up to ({right}, {bottom})")


def to_input(
    image: Image.Image, height: int, width: int, normalization: Literal["imagenet", "none"]
) -> NDArray[np.float32]:
    """Convert one image to the model's input: float32 (3, height, width), RGB.

    The image is resized (see ``resize``), scaled to 0..1, then normalised; a grey image becomes three equal channels.

    Args:
        image: mode RGB, L, or F with values of 0..1.
        height: rows of the model's input.
        width: columns of the model's input.
        normalization: imagenet subtracts ImageNet's mean and divides by its standard deviation; none keeps 0..1.
    """
    bands = _bands(resize(image, height, width))
    pixels = np.empty((3, height, width), np.float32)
    for channel in range(3):
        pixels[channel] = bands[channel % len(bands)]
    if normalization == "imagenet":
        pixels -= MEAN[:, None, None]
        pixels /= STD[:, None, None]
    return pixels


def resize(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resize an image to (height, width) with Pillow's bilinear filter, which antialiases."""
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _bands(image: Image.Image) -> list[NDArray[np.float32]]:
    """The channels of an image, each (height, width) with values of 0..1."""
    white = np.float32(1 if image.mode == "F" else 255)
    return [np.asarray(band, np.float32) / white for band in image.split()]


def to_rgb8(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB, for display."""
    if image.mode != "F":
        return image.convert("RGB")
    return Image.fromarray((np.asarray(image) * 255 + 0.5).astype(np.uint8)).convert("RGB")
