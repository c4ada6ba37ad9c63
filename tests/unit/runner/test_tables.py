"""Tables of images: CSV, Parquet, and the lists of VisA and Real-IAD."""

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anomaly_api.dataset import Dataset
from anomaly_runner.data.layouts.rows import ImageRows, Row
from anomaly_runner.data.layouts.table import TableOptions, index_table
from anomaly_runner.data.listing import index_images
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.data.summary import describe
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage import FolderStore
from support.listings import objects

SOURCE = {"s3": {"uri": "s3://bucket"}}
IMAGES = ("a.png", "b.png", "c.png", "d.png", "masks/d.png", "masks/d2.png")
ROWS = (
    ("a.png", "good", "train", ""),
    ("b.png", "good", "train", ""),
    ("c.png", "good", "test", ""),
    ("d.png", "scratch", "test", "masks/d.png"),
)


def index_of(folder: Path, files: Mapping[str, bytes], **fields: object) -> DatasetIndex:
    """Index files of an experiment's source by its spec; ``fields`` are those of its dataset."""
    for key, content in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)
    data = Dataset.model_validate({"source": SOURCE} | fields)
    source = FolderStore(folder)
    store = source.subfolder("" if data.layout == "realIad" else data.category or "")
    return index_images(data, store, source, store.list(), True)


def csv_of(*rows: tuple[str, ...], header: str = "path,label,split,mask") -> bytes:
    return "\n".join((header, *(",".join(row) for row in rows))).encode()


def indexed(folder: Path, table: bytes, name: str = "labels.csv", **options: object) -> DatasetIndex:
    return index_of(folder, dict.fromkeys(IMAGES, b"") | {name: table}, table={"path": name} | options)


def facts(dataset: DatasetIndex) -> tuple[list[str], dict[str, tuple[str, tuple[str, ...]]]]:
    return [sample.key for sample in dataset.train], {
        sample.key: (sample.label, sample.masks) for sample in dataset.test
    }


FACTS = (["a.png", "b.png"], {"c.png": ("good", ()), "d.png": ("scratch", ("masks/d.png",))})


def parquet_of(*rows: tuple[str, ...], names: Sequence[str] = ("path", "label", "split", "mask")) -> bytes:
    columns = list(zip(*rows, strict=True))
    table = pa.table(dict(zip(names, columns, strict=True)) | {"size": [1] * len(rows)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("labels.csv", csv_of(*ROWS)),
        ("sub/labels.CSV", b"\xef\xbb\xbf" + csv_of(*ROWS).replace(b",", b";").replace(b"\n", b"\r\n")),
        ("labels.tsv", csv_of(*ROWS).replace(b",", b"\t")),
        ("labels.csv", csv_of(*((*row, "x") for row in ROWS), header="path,label,split,mask,annotator")),
        ("labels.csv", csv_of(*((f"./{row[0]}", *row[1:]) for row in ROWS))),
        ("labels.csv", csv_of(*ROWS) + b"\n,,,\n , ,\n"),
        ("labels.csv", csv_of(*((*row, "") for row in ROWS), header="path,label,split,mask")),
        ("labels.csv", b"sep=;\r\n" + csv_of(*ROWS).replace(b",", b";")),
        ("labels.parquet", parquet_of(*ROWS)),
    ],
    ids=("comma", "Excel", "tab", "more columns", "dots", "blank rows", "blank ends", "sep", "Parquet"),
)
def test_a_table_defines_splits_labels_and_masks(tmp_path: Path, name: str, table: bytes) -> None:
    dataset = indexed(tmp_path, table, name)
    assert facts(dataset) == FACTS
    assert describe(dataset) == f"{name}: 2 good to learn from, 2 to test (good 1, scratch 1), 1 masks"


def test_columns_and_the_good_label_have_the_names_of_the_tool(tmp_path: Path) -> None:
    renamed = [(row[0], row[1].replace("good", "OK"), row[2], row[3]) for row in ROWS]
    table = csv_of(*renamed, header="file,class,subset,annotation")
    columns = {"path": "file", "label": "class", "split": "subset", "mask": "annotation"}
    assert facts(indexed(tmp_path, table, columns=columns, goodLabel="OK")) == FACTS


def test_without_splits_good_images_are_to_learn_from(tmp_path: Path) -> None:
    table = csv_of(*((path, label) for path, label, *_ in ROWS), ("masks/d.png", ""), header="path,label")
    train, test = facts(indexed(tmp_path, table))
    assert train == ["a.png", "b.png", "c.png"]
    assert test == {"d.png": ("scratch", ()), "masks/d.png": ("unknown", ())}


