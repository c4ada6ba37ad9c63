"""Camera images of every depth and colour model are read correctly; errors of broken files give the reason."""

import random
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea
from anomaly_runner.data import images
from anomaly_runner.data.images import UnreadableImageError, to_input, to_rgb8

RAMP = np.linspace(0, 1, 64 * 48, dtype=np.float64).reshape(48, 64)
LIMIT = 1_000_000


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, max_pixels: int, crop: CropArea | None = None, bit_depth: int | None = None) -> Image.Image:
    return images.decode(data, max_pixels, crop, bit_depth=bit_depth).image


def ramp8(mode: str) -> Image.Image:
    return Image.fromarray((RAMP * 255).round().astype(np.uint8)).convert(mode)


def ramp16() -> Image.Image:
    return Image.fromarray((RAMP * 65535).round().astype(np.uint16))


FILES = {
    "grey png": encoded(ramp8("L")),
    "rgb png": encoded(ramp8("RGB")),
    "rgba png": encoded(ramp8("RGBA")),
    "grey and alpha": encoded(ramp8("LA")),
    "palette": encoded(ramp8("L").convert("P")),
    "bmp": encoded(ramp8("RGB"), "BMP"),
    "tiff": encoded(ramp8("RGB"), "TIFF"),
    "webp": encoded(ramp8("RGB"), "WEBP", lossless=True),
    "16-bit png": encoded(ramp16()),
    "16-bit tiff": encoded(ramp16(), "TIFF"),
    "float tiff": encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "cmyk tiff": encoded(ramp8("RGB").convert("CMYK"), "TIFF"),
    "jpeg": encoded(ramp8("RGB"), "JPEG", quality=100),
    "cmyk jpeg": encoded(ramp8("RGB").convert("CMYK"), "JPEG", quality=100),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_shows_the_same_ramp(name: str) -> None:
    tensor = to_input(decode(FILES[name], LIMIT), 48, 64, "none")
    assert tensor.shape == (3, 48, 64)
    assert tensor.dtype == np.float32
    assert np.abs(tensor - RAMP).max() < (0.02 if "jpeg" in name or name == "palette" else 0.005)


def png16(values: NDArray[np.float64], colour_type: int) -> bytes:
    """Return a PNG of 16 bits per channel, which Pillow cannot write: values (height, width, channels)."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def ramp_as(channels: int, white: int = 65535) -> NDArray[np.float64]:
    return np.repeat((RAMP * white).round()[..., None], channels, axis=2)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG2000", "PPM"])
def test_16_bits_in_both_byte_orders(mode: str, kind: str) -> None:
    if mode == "I;16B" and kind in ("JPEG2000", "PPM"):
        pytest.skip("these formats have one byte order")
    image = Image.fromarray((RAMP * 65535).round().astype(">u2" if mode == "I;16B" else "<u2"))
    tensor = to_input(decode(encoded(image, kind), LIMIT), 48, 64, "none")
    assert np.abs(tensor - RAMP).max() < (0.02 if kind == "JPEG2000" else 1e-4)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_is_read_by_its_upper_8_bits(colour_type: int, channels: int) -> None:
    data = png16(ramp_as(channels), colour_type)
    assert np.abs(to_input(decode(data, LIMIT), 48, 64, "none") - RAMP).max() < 0.005


def test_a_depth_that_colour_cannot_have_is_refused_instead_of_shown_dark() -> None:
    data = png16(ramp_as(3, 4095), 2)
    with pytest.raises(UnreadableImageError, match=r"16-bit colour.*bitDepth 12"):
        decode(data, LIMIT, bit_depth=12)
    assert decode(FILES["rgb png"], LIMIT, bit_depth=12).mode == "RGB"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_12_bit_images_fill_the_range_if_the_depth_is_set(kind: str) -> None:
    data = encoded(Image.fromarray((RAMP * 4095).round().astype(np.uint16)), kind)
    assert to_input(decode(data, LIMIT), 48, 64, "none").max() < 0.07
    assert np.abs(to_input(decode(data, LIMIT, bit_depth=12), 48, 64, "none") - RAMP).max() < 1e-3


def test_values_beyond_the_depth_are_refused() -> None:
    with pytest.raises(UnreadableImageError, match="grey values from 0 to 65535; expected 0 to 4095"):
        decode(FILES["16-bit png"], LIMIT, bit_depth=12)


def test_a_format_that_states_its_depth_needs_no_setting() -> None:
    values = (RAMP * 4095).round().astype(">u2")
    data = b"P5\n64 48\n4095\n" + values.tobytes()
    for bit_depth in (None, 12):
        assert np.abs(to_input(decode(data, LIMIT, bit_depth=bit_depth), 48, 64, "none") - RAMP).max() < 1e-3


def test_tiff_of_12_bits_a_pixel() -> None:
    """Two pixels in three bytes, as scientific cameras pack them."""
    values = (RAMP * 4095).round().astype(np.uint32).reshape(-1, 2)
    packed = (values[:, 0] << 12 | values[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    tags = [(256, 64), (257, 48), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 48), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed
    data += struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    assert np.abs(to_input(decode(data, LIMIT), 48, 64, "none") - RAMP).max() < 1e-3


def test_tiff_whose_zero_is_white() -> None:
    data = encoded(Image.fromarray((RAMP * 65535).round().astype(np.uint16)), "TIFF", tiffinfo={262: 0})
    assert np.abs(to_input(decode(data, LIMIT), 48, 64, "none") - (1 - RAMP)).max() < 1e-4


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_dropped_and_colours_below_it_stay(kind: str) -> None:
    image = ramp8("RGB")
    image.putalpha(Image.new("L", image.size, 0))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert np.array_equal(np.asarray(decode(encoded(image, kind, **options), LIMIT)), np.asarray(ramp8("RGB")))


def test_a_palette_with_a_transparent_colour() -> None:
    data = encoded(ramp8("L").convert("P"), transparency=0)
    assert np.abs(to_input(decode(data, LIMIT), 48, 64, "none") - RAMP).max() < 0.02


def test_the_first_frame_of_several_counts() -> None:
    data = encoded(ramp8("RGB"), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")])
    assert np.abs(to_input(decode(data, LIMIT), 48, 64, "none") - RAMP).max() < 0.005


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_images_are_upright_as_people_see_them(kind: str, orientation: int) -> None:
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    data = encoded(ramp8("RGB").transpose(turns[orientation]), kind, exif=exif, **options)
    decoded = decode(data, LIMIT)
    assert decoded.size == (64, 48)
    assert np.abs(to_input(decoded, 48, 64, "none") - RAMP).max() < 0.02
    assert images.decode(data, LIMIT).whole == (64, 48)
    assert images.decode(data, LIMIT).turned


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_the_size_of_a_whole_image_is_that_of_the_decoded_one(kind: str) -> None:
    """Also if only the XMP metadata has an orientation, which decoding ignores."""
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(ramp8("RGB"), kind, xmp=xmp.encode())
    with Image.open(BytesIO(data)) as image:
        assert image.getexif().get(0x0112) == 6
    found = images.decode(data, LIMIT)
    assert found.image.size == found.whole == (64, 48)
    assert not found.turned


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_is_ignored() -> None:
    data = encoded(ramp8("RGB"), "PNG", exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff")
    assert np.array_equal(np.asarray(decode(data, LIMIT)), np.asarray(ramp8("RGB")))


def noted(chunks: list[tuple[bytes, bytes]], data: bytes) -> bytes:
    """Insert chunks into a PNG file, after its header."""
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return data[:33] + b"".join(parts) + data[33:]


LONG = bytes(range(32, 96)) * (1 << 16)
"""4 MiB of text."""


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"zTXt", b"Comment\0\0" + zlib.compress(LONG))],
        [(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LONG))],
        [(b"tEXt", b"Comment\0" + LONG)],
        [(b"iCCP", b"profile\0\0" + zlib.compress(LONG))],
        [(b"zTXt", b"Comment\0\0" + zlib.compress(LONG))] * 20,
        [(b"zTXt", b"Comment\0\0no zlib"), (b"iCCP", b"")],
    ],
    ids=["zTXt", "iTXt", "tEXt", "iCCP", "80 MiB", "damaged"],
)
def test_texts_and_colour_profiles_of_any_size_are_skipped(chunks: list[tuple[bytes, bytes]]) -> None:
    data = FILES["rgb png"]
    assert np.array_equal(np.asarray(decode(noted(chunks, data), LIMIT)), np.asarray(ramp8("RGB")))
    assert images.without_notes(noted(chunks, data)) == data


def test_the_last_chunk_of_a_file_may_be_an_empty_text() -> None:
    empty = struct.pack(">I4sI", 0, b"tEXt", zlib.crc32(b"tEXt"))
    assert images.without_notes(FILES["rgb png"] + empty) == FILES["rgb png"]


def test_a_chunk_that_claims_to_be_larger_than_any_file_ends_the_search() -> None:
    """As a signed number the length would lead back to the chunk itself, for ever."""
    data = FILES["rgb png"][:33]
    claimed = struct.pack(">I4sI", 2**32 - 12, b"tEXt", 0)
    assert images.without_notes(data + claimed + FILES["rgb png"][33:]) == data


def test_a_large_colour_profile_of_a_jpeg() -> None:
    data = encoded(ramp8("RGB"), "JPEG", quality=100, icc_profile=LONG[: 2 << 20])
    assert np.array_equal(np.asarray(decode(data, LIMIT)), np.asarray(decode(FILES["jpeg"], LIMIT)))


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_more_frames_are_told(kind: str) -> None:
    frames = [Image.new("RGB", (64, 48), "red")]
    data = encoded(
        ramp8("RGB"), kind, save_all=True, append_images=frames, **{"lossless": True} if kind == "WEBP" else {}
    )
    found = images.decode(data, LIMIT)
    assert found.has_more_frames
    assert np.array_equal(np.asarray(found.image), np.asarray(ramp8("RGB")))
    assert not images.decode(encoded(ramp8("RGB"), kind), LIMIT).has_more_frames


def test_the_content_decides_and_not_the_name() -> None:
    """Decoding takes no name: a JPEG named .png is a JPEG."""
    assert decode(FILES["jpeg"], LIMIT).size == decode(FILES["grey png"], LIMIT).size


def test_16_bits_keep_their_depth() -> None:
    """More than 256 levels reach the model."""
    tensor = to_input(decode(FILES["16-bit png"], LIMIT), 48, 64, "none")
    assert len(np.unique(tensor[0])) > 2500


def test_1_bit_images() -> None:
    black_and_white = Image.fromarray(RAMP > 0.5)
    tensor = to_input(decode(encoded(black_and_white), LIMIT), 48, 64, "none")
    assert np.array_equal(tensor[0] > 0.5, RAMP > 0.5)


@pytest.mark.parametrize("size", [(48, 64), (20, 31), (100, 200)])
@pytest.mark.parametrize("normalization", ["imagenet", "none"])
def test_grey_gives_what_the_same_image_in_colour_gives(
    size: tuple[int, int], normalization: Literal["imagenet", "none"]
) -> None:
    grey = decode(FILES["grey png"], LIMIT)
    assert grey.mode == "L"
    assert np.array_equal(to_input(grey, *size, normalization), to_input(grey.convert("RGB"), *size, normalization))


def test_float_images_resize_without_rounding_to_8_bits() -> None:
    tensor = to_input(decode(FILES["float tiff"], LIMIT), 24, 32, "none")
    assert np.abs(tensor[0] - RAMP.reshape(24, 2, 32, 2).mean((1, 3))).max() < 0.02
    assert len(np.unique(tensor[0])) == 24 * 32


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not an image"),
        (b"hello, I am a text file with a .png name", "not an image"),
        (FILES["rgb png"][:-200], "damaged"),
        (FILES["jpeg"][: len(FILES["jpeg"]) // 2], "damaged"),
        (FILES["tiff"][:2000], "damaged"),
        (encoded(Image.new("1", (40000, 40000))), "1600000000 pixels|40000 x 40000"),
        (encoded(Image.fromarray(RAMP.astype(np.float32) * 300), "TIFF"), "float values from 0 to 300"),
        (encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), "float values"),
        (encoded(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"), "grey values from 1.04858e.06"),
        (encoded(Image.fromarray(np.full((4, 4), -5, np.int32)), "TIFF"), "grey values from -5"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_files_that_cannot_be_used_say_why(data: bytes, problem: str) -> None:
    with pytest.raises(UnreadableImageError, match=problem):
        decode(data, LIMIT)


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what it found
@pytest.mark.parametrize("name", FILES)
def test_damage_anywhere_is_either_harmless_or_reported(name: str) -> None:
    draw = random.Random(name)
    for _ in range(40):
        data = bytearray(FILES[name])
        for _ in range(draw.choice((1, 3, 20))):
            data[draw.randrange(min(len(data), draw.choice((64, 400, len(data)))))] = draw.randrange(256)
        with suppress(UnreadableImageError):
            assert decode(bytes(data), LIMIT).mode in ("RGB", "L", "F")


def test_crop_comes_first() -> None:
    crop = CropArea(left=10, top=20, width=30, height=15)
    image = decode(FILES["rgb png"], LIMIT, crop)
    assert image.size == (30, 15)
    assert np.array_equal(np.asarray(image), np.asarray(ramp8("RGB"))[20:35, 10:40])


@pytest.mark.parametrize(
    "crop", [CropArea(left=50, top=0, width=30, height=10), CropArea(left=0, top=45, width=30, height=4)]
)
def test_a_crop_beyond_the_image_is_refused(crop: CropArea) -> None:
    with pytest.raises(UnreadableImageError, match="cropArea"):
        decode(FILES["rgb png"], LIMIT, crop)


# At the limits; expected values are by hand


def test_the_largest_file_has_four_channels_of_32_bits_and_64_mib_besides() -> None:
    assert images.max_file_bytes(1000) == 16_000 + 64 * 1024 * 1024


def test_an_image_may_have_as_many_pixels_as_the_limit() -> None:
    data = encoded(Image.new("L", (5, 3)))
    assert decode(data, 15).size == (5, 3)
    with pytest.raises(UnreadableImageError, match="5 x 3 pixels are more than maxImagePixels 14"):
        decode(data, 14)


def test_imagenets_mean_is_subtracted_and_the_rest_divided_by_its_deviation() -> None:
    white, black = (to_input(Image.new("L", (1, 1), value), 1, 1, "imagenet")[:, 0, 0] for value in (255, 0))
    assert white == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert black == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


def test_resizing_weighs_neighbours_by_their_distance() -> None:
    """A triangle of two pixels to each side: of four pixels, the first three weigh 3, 3 and 1 sevenths."""
    step = Image.fromarray(np.array([[0, 0, 255, 255]], np.uint8))
    assert np.asarray(images.resize(step, 1, 2)).tolist() == [[round(255 / 7), round(255 * 6 / 7)]]


@pytest.mark.parametrize(
    ("data", "white"),
    [
        (encoded(Image.fromarray(np.array([[0, 65535]], np.uint16))), 1.0),
        (encoded(Image.fromarray(np.array([[0, 65535]], np.int32)), "TIFF"), 1.0),
        (b"P5\n2 1\n65535\n\0\0\xff\xff", 1.0),
        (b"P5\n2 1\n1023\n\0\0\x03\xff", 1.0),
        (b"P2\n2 1\n65535\n0 65535", 1.0),
        (encoded(Image.fromarray(np.array([[0, 1.0005]], np.float32)), "TIFF"), 1.0),
        (encoded(Image.fromarray(np.array([[-0.0005, 1]], np.float32)), "TIFF"), 1.0),
        (encoded(Image.fromarray(np.array([[0, 0.25]], np.float32)), "TIFF"), 0.25),
    ],
    ids=["PNG", "32-bit TIFF", "PGM", "10-bit PGM", "plain PGM", "rounded up", "rounded down", "float"],
)
def test_black_is_0_and_white_1_in_every_depth(data: bytes, white: float) -> None:
    assert np.asarray(decode(data, LIMIT)).tolist() == [[0.0, white]]


@pytest.mark.parametrize(
    ("pixels", "problem"),
    [
        (np.array([[0, 65536]], np.int32), "grey values from 0 to 65536; expected 0 to 65535"),
        (np.array([[0, 1.002]], np.float32), "float values from 0 to 1.002; expected 0 to 1"),
        (np.array([[-0.002, 1]], np.float32), "float values from -0.002 to 1; expected 0 to 1"),
    ],
)
def test_values_beyond_what_rounding_explains_are_refused(pixels: NDArray[np.generic], problem: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"^{problem}$"):
        decode(encoded(Image.fromarray(pixels), "TIFF"), LIMIT)


def test_white_of_a_jpeg_2000_is_that_of_its_depth() -> None:
    data = encoded(Image.fromarray(np.full((16, 16), 65535, np.uint16)), "JPEG2000", irreversible=False)
    assert np.asarray(decode(data, LIMIT)).tolist() == [[1.0] * 16] * 16


def test_a_palette_may_be_transparent_by_degrees() -> None:
    """Pillow warns of such a palette unless its alpha is read."""
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    found = decode(encoded(image, transparency=bytes((0, 128, 255))), LIMIT)
    assert np.asarray(found).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


def test_metadata_without_an_orientation_turn_nothing() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    assert not images.decode(encoded(ramp8("RGB"), "JPEG", exif=exif), LIMIT).turned


@pytest.mark.parametrize("mode", ["L", "RGB", "F"])
def test_what_people_see_is_8_bit_colour(mode: str) -> None:
    assert to_rgb8(Image.new(mode, (2, 2))).mode == "RGB"


def test_what_people_see_of_a_deep_image() -> None:
    assert np.abs(np.asarray(to_rgb8(decode(FILES["16-bit png"], LIMIT)), float)[..., 0] / 255 - RAMP).max() < 0.005


# Formats that state the depth of their grey


def pgm(values: NDArray[np.integer[Any]], white: int, *, plain: bool = False) -> bytes:
    """Return a PGM file of grey values (height, width) up to ``white``, in bytes or in decimal digits."""
    height, width = values.shape
    head = f"{'P2' if plain else 'P5'}\n{width} {height}\n{white}\n".encode()
    return head + (" ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2").tobytes())


def jpeg2000(values: NDArray[np.integer[Any]], bits: int) -> bytes:
    """Return a JPEG 2000 code stream of grey of so many bits, which Pillow cannot write.

    The depth in the header (Ssiz) is changed. Values are stored as their distance from the middle of the depth.
    """
    stored = (values + (1 << 15) - (1 << (bits - 1))).astype(np.uint16)
    data = bytearray(encoded(Image.fromarray(stored), "JPEG2000", irreversible=False, no_jp2=True))
    assert data[42] == 15
    data[42] = bits - 1
    return bytes(data)


def colour_jpeg2000(values: NDArray[np.uint8], bits: int) -> bytes:
    """Return a JPEG 2000 code stream of three channels of so many bits, as ``jpeg2000``.

    A value becomes its distance from 128 with the middle of the depth added.
    """
    data = bytearray(encoded(Image.fromarray(values), "JPEG2000", irreversible=False, no_jp2=True))
    for place in (42, 45, 48):
        assert data[place] == 7
        data[place] = bits - 1
    return bytes(data)


STATED: dict[str, Callable[[NDArray[np.integer[Any]], int], bytes]] = {
    "pgm": lambda values, bits: pgm(values, (1 << bits) - 1),
    "plain pgm": lambda values, bits: pgm(values, (1 << bits) - 1, plain=True),
    "jpeg 2000": jpeg2000,
}


@pytest.mark.parametrize("make", STATED.values(), ids=STATED.keys())
@pytest.mark.parametrize(
    ("stated", "bit_depth", "white"),
    [(12, None, 4095), (12, 12, 4095), (16, None, 65535), (16, 12, 4095), (10, 12, 4095), (12, 16, 65535)],
)
def test_a_depth_that_is_set_counts_whatever_the_file_says(
    make: Callable[[NDArray[np.integer[Any]], int], bytes], stated: int, bit_depth: int | None, white: int
) -> None:
    """As in PNG and TIFF: 1023 of 4095 is a quarter, also where the file could hold 65535."""
    values = np.tile([0, 1, 500, 1023], (16, 4))
    found = np.asarray(decode(make(values, stated), LIMIT, bit_depth=bit_depth))
    np.testing.assert_allclose(found, values / white, atol=1e-7)


@pytest.mark.parametrize("make", STATED.values(), ids=STATED.keys())
def test_values_beyond_the_depth_are_refused_whatever_the_file_says(
    make: Callable[[NDArray[np.integer[Any]], int], bytes],
) -> None:
    values = np.tile([0, 4096], (16, 8))
    with pytest.raises(UnreadableImageError, match="grey values from 0 to 4096; expected 0 to 4095"):
        decode(make(values, 16), LIMIT, bit_depth=12)


@pytest.mark.parametrize("plain", [False, True])
def test_values_beyond_those_that_a_pgm_states_are_refused_and_not_cut_to_white(plain: bool) -> None:
    with pytest.raises(UnreadableImageError, match="grey values from 0 to 1001; expected 0 to 1000"):
        decode(pgm(np.array([[0, 1001]]), 1000, plain=plain), LIMIT)


@pytest.mark.parametrize("stated", [4095, 65535])
@pytest.mark.parametrize("bit_depth", [None, 12, 16])
def test_deep_colour_is_read_only_by_the_depth_that_the_file_states(stated: int, bit_depth: int | None) -> None:
    data = b"P6\n1 1\n%d\n" % stated + np.array([0, stated // 2, stated], ">u2").tobytes()
    if bit_depth is None or (1 << bit_depth) - 1 == stated:
        assert np.asarray(decode(data, LIMIT, bit_depth=bit_depth)).tolist() == [[[0, 127, 255]]]
    else:
        with pytest.raises(UnreadableImageError, match=f"bitDepth {bit_depth} cannot be used"):
            decode(data, LIMIT, bit_depth=bit_depth)


@pytest.mark.parametrize(("bits", "expected"), [(9, 96), (12, 124), (16, 128)])
def test_deep_colour_of_jpeg_2000_is_read_only_by_the_depth_that_it_states(bits: int, expected: int) -> None:
    """The values, which are rounded to 8 bits: 64 - 128 + 256 of 9 bits, + 2048 of 12, + 32768 of 16."""
    data = colour_jpeg2000(np.full((16, 16, 3), 64, np.uint8), bits)
    for bit_depth in (None, bits):
        assert np.unique(np.asarray(decode(data, LIMIT, bit_depth=bit_depth))).tolist() == [expected]
    with pytest.raises(UnreadableImageError, match="bitDepth 10 cannot be used"):
        decode(data, LIMIT, bit_depth=10)


def test_a_depth_does_not_matter_to_8_bits() -> None:
    data = colour_jpeg2000(np.full((16, 16, 3), 64, np.uint8), 8)
    assert np.unique(np.asarray(decode(data, LIMIT, bit_depth=12))).tolist() == [64]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_8_bits_of_a_pgm_or_ppm_have_no_other_depth(mode: str) -> None:
    for plain in (False, True):
        kind = {("RGB", False): "P6", ("RGB", True): "P3", ("L", False): "P5", ("L", True): "P2"}[mode, plain]
        values = [0, 100, 200] if mode == "RGB" else [100]
        body = " ".join(map(str, values)).encode() if plain else bytes(values)
        found = decode(f"{kind} 1 1 200\n".encode() + body, LIMIT, bit_depth=12)
        assert found.mode == mode
        assert np.asarray(found).ravel().tolist() == ([0, 128, 255] if mode == "RGB" else [128])


def test_of_two_code_streams_of_jpeg_2000_the_first_says_the_depth() -> None:
    values = np.tile([0, 4095], (16, 8))
    data = jpeg2000(values, 12) + jpeg2000(values, 16)
    assert np.asarray(decode(data, LIMIT)).tolist() == [[0.0, 1.0] * 8] * 16
