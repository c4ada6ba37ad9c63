"""Every colour that is not black is defective, whatever the file's mode; masks lie on their images or are refused."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea
from anomaly_runner.data.images import UnreadableImageError
from anomaly_runner.data.mask_files import MaskFile, check_fit, has_same_aspect, open_mask, resize_mask

LIMIT = 1_000_000
TRUTH = np.zeros((48, 64), np.bool_)
TRUTH[10:20, 30:50] = True


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def painted(value: int | tuple[int, ...], mode: str, black: int | tuple[int, ...] = 0) -> Image.Image:
    """Return an image in which the truth has one value, and everything else another."""
    image = Image.new(mode, (64, 48), black)
    image.paste(value, (30, 10, 50, 20))
    return image


def palette(colours: list[int], **options: Any) -> bytes:
    """Return a PNG of palette indices: 1 where the truth is, else 0; ``colours`` are those of both."""
    image = Image.fromarray(TRUTH.astype(np.uint8), "P")
    image.putpalette(colours)
    return encoded(image, **options)


def reversed_palette() -> bytes:
    """Return a PNG whose index 0, where the truth is, is red, and whose index 1 is black."""
    image = Image.fromarray((~TRUTH).astype(np.uint8), "P")
    image.putpalette([1, 0, 0, 0, 0, 0])
    return encoded(image)


def set_pixels(data: bytes) -> NDArray[np.bool_]:
    return np.asarray(open_mask(data, LIMIT).pixels)


def png_of(chunks: dict[bytes, bytes]) -> bytes:
    """Return a PNG file of these chunks."""
    parts = (
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png16(channels: int, value: int) -> bytes:
    """Return a PNG of 16 bits a colour channel, which Pillow cannot write; the last channel has ``value``."""
    values = np.zeros((48, 64, channels), ">u2")
    values[TRUTH, -1] = value
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 64, 48, 16, {2: 4, 3: 2}[channels], 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return png_of(chunks)


def tiff16(order: str, value: int) -> bytes:
    """Return a TIFF of 16 bits a colour channel without compression, in which blue has ``value``."""
    values = np.zeros((48, 64, 3), f"{order}u2")
    values[TRUTH, 2] = value
    pixels = values.tobytes()
    tags = [(256, 64), (257, 48), (258, 16), (259, 1), (262, 2), (273, 8), (277, 3), (278, 48), (279, len(pixels))]
    # BitsPerSample with one value for three channels is read as that of each of them.
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, number) for tag, number in tags)
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(pixels))
    return start + pixels + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


def deep_jpeg2000(bits: int) -> bytes:
    """Return a JPEG 2000 code stream that states so many bits for each of three channels, which Pillow cannot write."""
    data = bytearray(encoded(painted((0, 0, 1), "RGB"), "JPEG2000", irreversible=False, no_jp2=True))
    data[42:51:3] = bytes([bits - 1]) * 3
    return bytes(data)


def bits(depth: int, pixels: str, transparent: int) -> bytes:
    """Return a PNG of a row of grey pixels, in hexadecimal digits of its bytes, with a transparent value."""
    row = bytes.fromhex(pixels)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 8 * len(row) // depth, 1, depth, 0, 0, 0, 0),
        b"tRNS": struct.pack(">H", transparent),
        b"IDAT": zlib.compress(b"\0" + row),
        b"IEND": b"",
    }
    return png_of(chunks)


@pytest.mark.parametrize(
    ("depth", "pixels", "transparent", "expected"),
    [
        (1, "a0", 1, [0] * 8),
        (1, "a0", 0, [1, 0, 1, 0, 0, 0, 0, 0]),
        (2, "1b", 1, [0, 0, 1, 1]),
        (2, "1b", 3, [0, 1, 1, 0]),
        (4, "012f", 15, [0, 1, 1, 0]),
        (4, "012f", 2, [0, 1, 0, 1]),
        (8, "000709ff", 7, [0, 0, 1, 1]),
        (8, "07", 9, [1]),
        (16, "0000000107000707", 0x0700, [0, 1, 0, 1]),
    ],
)
def test_grey_that_is_transparent_is_not_set_in_any_depth(
    depth: int, pixels: str, transparent: int, expected: list[int]
) -> None:
    assert set_pixels(bits(depth, pixels, transparent)).tolist() == [[value == 1 for value in expected]]


SMALLEST = {
    "1-bit": lambda: encoded(Image.fromarray(TRUTH)),
    "1-bit tiff whose zero is white": lambda: encoded(Image.fromarray(TRUTH), "TIFF", tiffinfo={262: 0}),
    "grey": lambda: encoded(painted(1, "L")),
    "grey bmp": lambda: encoded(painted(1, "L"), "BMP"),
    "16-bit": lambda: encoded(Image.fromarray(TRUTH.astype(np.uint16))),
    "16-bit tiff": lambda: encoded(Image.fromarray(TRUTH.astype(">u2")), "TIFF"),
    "16-bit tiff whose zero is white": lambda: encoded(
        Image.fromarray(65535 - TRUTH.astype(np.uint16)), "TIFF", tiffinfo={262: 0}
    ),
    "32-bit labels": lambda: encoded(Image.fromarray(TRUTH.astype(np.int32) << 24), "TIFF"),
    "negative labels": lambda: encoded(Image.fromarray(-TRUTH.astype(np.int32)), "TIFF"),
    "float": lambda: encoded(Image.fromarray(TRUTH.astype(np.float32) * 1e-6), "TIFF"),
    "red": lambda: encoded(painted((1, 0, 0), "RGB")),
    "green": lambda: encoded(painted((0, 1, 0), "RGB")),
    "blue": lambda: encoded(painted((0, 0, 1), "RGB")),
    "blue webp without loss": lambda: encoded(painted((0, 0, 1), "RGB"), "WEBP", lossless=True),
    "animated webp without loss": lambda: encoded(
        painted((0, 0, 1), "RGB"), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (64, 48), 9)]
    ),
    "blue jpeg 2000 without loss": lambda: encoded(painted((0, 0, 1), "RGB"), "JPEG2000", irreversible=False),
    "blue ppm": lambda: encoded(painted((0, 0, 1), "RGB"), "PPM"),
    "blue and opaque": lambda: encoded(painted((0, 0, 1, 255), "RGBA", (0, 0, 0, 255))),
    "blue on transparent": lambda: encoded(painted((0, 0, 1, 1), "RGBA", (0, 0, 0, 0))),
    "blue on transparent white": lambda: encoded(painted((0, 0, 1, 255), "RGBA", (255, 255, 255, 0))),
    "grey on transparent white": lambda: encoded(painted((1, 9), "LA", (255, 0))),
    "grey with a transparent value": lambda: encoded(painted(1, "L", 7), transparency=7),
    "16-bit grey with a transparent value": lambda: encoded(
        Image.fromarray(np.where(TRUTH, 1, 7).astype(np.uint16)), transparency=7
    ),
    "palette": lambda: palette([0, 0, 0, 0, 0, 1]),
    "palette whose first colour is not black": reversed_palette,
    "palette with a transparent colour": lambda: palette([255, 255, 255, 0, 0, 1], transparency=0),
    "lab": lambda: encoded(painted((1, 0, 0), "LAB"), "TIFF"),
    "ycbcr": lambda: encoded(painted((1, 128, 128), "YCbCr", (0, 128, 128)), "TIFF"),
    "cmyk": lambda: encoded(painted((0, 0, 0, 254), "CMYK", (0, 0, 0, 255)), "TIFF"),
    "16-bit colour": lambda: png16(3, 1),
    "16-bit colour, upper byte": lambda: png16(3, 256),
    "16-bit colour tiff": lambda: tiff16("<", 1),
    "16-bit colour tiff in the other byte order": lambda: tiff16(">", 1),
}


@pytest.mark.parametrize("make", SMALLEST.values(), ids=SMALLEST.keys())
def test_the_smallest_value_that_is_not_black_is_set_in_every_mode(make: Callable[[], bytes]) -> None:
    assert np.array_equal(set_pixels(make()), TRUTH)
    assert not open_mask(make(), LIMIT).lossy


def mixed_webp() -> bytes:
    """Return a WebP file whose first frame, noise beside the truth, is stored with loss, and whose second is not."""
    noise = np.random.default_rng(0).integers(0, 90, (48, 64, 3)).astype(np.uint8)
    noise[TRUTH] = 255
    data = encoded(
        Image.fromarray(noise),
        "WEBP",
        quality=90,
        save_all=True,
        append_images=[Image.new("RGB", (64, 48), (0, 0, 1))],
        allow_mixed=True,
    )
    assert 0 < data.index(b"VP8 ") < data.index(b"VP8L")
    return data


LOSSY = {
    "jpeg": lambda: encoded(painted(255, "L"), "JPEG", quality=60),
    "red jpeg": lambda: encoded(painted((255, 0, 0), "RGB"), "JPEG", quality=95, subsampling=0),
    "jpeg of several pictures": lambda: encoded(
        painted((255, 255, 255), "RGB"), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48), "white")]
    ),
    "jpeg in tiff": lambda: encoded(painted((255, 255, 255), "RGB"), "TIFF", compression="jpeg", quality=60),
    "webp": lambda: encoded(painted((255, 255, 255), "RGB"), "WEBP", quality=60),
    "webp with alpha": lambda: encoded(painted((255, 255, 255, 255), "RGBA", (0, 0, 0, 255)), "WEBP", quality=60),
    "animated webp": lambda: encoded(
        painted((255, 255, 255), "RGB"),
        "WEBP",
        quality=60,
        save_all=True,
        append_images=[Image.new("RGB", (64, 48), 9)],
    ),
    "webp of which only the first frame is lossy": mixed_webp,
    "jpeg 2000": lambda: encoded(painted((255, 255, 255), "RGB"), "JPEG2000", irreversible=True, quality_layers=[20]),
}


@pytest.mark.parametrize("make", LOSSY.values(), ids=LOSSY.keys())
def test_what_is_stored_with_loss_is_cut_at_half_of_white(make: Callable[[], bytes]) -> None:
    mask = open_mask(make(), LIMIT)
    assert mask.lossy
    assert np.array_equal(np.asarray(mask.pixels), TRUTH)


def test_of_two_code_streams_of_jpeg_2000_the_first_says_whether_it_has_lost_values() -> None:
    first = encoded(painted((0, 0, 1), "RGB"), "JPEG2000", irreversible=False, no_jp2=True)
    second = encoded(painted((0, 0, 1), "RGB"), "JPEG2000", irreversible=True, no_jp2=True)
    assert not open_mask(first + second, LIMIT).lossy
    assert open_mask(second + first, LIMIT).lossy


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"text", "not an image"),
        (encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), "^it has values that are not numbers$"),
        (png16(2, 1), "^it has 16 bits a channel of which"),
        (b"P6 2 1 65535\n" + bytes(12), "^it has 16 bits a channel of which"),
        (b"P6 2 1 256\n" + bytes(12), "^it has 16 bits a channel of which"),
        (deep_jpeg2000(9), "^it has 16 bits a channel of which"),
        (encoded(Image.new("F", (4, 4)), "TIFF", tiffinfo={262: 0}), "^it has floats of which 0 is white"),
    ],
    ids=[
        *("text", "nan", "16-bit grey with alpha", "16-bit ppm", "9-bit ppm", "9-bit jpeg 2000"),
        "floats whose zero is white",
    ],
)
def test_masks_that_cannot_be_read_rightly_are_refused(data: bytes, problem: str) -> None:
    with pytest.raises(UnreadableImageError, match=problem):
        open_mask(data, LIMIT)


def test_a_mask_is_turned_by_its_own_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(TRUTH).transpose(Image.Transpose.ROTATE_90)
    mask = open_mask(encoded(turned, exif=exif), LIMIT)
    assert mask == MaskFile(mask.pixels, turned=True)
    assert np.array_equal(np.asarray(mask.pixels), TRUTH)


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ((64, 48), (64, 48)),
        ((32, 24), (64, 48)),
        ((1024, 768), (1000, 750)),
        ((511, 383), (1023, 767)),
        ((512, 384), (1023, 767)),
        ((13, 10), (100, 75)),
        ((2046, 1534), (1023, 767)),
        ((1, 5000), (1, 5000)),
        ((1, 1), (1, 1)),
    ],
)
def test_masks_with_the_images_aspect_ratio_fit(mask: tuple[int, int], image: tuple[int, int]) -> None:
    assert has_same_aspect(mask, image)
    check_fit(mask, image)


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ((64, 48), (48, 64)),
        ((100, 101), (101, 100)),
        ((128, 128), (128, 96)),
        ((1920, 1088), (1920, 1080)),
        ((1, 1), (100, 50)),
        ((2, 5000), (1, 5000)),
        ((256, 256), (1023, 767)),
    ],
)
def test_masks_with_another_aspect_ratio_are_refused(mask: tuple[int, int], image: tuple[int, int]) -> None:
    with pytest.raises(UnreadableImageError, match=rf"{mask[0]} x {mask[1]} pixels.*{image[0]} x {image[1]}"):
        check_fit(mask, image)


@pytest.mark.parametrize("size", [(48, 64), (24, 32), (17, 90), (100, 200)])
@pytest.mark.parametrize("crop", [None, CropArea(left=8, top=4, width=40, height=24)])
def test_a_smaller_mask_lies_where_the_scaled_one_does(size: tuple[int, int], crop: CropArea | None) -> None:
    small = Image.fromarray(np.random.default_rng(0).random((12, 16)) > 0.5)
    scaled = small.resize((64, 48), Image.Resampling.NEAREST)
    part = scaled if crop is None else scaled.crop((crop.left, crop.top, 48, 28))
    wanted = np.asarray(part.resize((size[1], size[0]), Image.Resampling.NEAREST))
    assert np.array_equal(resize_mask(small, *size, crop, (64, 48)), wanted)


def test_a_crop_beyond_the_image_is_refused() -> None:
    crop = CropArea(left=50, top=0, width=30, height=10)
    with pytest.raises(UnreadableImageError, match="64 x 48 pixels do not cover cropArea"):
        resize_mask(Image.new("1", (128, 96)), 8, 8, crop, (64, 48))
