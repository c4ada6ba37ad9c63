"""Decoded images in the cache: what a second run finds there, and what it does about anything else that lies there."""

import hashlib
import io
import multiprocessing
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea, DatasetLimits
from anomaly_runner.data import preprocessor as preprocessor_module
from anomaly_runner.data.batches import IntegrityLog, read_batches
from anomaly_runner.data.decoded_cache import DecodedImages, to_npz
from anomaly_runner.data.images import Decoded, UnreadableImageError
from anomaly_runner.data.notices import Notice
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.storage import FileCache, Prefetcher
from anomaly_runner.storage import object_cache as cache_module

SIZE = 20, 30
"""Rows and columns of the model's input."""
BY = Preprocessor(height=SIZE[0], width=SIZE[1], normalization="none")
PIXELS = 10_000
PROCESSES, IMAGES = 4, 40


@pytest.fixture(autouse=True)
def disk_with_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep no share of the disk free, however full this machine's is."""
    monkeypatch.setattr(cache_module, "_MIN_FREE_SHARE", 0.0)


def noise(seed: int, mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Noise of width x height ``size``, in one of the modes of files."""
    random, shape = np.random.default_rng(seed), size[::-1]
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 1 << 16, shape, np.uint16))
    if mode == "F":
        return Image.fromarray(random.random(shape, np.float32))
    return Image.fromarray(random.integers(0, 256, (*shape, 3)[: 3 if mode == "RGB" else 2], np.uint8))


def encoded(image: Image.Image, kind: str = "TIFF", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(folder: Path, data: bytes, by: Preprocessor = BY, max_pixels: int = PIXELS) -> Decoded:
    """Read a file as one run does; any warning fails."""
    return DecodedImages(FileCache(folder, pytest.fail), by, max_pixels).read(data, hashlib.sha256(data).digest())


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def undecodable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after whose call nothing can be decoded any more."""

    def refuse(*_: object, **__: object) -> Never:
        pytest.fail("a file was decoded")

    return lambda: monkeypatch.setattr(preprocessor_module, "decode", refuse)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "F"])
def test_the_second_run_decodes_nothing_and_gets_the_same_pixels(
    mode: str, tmp_path: Path, undecodable: Callable[[], None]
) -> None:
    image = noise(1, mode)
    data = encoded(image)
    values = np.asarray(image, np.float32) / (65535 if mode == "I;16" else 1)
    wanted = (image if mode in ("RGB", "L") else Image.fromarray(values)).resize(SIZE[::-1], Image.Resampling.BILINEAR)
    first = read(tmp_path, data)
    undecodable()
    second = read(tmp_path, data)
    for found in (first, second):
        np.testing.assert_array_equal(np.asarray(found.image), np.asarray(wanted))
        assert (found.image.mode, found.whole) == (wanted.mode, (60, 40))
        assert (found.turned, found.has_more_frames) == (False, False)


