"""The listing that one step leaves to the next: read as it was written, or refused."""

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anomaly_api.run import UnreadableImage
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.stored_listing import (
    FoundImages,
    ListingInvalidError,
    from_parquet,
    selection_digest,
    to_parquet,
)
from anomaly_runner.storage import ObjectInfo

DATASET = DatasetIndex(
    train=(Sample("train/good/0.png", "good"), Sample("train/good/1.png", "good")),
    validation=(Sample("val/good/0.png", "good"),),
    test=(Sample("test/good/\u5927.png", "good"), Sample("test/rip/a.png", "rip", ("m/1.png", "m/2.png"))),
    unreadable=(UnreadableImage(path="../x.png", problem="its key leads out of the folder"),),
    missing_masks=("test/rip/b.png",),
    warnings=("something is odd",),
    layout="MVTec AD",
    fraction=0.25,
)
FOUND = FoundImages(
    DATASET, tuple(ObjectInfo(key, place, f"etag{place}") for place, key in enumerate(DATASET.file_keys()))
)


def test_a_listing_is_read_as_it_was_written_and_its_files_are_pinned() -> None:
    read = from_parquet(to_parquet(FOUND, "of"), "of")
    assert read.dataset == DATASET
    assert [(info.key, info.size, info.etag, info.pinned) for info in read.objects] == [
        ("train/good/0.png", 0, "etag0", True),
        ("train/good/1.png", 1, "etag1", True),
        ("val/good/0.png", 2, "etag2", True),
        ("test/good/\u5927.png", 3, "etag3", True),
        ("test/rip/a.png", 4, "etag4", True),
        ("m/1.png", 5, "etag5", True),
        ("m/2.png", 6, "etag6", True),
    ]


def test_what_decides_about_the_files_has_a_digest() -> None:
    digests = {selection_digest(*parts) for parts in (("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"))}
    assert len(digests) == 4


def test_the_next_step_finds_a_listing_also_if_it_is_of_another_release() -> None:
    assert selection_digest("a", "b") == hashlib.sha256(b"a\0b").hexdigest()
    table = pq.read_table(io.BytesIO(to_parquet(FOUND, "of")))
    assert json.loads(table.schema.metadata[b"anomaly_listing"]) == {
        "version": 1,
        "of": "of",
        "unreadable": [{"path": "../x.png", "problem": "its key leads out of the folder"}],
        "missingMasks": ["test/rip/b.png"],
        "warnings": ["something is odd"],
        "layout": "MVTec AD",
        "fraction": 0.25,
    }
    assert table.schema.names == ["key", "size", "etag", "split", "label", "masks"]


def test_a_listing_is_compressed() -> None:
    """Paths of a million files have most of their letters in common."""
    group = pq.ParquetFile(io.BytesIO(to_parquet(FOUND, "of"))).metadata.row_group(0)
    assert {group.column(place).compression for place in range(6)} == {"ZSTD"}


def changed(column: str, row: int, value: Any) -> bytes:
    """The listing with one value replaced."""
    table = pq.read_table(io.BytesIO(to_parquet(FOUND, "of")))
    rows = table.to_pydict()
    rows[column][row] = value
    content = io.BytesIO()
    pq.write_table(pa.table(rows, table.schema), content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("column", "row", "value", "problem"),
    [
        ("key", 0, "../../etc/passwd", "a file that cannot be"),
        ("key", 0, "/etc/passwd", "a file that cannot be"),
        ("key", 0, "train/good/1.png", "^it has a file twice$"),
        ("size", 0, -1, "a file that cannot be"),
        ("split", 0, "training", "no split or no label"),
        ("split", 0, None, "which is no image"),
        ("label", 0, None, "no split or no label"),
        ("label", 0, "", "no split or no label"),
        ("masks", 4, ["m/3.png"], "lacks a mask"),
    ],
)
def test_a_row_that_cannot_be_is_refused(column: str, row: int, value: Any, problem: str) -> None:
    with pytest.raises(ListingInvalidError, match=problem):
        from_parquet(changed(column, row, value), "of")


def with_metadata(change: Callable[[dict[str, Any]], object]) -> bytes:
    table = pq.read_table(io.BytesIO(to_parquet(FOUND, "of")))
    rest = json.loads(table.schema.metadata[b"anomaly_listing"])
    change(rest)
    content = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"anomaly_listing": json.dumps(rest)}), content)
    return content.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda rest: rest.update(version=2),
        lambda rest: rest.update(fraction="0.5"),
        lambda rest: rest.update(more=1),
        lambda rest: rest.pop("of"),
    ],
)
def test_a_listing_of_another_form_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ListingInvalidError, match="cannot be read"):
        from_parquet(with_metadata(change), "of")


def without_metadata() -> bytes:
    """A table with the columns of a listing."""
    content = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(to_parquet(FOUND, "of"))).replace_schema_metadata(), content)
    return content.getvalue()


def without_a_column() -> bytes:
    table = pq.read_table(io.BytesIO(to_parquet(FOUND, "of"))).drop_columns(["etag"])
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def with_another_text() -> bytes:
    """The listing with a byte in its keys and labels that UTF-8 does not have there."""
    content = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(to_parquet(FOUND, "of"))), content, compression="none")
    return content.getvalue().replace(b"good", b"g\xe9od")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda: b"", "cannot be read"),
        (with_another_text, "cannot be read: 'utf-8' codec"),
        (lambda: b"PAR1 and nothing more PAR1", "cannot be read"),
        (lambda: to_parquet(FOUND, "of")[:-20], "cannot be read"),
        (lambda: to_parquet(FOUND, "others"), "^it is of other images$"),
        (lambda: to_parquet(FoundImages(DatasetIndex(), ()), "of"), "^it has no images$"),
        (without_metadata, "^it cannot be read: "),
        (without_a_column, "^it has other columns$"),
    ],
    ids=["empty", "another text", "no parquet", "cut", "of others", "no images", "no metadata", "a column less"],
)
def test_what_is_no_listing_of_these_images_is_refused(content: Callable[[], bytes], problem: str) -> None:
    with pytest.raises(ListingInvalidError, match=problem):
        from_parquet(content(), "of")
