"""Rows of tables of images: CSV as labelling tools export it, Parquet, and the JSON lists of Real-IAD.

Source of the JSON form: Wang et al., "Real-IAD", CVPR 2024. CSV follows RFC 4180, with comma, semicolon or tab.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from anomaly_api.dataset import TableColumns
from anomaly_runner.data.layouts.labels import bare
from anomaly_runner.errors import DataInvalid

_REAL_IAD_GOOD = "OK"
_DELIMITERS = ",;\t"
_TOLD_DELIMITER = re.compile(r"sep=(.)[;,\t]*\r?\n")
"""First line of CSV files for Excel, which names the delimiter."""
_ROWS_AT_ONCE = 65_536


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        where: line of a CSV file, or number of a row or entry, from 1.
        path: the image; empty for a row without one.
        label: empty if it is not known.
        split: as it is written; empty if there is none.
        mask: empty if there is none.
    """

    where: int
    path: str
    label: str
    split: str
    mask: str


class ImageRows(NamedTuple):
    """The rows of a table.

    Attributes:
        rows: one after the other; read once.
        good_labels: labels of images without a defect that the table itself names.
        unit: what ``Row.where`` counts.
        prefix: a folder that the paths may lie in.
    """

    rows: Iterator[Row]
    good_labels: tuple[str, ...] = ()
    unit: str = "line"
    prefix: str = ""


def read_rows(content: bytes, name: str, columns: TableColumns, category: str | None = None) -> ImageRows:
    """Read a table, whose form is told by the ending of its name.

    Args:
        content: the file.
        name: its path, for its ending and for messages.
        columns: names of the columns of CSV and Parquet.
        category: of a JSON list, the entries with another category are left out.

    Raises:
        DataInvalid: the file does not have that form, or not the column of the paths. The rows raise it as well.
    """
    match PurePosixPath(name).suffix.lower():
        case ".csv" | ".tsv":
            return ImageRows(_csv_rows(content, name, columns))
        case ".parquet":
            return ImageRows(_parquet_rows(content, name, columns), unit="row")
        case ".json":
            return _json_rows(content, name, category)
    raise DataInvalid(f"{name} is no table: expected a name ending in .csv, .tsv, .parquet or .json")


def _csv_rows(content: bytes, name: str, columns: TableColumns) -> Iterator[Row]:
    try:
        text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
        first = text.readline()
        told = _TOLD_DELIMITER.fullmatch(first)
        if told is None:
            text.seek(0)
        before, delimiter = (1, told[1]) if told else (0, max(_DELIMITERS, key=first.count))
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        pick = _picker([column.strip() for column in next(reader, [])], name, columns)
        line = before + reader.line_num + 1  # of the beginning of a row, which may have several lines
        for values in reader:
            if any(value.strip() for value in values):
                yield pick(line, values)
            line = before + reader.line_num + 1
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{name} is not UTF-8: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise DataInvalid(f"{name}, line {before + reader.line_num}: {error}") from error


def _picker(header: list[str], name: str, columns: TableColumns) -> Callable[[int, list[str]], Row]:
    """The function that makes a row of the number of a line and its values.

    Raises:
        DataInvalid: there is no column of paths, or a column is there twice.
    """
    wanted = (columns.path, columns.label, columns.split, columns.mask)
    _check_columns(header, name, columns)
    places = [header.index(column) if column in header else None for column in wanted]

    def pick(line: int, values: list[str]) -> Row:
        if any(value.strip() for value in values[len(header) :]):  # spreadsheets may end each row with a delimiter
            raise DataInvalid(f"{name}, line {line}: {len(values)} values for {len(header)} columns")
        found = ("" if place is None or place >= len(values) else values[place].strip() for place in places)
        return Row(line, *found)

    return pick


def _check_columns(header: list[str], name: str, columns: TableColumns) -> None:
    """Check that there is a column of paths and each that the spec names, no wanted column twice, and none misspelt.

    Raises:
        DataInvalid: it is not so.
    """
    for field, usual in TableColumns().model_dump().items():
        column = getattr(columns, field)
        meant = [other for other in header if _singular(other) == _singular(column)]
        if header.count(column) > 1:
            raise DataInvalid(f"{name} has the column {column} {header.count(column)} times")
        if column not in header and (field == "path" or column != usual or meant):
            raise DataInvalid(
                f"{name} has no column {column}, but {', '.join(header)}: see dataset.table.columns.{field}"
            )


def _singular(column: str) -> str:
    """The name of a column in small letters and digits, without an s at its end."""
    return bare(column).removesuffix("s")


def _parquet_rows(content: bytes, name: str, columns: TableColumns) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        header = file.schema_arrow.names
        _check_columns(header, name, columns)
        wanted = (columns.path, columns.label, columns.split, columns.mask)
        count = 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column for column in wanted if column in header]):
            values = [_text_column(batch, column) for column in wanted]
            for row in zip(*values, strict=True):
                count += 1
                yield Row(count, *row)
    except pa.ArrowException as error:
        raise DataInvalid(f"{name} is not Parquet: {error}") from error
    except (OSError, UnicodeDecodeError) as error:  # of damage behind an intact head, and of texts
        raise DataInvalid(f"{name} cannot be read: {error}") from error


def _text_column(batch: pa.RecordBatch, column: str) -> list[str]:
    if column not in batch.schema.names:
        return [""] * batch.num_rows
    return ["" if value is None else str(value).strip() for value in batch.column(column).to_pylist()]


def _json_rows(content: bytes, name: str, category: str | None) -> ImageRows:
    """The entries of a JSON list, or of an object with the lists ``train`` and ``test`` (and ``val``).

    Raises:
        DataInvalid: it is neither.
    """
    try:
        document = json.loads(content)
    except ValueError as error:
        raise DataInvalid(f"{name} is not JSON: {error}") from error
    if isinstance(document, list):
        return ImageRows(_entries({"": document}, name, category), (_REAL_IAD_GOOD,), "entry")
    known = document if isinstance(document, dict) else {}
    lists = {split: known[split] for split in ("train", "val", "test") if split in known}
    if not lists or not all(isinstance(entries, list) for entries in lists.values()):
        raise DataInvalid(f"{name} is no list of images: expected a JSON list, or an object with lists train and test")
    meta = known.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    good = str(meta.get("normal_class") or _REAL_IAD_GOOD)
    return ImageRows(_entries(lists, name, category), (good,), "entry", str(meta.get("prefix") or ""))


def _entries(lists: Mapping[str, Iterable[Any]], name: str, category: str | None) -> Iterator[Row]:
    count = 0
    for split, entries in lists.items():
        for entry in entries:
            count += 1
            if not isinstance(entry, dict):
                raise DataInvalid(f"{name}, entry {count}: expected an object with image_path")
            if category and entry.get("category") not in (None, category):
                continue
            yield Row(
                count,
                path=str(entry.get("image_path") or ""),
                label=str(entry.get("anomaly_class") or ""),
                split=str(entry.get("split") or split),
                mask=str(entry.get("mask_path") or ""),
            )
