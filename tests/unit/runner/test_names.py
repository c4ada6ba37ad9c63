"""Names in targets that do not take every name: they can be read back, and no two become one."""

import random
import unicodedata
from collections.abc import Callable
from itertools import product
from pathlib import Path, PurePosixPath

import pytest

from anomaly_runner.storage.folder import FolderStore, key_of, path_of
from anomaly_runner.storage.prefetch import hashed_path
from anomaly_runner.system.names import MAX_NAME_BYTES, file_name, unescape
from anomaly_runner.tracking.mlflow_names import metric_label, mlflow_name, short_value

ALPHABET = "aA0_U3:.- %+?#'\"\n\x01\u007f/\\\u00e9\u0301\u202e\u5927\U0001f600\U0010ffff"
TRICKY = [
    "_U003A_",
    "_U005F_U003A_",
    "_U003_U003A_",
    "_U0041:",
    "_U00:",
    ":U0041_",
    "__U003A_",
    "_U1F600_",
    "Kratzer gross?",
    "Kratzer gross!",
    "..",
    ".",
    "a//b",
    "/a",
    "a/",
    "\u50b7",
    "\u6b20",
    unicodedata.normalize("NFC", "e\u0301"),
    unicodedata.normalize("NFD", "\u00e9"),
    "Crack",
    "crack",
]


def random_names(count: int = 3000) -> list[str]:
    draw = random.Random(0)
    found = {"".join(draw.choices(ALPHABET, k=draw.randint(1, 9))) for _ in range(count)}
    # Names with pieces of codes are the ones that could be read back wrongly.
    pieces = ["_U", "_", "U", "003A", "0041", ":", "5F", "_U005F_", "?"]
    found |= {"".join(draw.choices(pieces, k=draw.randint(1, 6))) for _ in range(count)}
    return sorted(found | set(TRICKY))


@pytest.mark.parametrize("change", [file_name, mlflow_name, metric_label])
def test_names_can_be_read_back_and_none_become_one(change: Callable[[str], str]) -> None:
    names = random_names()
    assert [unescape(change(name)) for name in names] == names
    assert len({change(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "name", ["scratch", "crack 01", "\u50b7", "a_b.c-d", "U003A", "crop_x0512_y0256", "\u00e9t\u00e9"]
)
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert file_name(name) == mlflow_name(name) == key_of(name) == name


def test_long_names_are_cut_without_becoming_one() -> None:
    names = [f"{'x' * 299}{end}" for end in "abc"] + ["\u5927" * count for count in (84, 85, 86, 87)]
    names += [file_name(name) for name in names if len(name.encode()) > MAX_NAME_BYTES]
    cut = [file_name(name) for name in names]
    assert len(set(cut)) == len(names)
    assert all(len(name.encode()) <= MAX_NAME_BYTES for name in cut)
    # MLflow counts characters.
    assert {len(mlflow_name("x" * count)) for count in (250, 251, 400)} == {250}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a:b", "a_U003A_b"),
        ("a/b c.d-e", "a/b c.d-e"),
        ("/a/b", "_U002F_a_U002F_b"),
        ("../a", "_U002E__U002E__U002F_a"),
        ("a//b", "a_U002F__U002F_b"),
        ("a/", "a_U002F_"),
        (".", "_U002E_"),
        (".a", ".a"),
        ("", "_U0000_"),
    ],
)
def test_mlflow_gets_names_that_are_normal_paths(name: str, written: str) -> None:
    assert mlflow_name(name) == metric_label(name) == written


def test_a_label_leaves_room_for_its_metric_and_a_name_has_the_limit_that_is_asked_for() -> None:
    assert len(metric_label("x" * 201)) == 200
    assert metric_label("x" * 200) == "x" * 200
    assert len(mlflow_name("x" * 101, 100)) == 100
    assert mlflow_name("\u00e9" * 250) == "\u00e9" * 250, "characters count, not bytes"


@pytest.mark.parametrize(
    ("value", "kept"), [("x" * 30, "x" * 30), ("x" * 31, "x" * 11 + "... (31 characters)"), ("", "")]
)
def test_a_value_that_is_cut_says_how_long_it_was(value: str, kept: str) -> None:
    assert short_value(value, 30) == kept


def test_every_byte_of_a_files_name_has_a_key(tmp_path: Path) -> None:
    names = [b"gr\xfc\xdfe.png", b"gr_UDCFC_.png", b"_UDC5F_.png", b"a\xff_UDC80_.png", b"new\nline.png", b"q\"\\'.png"]
    for name in names:
        (tmp_path / name.decode(errors="surrogateescape")).write_bytes(name)
    store = FolderStore(tmp_path)
    infos = store.list()
    assert len({info.key for info in infos}) == len(names)
    for info in infos:
        info.key.encode()  # it is text
        store.download(info, tmp_path.with_name("copy"))
        content = tmp_path.with_name("copy").read_bytes()
        assert content.decode(errors="surrogateescape") == path_of(info.key)


def test_every_key_has_a_file_of_its_own() -> None:
    keys = ["a.png", "a.png/b.png", "a//b.png", "a/b.png", "x" * 1000 + ".png", "a.PNG", "e\u0301", "\u00e9", "a.b\nc"]
    files = [hashed_path(key) for key in keys]
    assert len(set(files)) == len(keys)
    assert all(len(part) <= MAX_NAME_BYTES for file in files for part in PurePosixPath(file).parts)
    assert not any(
        first in PurePosixPath(second).parents for first, second in product(map(PurePosixPath, files), files)
    )