def test_several_rows_of_an_image_add_their_masks(tmp_path: Path) -> None:
    dataset = indexed(tmp_path, csv_of(*ROWS, ("d.png", "scratch", "test", "masks/d2.png")))
    assert facts(dataset)[1]["d.png"] == ("scratch", ("masks/d.png", "masks/d2.png"))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("", "good", "test", ""), "line 6: no path"),
        (("e.txt", "good", "test", ""), "line 6: e.txt is no image"),
        (("c.png", "good", "holdout", ""), "line 6: the split holdout is not train, val or test"),
        (("masks/d.png", "OK", "test", ""), "line 6: the label OK would count as a kind of defect; set dataset.table"),
        (("masks/d.png", "Unknown", "test", ""), "line 6: the label Unknown would count as a kind of defect; leave it"),
        (("masks/d.png", "nan", "test", ""), "line 6: the label nan would count as a kind of defect; leave it empty"),
        (("masks/d.png", "ok front", "test", ""), "line 6: the label ok front would count"),
        (("masks/d.png", "a/b", "test", ""), "line 6: the label a/b cannot be the name of a folder"),
        (("d.png", "dent", "test", ""), "line 6: d.png has another label or split in 5"),
        (("masks/d.png", "dent", "test", "none.png"), "line 6: there is no mask none.png"),
        (("c.png", "good", "test", "", "more"), "line 6: 5 values for 4 columns"),
    ],
)
def test_wrong_rows_are_named_by_their_lines(tmp_path: Path, row: tuple[str, ...], problem: str) -> None:
    with pytest.raises(DataInvalid, match=problem):
        indexed(tmp_path, csv_of(*ROWS, row))


def test_lines_are_counted_as_editors_count_them(tmp_path: Path) -> None:
    table = csv_of(*ROWS) + b'\n"a\nb.txt",good,test,\nc.png,good,holdout,'
    with pytest.raises(DataInvalid, match=r"line 6: a b\.txt is no image; line 8: the split holdout"):
        indexed(tmp_path, table)


def test_a_line_that_names_the_delimiter_is_counted(tmp_path: Path) -> None:
    table = b"sep=|\npath|label\na.png|good\nb.txt|good\n"
    with pytest.raises(DataInvalid, match=r"line 4: b\.txt is no image"):
        indexed(tmp_path, table)


@pytest.mark.parametrize("on_disk", ["u\u0308.png", "\u00fc.png"])
def test_paths_may_write_accents_in_another_way_than_keys(tmp_path: Path, on_disk: str) -> None:
    for name in ("a.png", "b.png", on_disk):
        (tmp_path / name).write_bytes(b"x")
    for written in ("u\u0308.png", "\u00fc.png"):
        dataset = indexed(
            tmp_path, csv_of(("a.png", "good"), ("b.png", "good"), (written, "dent"), header="path,label")
        )
        assert [sample.key for sample in dataset.test] == [on_disk]
        assert dataset.unreadable == ()


def test_images_that_are_not_there_count_as_unreadable(tmp_path: Path) -> None:
    """Once each, however many rows they have."""
    gone = [("gone.png", "scratch", "test", mask) for mask in ("masks/d.png", "masks/d2.png")]
    dataset = indexed(tmp_path, csv_of(*ROWS, *gone))
    assert [(image.path, image.problem) for image in dataset.unreadable] == [
        ("gone.png", "labels.csv names it, and it is not there")
    ]


@pytest.mark.parametrize("field", ["label", "split", "mask"])
@pytest.mark.parametrize(
    ("header", "columns"),
    [(str.title, {}), ("{}s".format, {}), (" {}_".format, {}), (str, "other"), ("other_{}".format, "other")],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_that_is_named_or_misspelt_is_not_passed_over(
    tmp_path: Path, field: str, header: Callable[[str], str], columns: object, kind: str
) -> None:
    """Without it the split would be another one, and masks would not be used."""
    names = [header(name) if name == field else name for name in ("path", "label", "split", "mask")]
    table = csv_of(*ROWS, header=",".join(names)) if kind == "csv" else parquet_of(*ROWS, names=names)
    options = {"columns": {field: columns}} if columns else {}
    with pytest.raises(DataInvalid, match=rf"has no column .*, but .*: see dataset\.table\.columns\.{field}$"):
        indexed(tmp_path, table, f"labels.{kind}", **options)


def test_columns_of_other_names_are_none_of_the_tables(tmp_path: Path) -> None:
    table = csv_of(*((*row, "x", "y") for row in ROWS), header="path,label,split,mask,Splits,mask_path")
    assert facts(indexed(tmp_path, table)) == FACTS


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"file,label\na.png,good", "no column path, but file, label: see dataset.table.columns"),
        (b"", "no column path"),
        (b"path,path\na.png,b.png", r"^labels\.csv has the column path 2 times"),
        (b'path,label\n"a.png,good\n', r"^labels\.csv, line 2: unexpected end of data"),
        (b"path,label\na\xff.png,good", r"^labels\.csv is not UTF-8"),
        (
            csv_of(("a.png", "fine", "", ""), ("d.png", "bad", "", "")),
            "0 images to learn from.*labels bad, fine|fine, bad",
        ),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path: Path, table: bytes, message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        indexed(tmp_path, table)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"dataset\.table\.path labels\.csv is missing"):
        index_of(tmp_path, {"a.png": b""}, table={"path": "labels.csv"})


