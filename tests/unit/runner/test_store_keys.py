"""Keys, versions, addresses and incomplete files, as all stores have them."""

from pathlib import Path

import pytest

from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage.store import check_key, is_safe_key, is_version, join_uri, partial_file, replacing


@pytest.mark.parametrize(
    ("key", "is_safe"),
    [
        ("a/b.png", True),
        ("a", True),
        ("...", True),
        ("a//b", True),
        ("", False),
        ("/", False),
        ("/a", False),
        ("a/", False),
        ("ab/cd/", False),
        ("a/..", False),
        (".", False),
        ("a\0", False),
    ],
)
def test_a_key_stays_below_its_folder_and_is_none(key: str, is_safe: bool) -> None:
    assert is_safe_key(key) is is_safe


@pytest.mark.parametrize(
    ("told", "etag", "is_it"),
    [
        ('"v1"', "v1", True),
        ("v1", "v1", True),
        ('"v2"', "v1", False),
        ('"v2"', "", True),
        (None, "v1", True),
        ("", "v1", True),
        ('"X"', "X", True),
        ("v1 ", "v1", False),
    ],
)
def test_a_version_is_another_only_if_both_are_known(told: str | None, etag: str, is_it: bool) -> None:
    assert is_version(told, etag) is is_it


@pytest.mark.parametrize(
    ("root", "key", "joined"),
    [
        ("s3://bucket/", "a/b", "s3://bucket/a/b"),
        ("/X/", "a", "/X/a"),
        ("/data ", "a", "/data /a"),
        ("s3://bucket//", "", "s3://bucket"),
        ("/X/", "", "/X"),
    ],
)
def test_a_root_and_a_key_are_one_address(root: str, key: str, joined: str) -> None:
    assert join_uri(root, key) == joined


def test_an_incomplete_file_is_hidden_beside_its_target_and_has_a_short_name(tmp_path: Path) -> None:
    found = partial_file(tmp_path / "x\udce9.png")
    assert (found.parent, found.name[0], found.suffix, len(found.stem)) == (tmp_path, ".", ".part", 33)


def test_a_key_that_leads_elsewhere_is_refused_with_its_place() -> None:
    assert check_key("a/b.png", "s3://bucket") == "a/b.png"
    with pytest.raises(DataInvalid, match=r"refused the key '\.\./a' in s3://bucket: it leads out of the folder"):
        check_key("../a", "s3://bucket")


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep/er/a.txt"
    for text in ("old", "new"):
        with replacing(file) as temporary:
            temporary.write_text(text)
            assert (temporary.parent, temporary.name[0], len(temporary.name)) == (file.parent, ".", 33)
            assert not file.exists() or file.read_text() == "old"
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [("a.txt", "new")]


def test_a_file_that_is_not_made_whole_is_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fill() -> None:
        with replacing(file) as temporary:
            temporary.write_text("n")
            raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]
