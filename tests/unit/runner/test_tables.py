"""Tables of images: CSV, Parquet, and the lists of VisA and Real-IAD."""

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anomaly_api.dataset import Dataset
from anomaly_runner.data.listing import index_images
from anomaly_runner.data.samples import DatasetIndex
from anomaly_runner.data.summary import describe
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage import FolderStore

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
        (b"path,path\na.png,b.png", "has the column path 2 times"),
        (b'path,label\n"a.png,good\n', "line 2: unexpected end of data"),
        (b"path,label\na\xff.png,good", "is not UTF-8"),
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


ENTRIES = {
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