VISA_KEYS = [
    *(f"candle/Data/Images/Normal/000{index}.JPG" for index in range(4)),
    "candle/Data/Images/Anomaly/000.JPG",
    "candle/Data/Masks/Anomaly/000.png",
    "fryum/Data/Images/Normal/0000.JPG",
]
VISA_SPLIT = csv_of(
    ("candle", "train", "normal", VISA_KEYS[0], ""),
    ("candle", "train", "normal", VISA_KEYS[1], ""),
    ("candle", "test", "normal", VISA_KEYS[2], ""),
    ("candle", "test", "normal", VISA_KEYS[3], ""),
    ("candle", "test", "anomaly", VISA_KEYS[4], VISA_KEYS[5]),
    ("fryum", "train", "normal", VISA_KEYS[6], ""),
    header="object,split,label,image,mask",
)


@pytest.mark.parametrize("parent", ["", "data/VisA/"])
def test_visa_has_its_published_split(tmp_path: Path, parent: str) -> None:
    files = {parent + key: b"" for key in VISA_KEYS} | {f"{parent}split_csv/1cls.csv": VISA_SPLIT}
    dataset = index_of(tmp_path, files, category=f"{parent}candle")
    assert describe(dataset) == "VisA: 2 good to learn from, 3 to test (good 2, anomaly 1), 1 masks"
    assert dataset.test[0].masks == ("Data/Masks/Anomaly/000.png",)


def test_visa_without_its_split_learns_from_normal_images(tmp_path: Path) -> None:
    dataset = index_of(tmp_path, dict.fromkeys(VISA_KEYS, b""), category="candle")
    assert describe(dataset) == "VisA: 4 good to learn from, 1 to test (anomaly 1), 1 masks"


ENTRIES: dict[str, Any] = {
    "meta": {"prefix": "audiojack/", "normal_class": "OK"},
    "train": [
        {"category": "audiojack", "anomaly_class": "OK", "image_path": f"OK/S000{index}/a.jpg", "mask_path": None}
        for index in range(2)
    ],
    "test": [
        {"category": "audiojack", "anomaly_class": "OK", "image_path": "OK/S0002/a.jpg", "mask_path": None},
        {
            "category": "audiojack",
            "anomaly_class": "HS",
            "image_path": "NG/HS/S0003/a.jpg",
            "mask_path": "NG/HS/S0003/a.png",
        },
    ],
}
REAL_IAD = "Real-IAD: 2 good to learn from, 2 to test (good 1, HS 1), 1 masks"


def real_iad(folder: str) -> dict[str, bytes]:
    paths = ("OK/S0000/a.jpg", "OK/S0001/a.jpg", "OK/S0002/a.jpg", "NG/HS/S0003/a.jpg", "NG/HS/S0003/a.png")
    return {f"{folder}{path}": b"" for path in paths}


@pytest.mark.parametrize("resolution", ["realiad_256/", "sub/realiad_1024/", ""])
def test_real_iad_is_read_from_its_list(tmp_path: Path, resolution: str) -> None:
    files = real_iad(f"{resolution}audiojack/") | {"realiad_jsons/audiojack.json": json.dumps(ENTRIES).encode()}
    other = {f"{resolution}zipper/OK/S0000/a.jpg": b""}
    dataset = index_of(tmp_path, files | other, layout="realIad", category="audiojack")
    assert describe(dataset) == REAL_IAD
    assert dataset.test[0].masks == (f"{resolution}audiojack/NG/HS/S0003/a.png",)