def test_what_was_noticed_about_a_file_is_kept(tmp_path: Path, undecodable: Callable[[], None]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = encoded(noise(1), "JPEG", exif=exif)
    frames = encoded(noise(2), "GIF", save_all=True, append_images=[noise(3)])
    read(tmp_path, turned)
    read(tmp_path, frames)
    undecodable()
    assert (read(tmp_path, turned).turned, read(tmp_path, turned).whole) == (True, (40, 60))
    assert read(tmp_path, frames).has_more_frames


@pytest.mark.parametrize(
    "change",
    [
        {"height": 21},
        {"width": 31},
        {"crop": CropArea(left=1, top=0, width=50, height=40)},
        {"bit_depth": 12},
        {"valid_area": ValidArea(Image.new("1", (60, 40), 1))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_have_entries_of_their_own(change: dict[str, Any], tmp_path: Path) -> None:
    data = encoded(noise(1))
    read(tmp_path, data)
    read(tmp_path, data, replace(BY, **change))
    assert len(entries(tmp_path)) == 2


def test_normalisations_share_an_entry(tmp_path: Path, undecodable: Callable[[], None]) -> None:
    data = encoded(noise(1))
    read(tmp_path, data)
    undecodable()
    read(tmp_path, data, Preprocessor(height=SIZE[0], width=SIZE[1], normalization="imagenet"))


def test_a_file_that_a_run_must_not_decode_is_refused_although_another_run_might(tmp_path: Path) -> None:
    data = encoded(noise(1))
    read(tmp_path, data)
    with pytest.raises(UnreadableImageError, match="60 x 40 pixels are more than maxImagePixels 2000"):
        read(tmp_path, data, max_pixels=2000)


def test_an_unreadable_file_leaves_no_entry(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UnreadableImageError):
            read(tmp_path, b"no image")
    assert entries(tmp_path) == []


def flipped(content: bytes) -> bytes:
    """An entry with one bit of its pixels changed."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


class Exploding:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], Never], tuple[str]]:
        return pytest.fail, ("an entry was unpickled",)


def pickled(_: bytes) -> bytes:
    """An .npz file whose pixels are a pickled object."""
    buffer = io.BytesIO()
    np.savez(buffer, mode=np.array("RGB"), facts=np.zeros(4, np.int64), pixels=np.array([Exploding()], object))
    return buffer.getvalue()


def of_another_size(_: bytes) -> bytes:
    return to_npz(Decoded(noise(9, size=(8, 8)), (60, 40)))


def in_a_mode(mode: str, pixels: NDArray[Any]) -> Callable[[bytes], bytes]:
    """An entry of a mode that no decoded image has."""

    def change(_: bytes) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, mode=np.array(mode), facts=np.array([60, 40, 0, 0], np.int64), pixels=pixels)
        return buffer.getvalue()

    return change


def said_to_be(field: int, value: int) -> Callable[[bytes], bytes]:
    """An entry whose first array is described otherwise: in field 8 (flags) or 10 (compression) of its ZIP record."""

    def change(content: bytes) -> bytes:
        place = content.index(b"PK\1\2") + field
        return content[:place] + bytes([value]) + content[place + 1 :]

    return change


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda content: content[: len(content) // 2],
        lambda _: b"",
        lambda _: pickle.dumps(Exploding()),
        pickled,
        of_another_size,
        in_a_mode("HSV", np.zeros((*SIZE, 3), np.uint8)),
        in_a_mode("HSV", np.zeros((), np.uint8)),
        said_to_be(8, 1),
        said_to_be(10, 8),
        said_to_be(10, 12),
        said_to_be(10, 14),
        said_to_be(10, 99),
    ],
    ids=[
        *("a bit", "half", "empty", "a pickle", "a pickled array", "another size", "a mode", "a number"),
        *("encrypted", "deflate", "bzip2", "LZMA", "an unknown method"),
    ],
)
def test_a_damaged_entry_is_made_anew(
    damage: Callable[[bytes], bytes], tmp_path: Path, undecodable: Callable[[], None]
) -> None:
    data = encoded(noise(1))
    wanted = np.asarray(read(tmp_path, data).image)
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    np.testing.assert_array_equal(np.asarray(read(tmp_path, data).image), wanted)
    assert entry.read_bytes() == whole
    undecodable()
    read(tmp_path, data)


def read_all(folder: Path, failures: "multiprocessing.Queue[str]") -> None:
    """Read every image twice, and compare it with what Pillow makes of it."""
    cache_module._MIN_FREE_SHARE = 0.0  # in this process, which ends with it
    cache = FileCache(folder, failures.put)
    for seed in [*range(IMAGES), *range(IMAGES)]:
        image = noise(seed)
        data = encoded(image)
        found = DecodedImages(cache, BY, PIXELS).read(data, hashlib.sha256(data).digest())
        if np.asarray(found.image).tobytes() != image.resize(SIZE[::-1], Image.Resampling.BILINEAR).tobytes():
            failures.put(f"image {seed} is another one")


def test_processes_write_one_cache_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    failures: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=read_all, args=(tmp_path, failures)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert failures.empty(), failures.get()
    assert len(entries(tmp_path)) == IMAGES, "one entry an image, and no temporary file"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_one_warning(small_disk: Path) -> None:
    warnings: list[str] = []
    cache = FileCache(small_disk, warnings.append)
    (small_disk / "other").write_bytes(bytes(48 << 10))
    for seed in range(20):
        data = encoded(noise(seed))
        found = DecodedImages(cache, BY, PIXELS).read(data, hashlib.sha256(data).digest())
        assert found.image.size == SIZE[::-1]
    assert len(warnings) <= 1
    assert 0 < len(entries(small_disk)) < 20


@pytest.mark.parametrize("full", [b"in the way", None], ids=["a file in its place", "read-only"])
def test_a_cache_that_cannot_be_written_is_still_read(
    full: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undecodable: Callable[[], None]
) -> None:
    kept, new, warnings = encoded(noise(1)), encoded(noise(2)), list[str]()
    if full is None:
        read(tmp_path, kept)

        def refuse(*_: object) -> Never:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Path, "write_bytes", refuse)
        monkeypatch.setattr(os, "utime", refuse)
    else:
        (tmp_path / "objects").write_bytes(full)
    images = DecodedImages(FileCache(tmp_path, warnings.append), BY, PIXELS)
    for _ in range(2):
        assert images.read(new, hashlib.sha256(new).digest()).image.size == SIZE[::-1]
    assert len(warnings) == 1
    assert "the data cache cannot be" in warnings[0]
    if full is None:
        undecodable()
        images.read(kept, hashlib.sha256(kept).digest())


def test_a_cache_that_is_too_slow_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, warnings = encoded(noise(1)), list[str]()
    read(tmp_path, data)
    clock = iter(range(0, 100_000, 50))
    monkeypatch.setattr(cache_module, "monotonic", lambda: float(next(clock)))
    images = DecodedImages(FileCache(tmp_path, warnings.append), BY, PIXELS)
    images.read(data, hashlib.sha256(data).digest())
    assert warnings == ["the data cache is slow (50 s for 0.0 MB): files are pulled instead"]
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the cache was asked"))
    assert images.read(data, hashlib.sha256(data).digest()).image.size == SIZE[::-1]


def test_batches_of_kept_images_are_the_same(tmp_path: Path, undecodable: Callable[[], None]) -> None:
    for index, mode in enumerate(["RGB", "L", "F"]):
        (tmp_path / f"{index}.tif").write_bytes(encoded(noise(index, mode)))
    (tmp_path / "3.gif").write_bytes(encoded(noise(3), "GIF", save_all=True, append_images=[noise(4)]))
    samples = [Sample(name, "good") for name in ("0.tif", "1.tif", "2.tif", "3.gif")]

    def batch(kept: DecodedImages | None) -> tuple[bytes, str, tuple[str, ...]]:
        log = IntegrityLog(DatasetLimits())
        prefetcher = Prefetcher(tmp_path, lambda: None)
        (found,) = read_batches(prefetcher, samples, BY, log, batch_size=9, threads=2, kept=kept)
        return found.images.tobytes(), log.fingerprint(), log.warnings(SIZE, DatasetIndex())

    kept = DecodedImages(FileCache(tmp_path / "cache", pytest.fail), BY, PIXELS)
    plain = batch(None)
    assert any("frame" in warning for warning in plain[2]), Notice.MORE_FRAMES
    assert batch(kept) == plain
    undecodable()
    assert batch(kept) == plain
