"""The listing of a dataset as a file among the artifacts: written by one step of a run, used by the next.

It holds what listing and indexing have found out: the images by split with their masks, after missing splits and the
fraction were drawn, and the size and ETag of every file that is used. Neither the folders nor tables are read again, so
files that were added meanwhile are not seen. Each file is compared with its ETag and size when it is downloaded, or
used in place (``ObjectInfo.pinned``).

The file is Parquet, one row for each file, with the rest as JSON in the schema's metadata. Nothing in it is trusted: a
reader checks the form, every key and every reference.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from anomaly_api.base import Contract
from anomaly_api.run import UnreadableImage
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.storage.store import ObjectInfo, is_safe_key

LISTING = "listing.parquet"
"""Name of the file below the folder of the run's artifacts."""
_METADATA = b"anomaly_listing"
_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("label", pa.string()),
        pa.field("masks", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
    ]
)
"""``split`` and ``label`` are null for a file that is only a mask; ``masks`` are keys of other rows."""
_SPLITS = ("train", "validation", "test")


class ListingInvalidError(Exception):
    """The file is not a listing of this dataset; ``str()`` says why."""


@dataclass(frozen=True)
class FoundImages:
    """A dataset's images by split, and the files that they and their masks are, in the order of their use."""

    dataset: DatasetIndex
    objects: tuple[ObjectInfo, ...]


class _Rest(Contract):
    """What is known of a dataset beside its files."""

    version: Literal[1] = 1
    """Version of the file's form."""
    of: str
    """``selection_digest`` of what was listed."""
    unreadable: tuple[UnreadableImage, ...] = ()
    missing_masks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    layout: str = ""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0


class _Row(NamedTuple):
    """A row of the file."""

    key: str
    size: int
    etag: str
    split: str | None
    label: str | None
    masks: Sequence[str]


def selection_digest(*parts: str) -> str:
    """Digest of everything that decides which files are listed and what they mean."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def to_parquet(found: FoundImages, selection: str) -> bytes:
    """Write a listing.

    Args:
        found: the images, whose keys are safe and UTF-8, as those of all usable images are.
        selection: ``selection_digest`` of what was listed.
    """
    dataset = found.dataset
    images = {sample.key: (split, sample) for split in _SPLITS for sample in getattr(dataset, split)}
    rest = _Rest(
        of=selection,
        unreadable=dataset.unreadable,
        missing_masks=dataset.missing_masks,
        warnings=dataset.warnings,
        layout=dataset.layout,
        fraction=dataset.fraction,
    )
    placed = [images.get(info.key) for info in found.objects]
    columns = {
        "key": [info.key for info in found.objects],
        "size": [info.size for info in found.objects],
        "etag": [info.etag for info in found.objects],
        "split": [place and place[0] for place in placed],
        "label": [place and place[1].label for place in placed],
        "masks": [place[1].masks if place else () for place in placed],
    }
    schema = _SCHEMA.with_metadata({_METADATA: rest.model_dump_json(by_alias=True)})
    content = io.BytesIO()
    pq.write_table(pa.table(columns, schema), content, compression="zstd")
    return content.getvalue()


def from_parquet(content: bytes, selection: str) -> FoundImages:
    """Read a listing; its objects are pinned.

    Raises:
        ListingInvalidError: it is none, it is damaged, or something else was listed.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
        rest = _Rest.model_validate_json((table.schema.metadata or {}).get(_METADATA, b""), strict=True)
        rows = table.to_pydict()
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValidationError) as error:
        raise ListingInvalidError(f"it cannot be read: {str(error)[:200]}") from error
    if not table.schema.equals(_SCHEMA):
        raise ListingInvalidError("it has other columns")
    if rest.of != selection:
        raise ListingInvalidError("it is of other images")
    return _found(rows, rest)


def _found(rows: dict[str, list[Any]], rest: _Rest) -> FoundImages:
    keys = set(rows["key"])
    if len(keys) != len(rows["key"]):
        raise ListingInvalidError("it has a file twice")
    splits: dict[str, list[Sample]] = {split: [] for split in _SPLITS}
    for row in (_Row(*values) for values in zip(*(rows[name] for name in _Row._fields), strict=True)):
        _check_row(row, keys)
        if row.split is not None and row.label is not None:
            splits[row.split].append(Sample(row.key, row.label, tuple(row.masks)))
    dataset = DatasetIndex(
        train=_sorted(splits["train"]),
        validation=_sorted(splits["validation"]),
        test=_sorted(splits["test"]),
        unreadable=rest.unreadable,
        missing_masks=rest.missing_masks,
        warnings=rest.warnings,
        layout=rest.layout,
        fraction=rest.fraction,
    )
    if not dataset.test:
        raise ListingInvalidError("it has no images")
    objects = (
        ObjectInfo(key, size, etag, pinned=True)
        for key, size, etag in zip(rows["key"], rows["size"], rows["etag"], strict=True)
    )
    return FoundImages(dataset, tuple(objects))


def _check_row(row: _Row, keys: set[str]) -> None:
    """Check one row, beside the keys of all rows.

    Raises:
        ListingInvalidError: its key leads out of the folder, or it is contradictory.
    """
    if not is_safe_key(row.key) or row.size < 0:
        raise ListingInvalidError(f"it has a file that cannot be: {row.key[:200]!r}")
    if row.split is None and (row.label is not None or row.masks):
        raise ListingInvalidError(f"it has a label or masks of {row.key!r}, which is no image")
    if row.split is not None and (row.split not in _SPLITS or not row.label):
        raise ListingInvalidError(f"it has no split or no label of {row.key!r}")
    if not keys.issuperset(row.masks):
        raise ListingInvalidError(f"it lacks a mask of {row.key!r}")


def _sorted(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.key))