def test_a_list_without_splits_and_meta_is_a_table_too(tmp_path: Path) -> None:
    entries = [*ENTRIES["train"], *ENTRIES["test"]]
    files = real_iad("x/") | {"list.json": json.dumps(entries).encode()}
    dataset = index_of(tmp_path, files, table={"path": "list.json"})
    assert Counter(sample.label for sample in dataset.test) == {"HS": 1}
    assert len(dataset.train) == 3


def test_two_resolutions_of_real_iad_are_refused(tmp_path: Path) -> None:
    files = real_iad("realiad_256/audiojack/") | real_iad("realiad_512/audiojack/")
    files |= {"audiojack.json": json.dumps(ENTRIES).encode()}
    with pytest.raises(DataInvalid, match=r"more than one folder.*realiad_256/audiojack/, realiad_512/audiojack/"):
        index_of(tmp_path, files, layout="realIad", category="audiojack")


def test_several_lists_of_real_iad_ask_for_one(tmp_path: Path) -> None:
    lists = {f"{folder}/audiojack.json": json.dumps(ENTRIES).encode() for folder in ("jsons", "jsons_sv")}
    with pytest.raises(DataInvalid, match=r"several lists.*jsons/audiojack\.json, jsons_sv/audiojack\.json"):
        index_of(tmp_path, real_iad("r/audiojack/") | lists, layout="realIad", category="audiojack")


# Each form at its limits


def wrong(count: int) -> bytes:
    """A table whose first rows name no image, one in each."""
    return csv_of(*((f"{index}.txt", "good", "", "") for index in range(count)), *ROWS)


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, "line 2: 0.txt is no image"),
        (3, "line 2: 0.txt is no image; line 3: 1.txt is no image; line 4: 2.txt is no image"),
        (5, "line 2: 0.txt is no image; line 3: 1.txt is no image; line 4: 2.txt is no image and 2 more"),
    ],
)
def test_three_wrong_rows_are_named_from_the_first_on(tmp_path: Path, count: int, told: str) -> None:
    with pytest.raises(DataInvalid) as raised:
        indexed(tmp_path, wrong(count))
    assert str(raised.value) == f"labels.csv has wrong rows: {told}"


def test_the_line_after_that_of_the_delimiter_is_the_third(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"line 3: b\.txt is no image$"):
        indexed(tmp_path, b"sep=|\r\npath|label\r\nb.txt|good\r\n")


def test_rows_may_end_early(tmp_path: Path) -> None:
    rows = [row[:3] if not row[3] else row for row in ROWS]
    assert facts(indexed(tmp_path, csv_of(*rows, ("masks/d2.png",)))) == (
        FACTS[0],
        FACTS[1] | {"masks/d2.png": ("unknown", ())},
    )


def test_paths_keep_what_is_in_their_quotes(tmp_path: Path) -> None:
    """Also a carriage return, which may be part of a name."""
    table = csv_of(*ROWS) + b'\n"x\r\ny.png",dent,test,\n'
    found = index_of(tmp_path, dict.fromkeys((*IMAGES, "x\r\ny.png"), b"") | {"t.csv": table}, table={"path": "t.csv"})
    assert "x\r\ny.png" in facts(found)[1]


@pytest.mark.parametrize("written", ["s3://bucket/c.png", ".\\c.png", "./c.png", "c.png"])
def test_paths_may_be_written_in_other_ways(tmp_path: Path, written: str) -> None:
    files = {"a.png": b"x", "b.png": b"x", "sub/c.png": b"x", "c.png": b"x"}
    written = written.replace("s3://bucket", str(tmp_path))  # the URI of a folder
    table = csv_of(("a.png", "good"), ("b.png", "good"), (written, "dent"), header="path,label")
    assert facts(index_of(tmp_path, files | {"t.csv": table}, table={"path": "t.csv"}))[1] == {"c.png": ("dent", ())}


def test_folders_of_windows_are_folders(tmp_path: Path) -> None:
    files = {"a.png": b"x", "b.png": b"x", "sub/deep/c.png": b"x"}
    table = csv_of(("a.png", "good"), ("b.png", "good"), ("sub\\deep\\c.png", "dent"), header="path,label")
    assert list(facts(index_of(tmp_path, files | {"t.csv": table}, table={"path": "t.csv"}))[1]) == ["sub/deep/c.png"]


