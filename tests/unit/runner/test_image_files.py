"""File by file: what cameras, editors and file managers write is read rightly, or named, or nobody misses it."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomaly_runner.data.images import Decoded, UnreadableImageError, decode, is_clutter, is_image_name

LIMIT = 1_000_000
COLOURS = np.random.default_rng(0).integers(0, 256, (21, 35, 3)).astype(np.uint8)
GREY = COLOURS[..., 0]
TWELVE = np.random.default_rng(1).integers(0, 200, (12, 3)).astype(np.uint8)
FEW = TWELVE[np.random.default_rng(2).integers(0, 12, (21, 35))]
"""An image of twelve colours."""


def encoded(pixels: NDArray[Any], kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def with_palette(kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(FEW).quantize(16).save(buffer, kind, **options)
    return buffer.getvalue()


def interlaced(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG in Adam7's seven passes, which Pillow cannot write (W3C, PNG, section 8.2)."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(
        b"\0" + row.tobytes() for top, left, down, across in passes for row in pixels[top::down, left::across]
    )
    height, width = pixels.shape[:2]
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def from_the_top(pixels: NDArray[np.uint8]) -> bytes:
    """Return a BMP whose rows are stored from the top: its height is negative."""
    data = bytearray(encoded(pixels[::-1], "BMP"))
    data[22:26] = struct.pack("<i", -pixels.shape[0])
    return bytes(data)


def two_bytes_a_pixel(pixels: NDArray[np.uint8]) -> bytes:
    """Return a BMP of 16 bits a pixel: 5, 6 and 5 bits of red, green and blue."""
    red, green, blue = (pixels[::-1, :, channel].astype("<u2") for channel in range(3))
    values = (red >> 3 << 11) | (green >> 2 << 5) | (blue >> 3)
    values = np.pad(values, ((0, 0), (0, values.shape[1] % 2)))
    body, height, width = values.astype("<u2").tobytes(), *pixels.shape[:2]
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, len(body), 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    return struct.pack("<2sIHHI", b"BM", 66 + len(body), 0, 0, 66) + info + masks + body


EXACT: dict[str, tuple[bytes, NDArray[np.uint8]]] = {
    "interlaced png": (interlaced(COLOURS), COLOURS),
    "palette png": (with_palette("PNG"), FEW),
    "palette bmp": (with_palette("BMP"), FEW),
    "1-bit bmp": (encoded(GREY > 127, "BMP"), np.where(GREY > 127, 255, 0).astype(np.uint8)),
    "grey bmp": (encoded(GREY, "BMP"), GREY),
    "colour bmp": (encoded(COLOURS, "BMP"), COLOURS),
    "bmp with alpha": (encoded(np.dstack([COLOURS, GREY]), "BMP"), COLOURS),
    "bmp from the top": (from_the_top(COLOURS), COLOURS),
    "jpeg 2000": (encoded(COLOURS, "JPEG2000", irreversible=False), COLOURS),
    "grey jpeg 2000": (encoded(GREY, "JPEG2000", irreversible=False), GREY),
    "jpeg 2000 code stream": (encoded(COLOURS, "JPEG2000", irreversible=False, no_jp2=True), COLOURS),
    "gif": (with_palette("GIF"), FEW),
    "interlaced gif": (with_palette("GIF", interlace=1), FEW),
    "webp": (encoded(COLOURS, "WEBP", lossless=True), COLOURS),
    "tiff with lzw": (encoded(COLOURS, "TIFF", compression="tiff_lzw"), COLOURS),
    "tiff with deflate": (encoded(COLOURS, "TIFF", compression="tiff_adobe_deflate"), COLOURS),
    "big tiff": (encoded(COLOURS, "TIFF", big_tiff=True), COLOURS),
    "ppm": (encoded(COLOURS, "PPM"), COLOURS),
    "pbm": (encoded(GREY > 127, "PPM"), np.where(GREY > 127, 255, 0).astype(np.uint8)),
}


def seen(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode(data, LIMIT).image)


@pytest.mark.parametrize("name", EXACT)
def test_files_without_loss_are_read_to_the_bit(name: str) -> None:
    data, pixels = EXACT[name]
    assert np.array_equal(seen(data), pixels)


def test_bmp_of_two_bytes_a_pixel() -> None:
    assert np.abs(seen(two_bytes_a_pixel(COLOURS)).astype(int) - COLOURS).max() < 8


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 2}, {"quality": 100, "optimize": True}])
def test_every_kind_of_jpeg(options: dict[str, Any]) -> None:
    smooth = np.asarray(Image.fromarray(COLOURS).resize((4, 3)).resize((35, 21)))
    assert np.abs(seen(encoded(smooth, "JPEG", **({"quality": 95} | options))).astype(int) - smooth).mean() < 8


def animated(kind: str, **options: Any) -> Decoded:
    frames = [Image.fromarray(255 - COLOURS)]
    return decode(encoded(COLOURS, kind, save_all=True, append_images=frames, **options), LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_of_several_frames_the_first_is_read(kind: str) -> None:
    found = animated(kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert found.has_more_frames
    assert np.array_equal(np.asarray(found.image), COLOURS)


def test_of_an_animated_gif_the_first_frame_is_read() -> None:
    buffer = BytesIO()
    first, second = (Image.fromarray(pixels).quantize(16) for pixels in (FEW, 255 - FEW))
    first.save(buffer, "GIF", save_all=True, append_images=[second])
    found = decode(buffer.getvalue(), LIMIT)
    assert found.has_more_frames
    assert np.array_equal(np.asarray(found.image), FEW)


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what it found
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_files_that_end_too_early_are_refused(name: str, share: float) -> None:
    data = EXACT[name][0]
    with pytest.raises(UnreadableImageError):
        decode(data[: int(len(data) * share)], LIMIT)


@pytest.mark.parametrize(
    "name", ["a.png", "A.PNG", "b/c.Jpeg", "x.jpe", "x.jfif", "x.TIF", "x.gif", "x.j2k", "x.dib", "x.pbm", "x.apng"]
)
def test_names_of_images(name: str) -> None:
    assert is_image_name(name)
    assert not is_clutter(name)


@pytest.mark.parametrize("name", [".DS_Store", "a/Thumbs.db", "a/desktop.ini", "a/._000.png", "a/", ".gitkeep"])
def test_what_file_managers_leave_behind_is_no_image_and_not_missed(name: str) -> None:
    assert not is_image_name(name)
    assert is_clutter(name)


@pytest.mark.parametrize("name", ["a/000", "a/000.json", "readme.txt", "a/000.png.part", "a/000.heic"])
def test_other_files_are_no_images_and_are_missed(name: str) -> None:
    assert not is_image_name(name)
    assert not is_clutter(name)
