"""Images are read in order and in bounded memory; what is learnt about their files is kept; expected values by hand."""

import hashlib
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import CropArea, DatasetLimits
from anomaly_api.run import UnreadableImage
from anomaly_runner.data.batches import Changes, IntegrityLog, read_batches, read_image
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import GOOD, SYNTHETIC, DatasetIndex, Sample
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage import Prefetcher

LIMIT = 1_000_000
BY = Preprocessor(height=2, width=3, normalization="none")
PAINTED = Sample("0.png (synthetic defect 0)", SYNTHETIC, source="0.png")
DEFECT = np.array([[True, False, False], [False, False, True]])


def write(folder: Path, count: int, size: tuple[int, int] = (3, 2)) -> list[Sample]:
    """Write images of width x height ``size``: the first black, the next of grey 1, and so on."""
    for index in range(count):
        Image.new("L", size, index).save(folder / f"{index}.png")
    return [Sample(f"{index}.png", GOOD) for index in range(count)]


def log(tolerated: int = 0) -> IntegrityLog:
    return IntegrityLog(DatasetLimits(max_unreadable_images=tolerated))


class Watched(Prefetcher):
    """Notes what is read, and by which threads; each file takes a moment."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, lambda: None)
        self.read: list[str] = []
        self.threads: set[int] = set()

    def path(self, key: str) -> Path:
        self.read.append(key)
        self.threads.add(threading.get_ident())
        time.sleep(0.01)
        return super().path(key)


def test_batches_are_full_but_for_the_last(tmp_path: Path) -> None:
    samples = write(tmp_path, 5)
    batches = list(read_batches(Prefetcher(tmp_path, lambda: None), samples, BY, log(), batch_size=2, threads=2))
    assert [[sample.key for sample in batch.samples] for batch in batches] == [
        ["0.png", "1.png"],
        ["2.png", "3.png"],
        ["4.png"],
    ]
    assert [batch.images.shape for batch in batches] == [(2, 3, 2, 3), (2, 3, 2, 3), (1, 3, 2, 3)]
    assert [float(image.max()) * 255 for batch in batches for image in batch.images] == pytest.approx(range(5))


def test_of_many_images_only_a_batch_and_two_a_thread_are_read_ahead(tmp_path: Path) -> None:
    """Two results of a batch are taken, and eight images more at most are decoded: 2 + 2 * 3."""
    prefetcher = Watched(tmp_path)
    batches = read_batches(prefetcher, write(tmp_path, 40), BY, log(), batch_size=2, threads=3)
    next(batches)
    end = time.monotonic() + 30
    while len(prefetcher.read) < 9 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(prefetcher.read) == 9
    assert len(prefetcher.threads) <= 3
    batches.close()  # type: ignore[attr-defined]


def test_an_image_reaches_the_model_by_the_depth_and_the_normalisation_that_are_set(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 4095, np.uint16)).save(tmp_path / "0.png")
    by = Preprocessor(height=2, width=3, normalization="imagenet", bit_depth=12)
    samples = [Sample("0.png", GOOD)]
    (batch,) = read_batches(Prefetcher(tmp_path, lambda: None), samples, by, log(), batch_size=1, threads=1)
    white = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert batch.images[0, :, 1, 2].tolist() == pytest.approx(white)


def paint(image: Image.Image, key: str) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Paint the defect white, on what has to be the image of the model's size."""
    assert (image.size, key) == ((3, 2), PAINTED.key)
    return Image.fromarray(np.where(DEFECT, 255, np.asarray(image)).astype(np.uint8)), DEFECT


def test_a_defect_is_painted_on_its_good_image_at_the_models_size(tmp_path: Path) -> None:
    write(tmp_path, 1, (6, 4))
    found = log()
    (batch,) = read_batches(
        Prefetcher(tmp_path, lambda: None), [PAINTED], BY, found, batch_size=4, threads=1, paint=paint
    )
    assert batch.images.tolist() == [[DEFECT.astype(float).tolist()] * 3]
    assert found.masks.reader((2, 3))(PAINTED).tolist() == DEFECT.tolist()
    assert list(found.digests) == ["0.png"]


def test_a_defect_that_nobody_paints_is_no_good_image(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(ValueError, match=r"0\.png \(synthetic defect 0\)"):
        read_image(Prefetcher(tmp_path, lambda: None), BY, LIMIT, Changes(), PAINTED)


def test_what_is_known_of_a_file_that_was_read(tmp_path: Path) -> None:
    """Its size before the crop, and how many channels it has; the digest is that of its bytes."""
    Image.new("RGB", (8, 4)).save(tmp_path / "0.png")
    by = Preprocessor(height=2, width=3, normalization="none", crop=CropArea(left=1, top=1, width=3, height=2))
    read = read_image(Prefetcher(tmp_path, lambda: None), by, LIMIT, Changes(), Sample("0.png", GOOD))
    assert (read.whole, read.mode) == ((8, 4), "RGB")
    assert read.digest == hashlib.sha256((tmp_path / "0.png").read_bytes()).digest()


@pytest.mark.parametrize(
    ("content", "digest"),
    [(None, b""), (b"no image", hashlib.sha256(b"no image").digest())],
    ids=["missing", "damaged"],
)
def test_a_file_that_cannot_be_used_has_a_digest_only_if_it_was_opened(
    tmp_path: Path, content: bytes | None, digest: bytes
) -> None:
    if content is not None:
        (tmp_path / "0.png").write_bytes(content)
    read = read_image(Prefetcher(tmp_path, lambda: None), BY, LIMIT, Changes(), Sample("0.png", GOOD))
    assert (read.digest, read.whole, read.mode, read.mask) == (digest, None, "", None)
    assert isinstance(read.image, str)


def test_the_fingerprint_is_that_of_the_paths_and_contents_in_the_order_of_the_paths() -> None:
    found = log()
    found.digests |= {"b.png": b"2" * 32, "a.png": b""}
    assert found.fingerprint() == hashlib.sha256(b"a.png\0b.png\0" + b"2" * 32).hexdigest()


def refused(*paths: str) -> list[UnreadableImage]:
    return [UnreadableImage(path=path, problem=f"problem of {path}") for path in paths]


def test_files_that_were_refused_unopened_are_recorded_with_their_problems() -> None:
    found = log(tolerated=2)
    found.extend_unreadable(refused("a.png", "b.png", "a.png"))
    assert found.unreadable == refused("a.png", "b.png")
    with pytest.raises(DataInvalid, match=r"3 unreadable images.*c\.png: problem of c\.png"):
        found.extend_unreadable(refused("c.png"))


def test_a_defect_that_vanishes_at_the_models_size_is_told_with_that_size(tmp_path: Path) -> None:
    """Of 4 x 6 pixels, the second and fourth row are taken, and every second column."""
    mask = np.zeros((4, 6), np.bool_)
    mask[0, 0] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (image,), found = write(tmp_path, 1, (6, 4)), log()
    sample = replace(image, label="dent", masks=("mask.png",))
    list(read_batches(Prefetcher(tmp_path, lambda: None), [sample], BY, found, batch_size=4, threads=1))
    (told,) = found.warnings((2, 3), DatasetIndex(test=(sample,)))
    assert told.startswith("1 defects of 1 vanish at inputSize 2 x 3 (height x width)")