def parquet(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def test_values_and_columns_that_parquet_lacks_are_empty(tmp_path: Path) -> None:
    table = parquet(path=["a.png", "b.png", "c.png", "d.png"], label=["good", "good", None, "dent"])
    assert facts(indexed(tmp_path, table, "t.parquet")) == (
        ["a.png", "b.png"],
        {"c.png": ("unknown", ()), "d.png": ("dent", ())},
    )


def test_rows_of_parquet_are_counted_from_one(tmp_path: Path) -> None:
    table = parquet(path=["a.txt", "b.png", "c.txt"], label=["good"] * 3)
    with pytest.raises(
        DataInvalid, match=r"^t\.parquet has wrong rows: row 1: a\.txt is no image; row 3: c\.txt is no"
    ):
        indexed(tmp_path, table, "t.parquet")


def entry(path: str, label: str | None = "OK", **more: object) -> dict[str, object]:
    return {"image_path": path, "anomaly_class": label} | more


def listed(folder: Path, document: object, **fields: object) -> DatasetIndex:
    """Index the images by a JSON list."""
    files = dict.fromkeys(IMAGES, b"") | {"x/one.json": json.dumps(document).encode()}
    return index_of(folder, files, table={"path": "x/one.json"}, **fields)


def test_a_list_may_have_validation_images_and_its_own_word_for_good(tmp_path: Path) -> None:
    document = {
        "meta": {"normal_class": "fine", "prefix": None},
        "train": [entry("a.png", "fine"), entry("b.png", "fine")],
        "val": [entry("c.png", "fine")],
        "test": [entry("d.png", "HS", mask_path="masks/d.png"), entry("masks/d2.png", None)],
    }
    found = listed(tmp_path, document)
    assert [(sample.key, sample.label) for sample in found.validation] == [("c.png", "good")]
    assert facts(found) == (["a.png", "b.png"], {"d.png": ("HS", ("masks/d.png",)), "masks/d2.png": ("unknown", ())})


def test_a_parquet_file_that_is_damaged_inside_is_refused_and_not_tried_again(tmp_path: Path) -> None:
    """Its end, which is read first, is intact."""
    table = bytearray(parquet(path=[f"{index}.png" for index in range(100)]))
    table[4:60] = bytes(56)
    with pytest.raises(DataInvalid, match=r"^t\.parquet cannot be read: "):
        indexed(tmp_path, bytes(table), "t.parquet")


def test_a_parquet_file_whose_texts_are_not_utf_8_is_refused(tmp_path: Path) -> None:
    names = pa.array([b"pi\xe9ce.png"], pa.binary()).view(pa.string())
    content = io.BytesIO()
    pq.write_table(pa.table({"path": names}), content)
    with pytest.raises(DataInvalid, match=r"^t\.parquet cannot be read: 'utf-8' codec"):
        indexed(tmp_path, content.getvalue(), "t.parquet")


@pytest.mark.parametrize("meta", [None, "none", {}, {"normal_class": None}])
def test_without_another_word_good_is_ok(tmp_path: Path, meta: object) -> None:
    found = listed(tmp_path, {"meta": meta, "train": [entry("a.png"), entry("b.png")], "test": [entry("c.png")]})
    assert facts(found) == (["a.png", "b.png"], {"c.png": ("good", ())})


@pytest.mark.parametrize("splits", [True, False])
def test_entries_of_another_category_are_left_out(tmp_path: Path, splits: bool) -> None:
    """Also those in between, and they need no image; an entry may have no category."""
    entries = [entry("a.png", category="x"), entry("gone.png", category="y"), entry("b.png"), entry("d.png", "HS")]
    document = {"train": entries[:3], "test": entries[3:]} if splits else entries
    files = {f"data/x/{name}": b"" for name in IMAGES} | {"data/x/one.json": json.dumps(document).encode()}
    found = index_of(tmp_path, files, table={"path": "one.json"}, category="data/x")
    assert (facts(found), found.unreadable) == ((["a.png", "b.png"], {"d.png": ("HS", ())}), ())


NO_LISTS: tuple[object, ...] = (5, "train", None, {}, {"meta": {}}, {"train": {}}, {"train": [], "test": "a.png"})


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.txt", b"", r"^t\.txt is no table: expected a name ending in \.csv"),
        ("t.parquet", b"PAR1", r"^t\.parquet is not Parquet: "),
        ("t.json", b"{", r"^t\.json is not JSON: "),
        *(
            ("t.json", json.dumps(document).encode(), r"^t\.json is no list of images: expected a JSON list")
            for document in NO_LISTS
        ),
        ("t.json", b'[{"image_path": "a.png"}, "b.png"]', r"^t\.json, entry 2: expected an object with image_path$"),
        ("t.json", b'{"train": [{"image_path": "a.png"}], "test": [7]}', r"^t\.json, entry 2: expected an object"),
        ("t.json", b"[]", r"^t\.json: no folder has its images: it has no entries$"),
        ("t.json", b'[{"image_path": "gone.png"}, {}]', r"^t\.json: no folder has its images, such as gone\.png$"),
        ("t.csv", b"path\n1.txt", r"^t\.csv has wrong rows: line 2"),
        ("t.csv", b"label\n", r"^t\.csv has no column path"),
        ("t.csv", b"path,label\na.png,good,x", r"^t\.csv, line 2: 3 values for 2 columns$"),
        ("t.parquet", parquet(label=["good"]), r"^t\.parquet has no column path"),
    ],
)
def test_what_is_no_table_is_named_with_the_reason(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    with pytest.raises(DataInvalid, match=told):
        indexed(tmp_path, content, name)


def test_wrong_entries_are_counted_through_all_lists(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=r"has wrong rows: entry 2: no path; entry 4: b\.txt is no image$"):
        listed(tmp_path, {"train": [entry("a.png"), {}], "test": [entry("c.png"), entry("b.txt")]})
    with pytest.raises(DataInvalid, match=r"has wrong rows: entry 2: no path$"):
        listed(tmp_path, [entry("a.png"), {"anomaly_class": "OK"}])


def test_entries_of_a_plain_list_may_have_a_split(tmp_path: Path) -> None:
    found = listed(tmp_path, [entry("a.png"), entry("b.png"), entry("c.png", split="test")])
    assert facts(found) == (["a.png", "b.png"], {"c.png": ("good", ())})


@pytest.mark.parametrize("uri", ["s3://bucket/BOX", "s3://bucket/BOX/"])
def test_paths_may_be_whole_addresses(uri: str) -> None:
    rows = (Row(1, f"s3://bucket/BOX/{name}.png", "good", "", "") for name in "ab")
    options = TableOptions(name="t.csv", title="t", uri=uri, good_label="good", with_masks=False)
    found = index_table(ImageRows(rows), objects(["a.png", "b.png"]), options)
    assert [sample.key for sample in found.train] == ["a.png", "b.png"]


def test_a_list_of_many_images_is_read_to_its_end(tmp_path: Path) -> None:
    """The folder is found by the first of them."""
    names = [f"{index:02d}.png" for index in range(25)]
    files = {f"deep/{name}": b"" for name in names} | {"t.json": json.dumps([entry(name) for name in names]).encode()}
    assert [sample.key for sample in index_of(tmp_path, files, table={"path": "t.json"}).train] == [
        f"deep/{name}" for name in names
    ]


@pytest.mark.parametrize(
    ("folder", "prefix"), [("", "p/"), ("deep/", "p/"), ("deep/", ""), ("deep/p/", "p/"), ("X/", "p/")]
)
def test_the_folder_of_a_list_is_found_with_and_without_its_prefix(tmp_path: Path, folder: str, prefix: str) -> None:
    """The prefix is left out where no image lies in such a folder."""
    there = {f"{folder}{name}": b"" for name in ("a.png", "b.png", "c.png")}
    document = {"meta": {"prefix": prefix}, "train": [entry("a.png"), entry("b.png")], "test": [entry("c.png", "HS")]}
    found = index_of(tmp_path, there | {"t.json": json.dumps(document).encode()}, table={"path": "t.json"})
    assert [sample.key for sample in found.train] == [f"{folder}a.png", f"{folder}b.png"]


# What becomes of the images of a table


def test_what_of_a_table_is_not_used_is_told(tmp_path: Path) -> None:
    """Two of four images of no use are those of the validation without a label."""
    more = [("masks/d.png", "dent", "train", ""), ("masks/d2.png", "", "val", "")]
    found = indexed(tmp_path, csv_of(*ROWS, *more))
    assert facts(found) == FACTS
    assert found.validation == ()
    assert found.warnings == ("2 images of labels.csv are not used: learning uses good ones, validation labelled ones",)


def test_images_of_a_table_may_be_to_validate_on(tmp_path: Path) -> None:
    more = [("masks/d.png", "dent", "valid", "masks/d2.png"), ("masks/d2.png", "good", "validation", "")]
    found = indexed(tmp_path, csv_of(*ROWS, *more))
    assert [(sample.key, sample.label, sample.masks) for sample in found.validation] == [
        ("masks/d.png", "dent", ("masks/d2.png",)),
        ("masks/d2.png", "good", ()),
    ]
    assert (found.missing_masks, found.warnings) == ((), ())


def test_a_mask_of_a_good_image_is_not_needed(tmp_path: Path) -> None:
    rows = [(path, label, split, mask or "masks/d2.png") for path, label, split, mask in ROWS]
    assert facts(indexed(tmp_path, csv_of(*rows))) == FACTS


def test_defective_images_of_a_table_without_a_mask_are_known(tmp_path: Path) -> None:
    found = indexed(tmp_path, csv_of(*ROWS, ("masks/d2.png", "dent", "test", ""), ("masks/d.png", "", "test", "")))
    assert found.missing_masks == ("masks/d2.png",)
    assert found.warnings == ("1 defective images have no mask and count as wholly defective",)


def test_a_table_without_masks_is_told_where_they_are_of_use(tmp_path: Path) -> None:
    rows = [(*row[:3], "") for row in ROWS]
    found = indexed(tmp_path, csv_of(*rows))
    assert (found.missing_masks, found.warnings) == (
        (),
        ("labels.csv names no masks: pixel metrics are left out",),
    )
    assert indexed(tmp_path, csv_of(*rows[:3])).warnings == ()
    assert without_masks(tmp_path, csv_of(*ROWS)).warnings == ()


def without_masks(folder: Path, table: bytes) -> DatasetIndex:
    """Index the images of a run that has no use for masks."""
    (folder / "t.csv").write_bytes(table)
    data = Dataset.model_validate({"source": SOURCE, "table": {"path": "t.csv"}})
    return index_images(data, FolderStore(folder), None, FolderStore(folder).list(), False)


def test_without_a_use_for_masks_none_is_missed(tmp_path: Path) -> None:
    indexed(tmp_path, csv_of(*ROWS))  # writes the images
    found = without_masks(tmp_path, csv_of(*ROWS, ("masks/d2.png", "dent", "test", "gone.png")))
    assert facts(found)[1] == {"c.png": ("good", ()), "d.png": ("scratch", ()), "masks/d2.png": ("dent", ())}


def test_labels_that_differ_only_in_case_are_named_of_a_table(tmp_path: Path) -> None:
    found = indexed(tmp_path, csv_of(*ROWS, ("masks/d2.png", "Scratch", "test", "masks/d.png")))
    assert found.warnings == ("the labels Scratch and scratch are counted as different kinds of defect",)


def test_files_of_a_table_that_are_too_large_are_refused_and_the_others_used(tmp_path: Path) -> None:
    """A pixel takes 16 bytes at most, and texts 64 MiB."""
    (tmp_path / "b.png").touch()
    os.truncate(tmp_path / "b.png", 16 * 1024 + (64 << 20) + 1)
    files = dict.fromkeys(("a.png", "c.png", "d.png"), b"")
    table = csv_of(*((f"{name}.png", "good", "train") for name in "abcd"), header="path,label,split")
    found = index_of(tmp_path, files | {"t.csv": table}, table={"path": "t.csv"}, limits={"maxImagePixels": 1024})
    assert [sample.key for sample in found.train] == ["a.png", "c.png", "d.png"]
    assert [(image.path, image.problem) for image in found.unreadable] == [
        ("b.png", "67125249 bytes are more than an image of maxImagePixels can have")
    ]


def test_too_few_images_to_learn_from_are_told_with_the_labels_that_there_are(tmp_path: Path) -> None:
    rows = [(f"{index}.png", f"k{index}", "test", "") for index in range(9)]
    files = dict.fromkeys((*IMAGES, *(row[0] for row in rows)), b"")

    def told(*rows: tuple[str, ...], **options: object) -> str:
        with pytest.raises(DataInvalid) as raised:
            index_of(tmp_path, files | {"t.csv": csv_of(*rows)}, table={"path": "t.csv"} | options)
        return str(raised.value)

    assert told(ROWS[0], ("d.png", "k9", "test", ""), ("b.png", "k9", "test", ""), *rows) == (
        "t.csv has 1 images to learn from, of two that are needed: rows with the label good (dataset.table.goodLabel); "
        "there are the labels k9, good, k0, k1, k2, k3, k4, k5"
    )
    gone = [("gone.png", "OK", "train", ""), ("lost.png", "OK", "train", "")]
    assert told(*gone, goodLabel="OK").endswith(
        "the label OK (dataset.table.goodLabel); there are the labels none; 2 cannot be used, such as gone.png"
    )


# Which list, and which layout


def test_the_named_layout_counts(tmp_path: Path) -> None:
    files = dict.fromkeys(("train/good/a.png", "train/good/b.png", "test/good/c.png", "test/good/d.png"), b"")
    assert index_of(tmp_path, files, layout="mvtecLoco").layout == "MVTec LOCO"
    assert index_of(tmp_path, files).layout == "MVTec AD"


def test_the_suffix_and_the_limits_of_the_spec_count_for_folders(tmp_path: Path) -> None:
    files = dict.fromkeys(("train/good/a.png", "train/good/b.png", "test/x/c.png", "ground_truth/x/c-gt.png"), b"")
    files["test/good/d.png"] = b""
    (tmp_path / "test/x").mkdir(parents=True)
    (tmp_path / "test/x/e.png").touch()
    os.truncate(tmp_path / "test/x/e.png", 16 * 1024 + (64 << 20) + 1)
    found = index_of(tmp_path, files, maskSuffix="-gt", limits={"maxImagePixels": 1024})
    assert facts(found)[1]["test/x/c.png"] == ("x", ("ground_truth/x/c-gt.png",))
    assert [image.path for image in found.unreadable] == ["test/x/e.png"]


def test_a_folder_without_images_is_named_by_its_address(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match=rf"^no images below {tmp_path}: expected train/good"):
        index_of(tmp_path, {"notes.txt": b""})


def test_the_split_of_visa_is_not_looked_for_beside_other_layouts(tmp_path: Path) -> None:
    files = dict.fromkeys(("x/train/good/a.png", "x/train/good/b.png", "x/test/good/c.png"), b"")
    assert index_of(tmp_path, files | {"split_csv/1cls.csv": b"nonsense"}, category="x").layout == "MVTec AD"


def test_without_a_category_visa_has_no_split(tmp_path: Path) -> None:
    files = {key.removeprefix("candle/"): b"" for key in VISA_KEYS if key.startswith("candle/")}
    dataset = index_of(tmp_path, files | {"split_csv/1cls.csv": VISA_SPLIT})
    assert describe(dataset) == "VisA: 4 good to learn from, 1 to test (anomaly 1), 1 masks"


def test_the_split_of_visa_is_named_where_it_is_wrong(tmp_path: Path) -> None:
    files = dict.fromkeys(VISA_KEYS, b"") | {"split_csv/1cls.csv": VISA_SPLIT.replace(b",test,", b",holdout,")}
    with pytest.raises(DataInvalid, match=r"^split_csv/1cls\.csv has wrong rows: line 4: the split holdout"):
        index_of(tmp_path, files, category="candle")


@pytest.mark.parametrize("category", ["audiojack", None])
def test_the_list_of_real_iad_is_that_of_the_category_or_the_only_one(tmp_path: Path, category: str | None) -> None:
    """Entries of another category are left out if one is named."""
    other = [{"category": "zipper", "anomaly_class": "OK", "image_path": "OK/S0009/a.jpg", "mask_path": None}]
    entries = ENTRIES | {"train": [*ENTRIES["train"], *other]}
    files = real_iad("r/audiojack/") | {"jsons/audiojack.json": json.dumps(entries).encode()}
    if category:
        files["jsons/zipper.json"] = b"[]"
    found = index_of(tmp_path, files, layout="realIad", category=category)
    assert (len(found.train), len(found.test)) == (2, 2)
    assert [image.path for image in found.unreadable] == ([] if category else ["r/audiojack/OK/S0009/a.jpg"])


@pytest.mark.parametrize(("category", "wanted"), [("audiojack", "audiojack.json"), (None, r"\*\.json")])
def test_a_list_of_real_iad_that_is_missing_is_named(tmp_path: Path, category: str | None, wanted: str) -> None:
    with pytest.raises(DataInvalid, match=rf"there is no list {wanted} below"):
        index_of(tmp_path, real_iad("r/audiojack/"), layout="realIad", category=category)


def test_entries_of_real_iad_that_are_ok_are_good_without_another_word(tmp_path: Path) -> None:
    files = real_iad("r/audiojack/") | {"audiojack.json": json.dumps(ENTRIES["train"]).encode()}
    assert len(index_of(tmp_path, files, layout="realIad", category="audiojack").train) == 2
    gone = {"audiojack.json": json.dumps([ENTRIES["train"][0] | {"image_path": "gone.jpg"}]).encode()}
    with pytest.raises(DataInvalid, match=r"^audiojack\.json: no folder has its images, such as gone\.jpg$"):
        index_of(tmp_path, gone, layout="realIad", category="audiojack")


def test_the_label_that_a_list_of_real_iad_lacks_is_named(tmp_path: Path) -> None:
    files = real_iad("r/audiojack/") | {"audiojack.json": json.dumps(ENTRIES["test"][-1:]).encode()}
    with pytest.raises(DataInvalid, match=r"^audiojack\.json has 0 images .*rows with the label OK .* the labels HS$"):
        index_of(tmp_path, files, layout="realIad", category="audiojack")
