"""The cache of files: which entry is whose, what makes room, and what is done where its disk is slow or fails."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Never

import pytest

from anomaly_runner.errors import StorageUnavailable
from anomaly_runner.storage import FileCache, FolderStore, ObjectInfo, with_cache
from anomaly_runner.storage import object_cache as module
from anomaly_runner.storage.object_cache import CacheEntry

MD5_OF_ABC = "900150983cd24fb0d6963f7d28e17f72"  # RFC 1321, A.5
SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
TOTAL = 1_000_000
"""Bytes of the disk, of which 150,000 stay free."""


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the free bytes of the cache's disk; at first it is empty."""

    def have(size: int) -> None:
        def usage(folder: Path) -> SimpleNamespace:
            assert folder.is_dir()
            return SimpleNamespace(total=TOTAL, free=size)

        monkeypatch.setattr(shutil, "disk_usage", usage)

    have(TOTAL)
    return have


@pytest.fixture
def told() -> list[str]:
    """The cache's warnings."""
    return []


@pytest.fixture
def cache(tmp_path: Path, told: list[str], free: Callable[[int], None]) -> FileCache:
    return FileCache(tmp_path / "cache", told.append)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "abc"
    made.write_bytes(b"abc")
    return made


def kept(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache/objects").rglob("*") if path.is_file())


# Entries


def test_an_object_is_known_by_its_address_its_version_and_its_size() -> None:
    objects = [
        ("s3://a/x", ObjectInfo("x", 3, "v1")),
        ("s3://b/x", ObjectInfo("x", 3, "v1")),
        ("s3://a/x", ObjectInfo("x", 3, "v2")),
        ("s3://a/x", ObjectInfo("x", 4, "v1")),
    ]
    assert len({CacheEntry.of_object(*one).name for one in objects}) == 4
    assert CacheEntry.of_object("s3://a/x", ObjectInfo("other", 3, "v1")) == CacheEntry.of_object(*objects[0])
    assert CacheEntry.of_object(*objects[0]).name == hashlib.sha256(b"s3://a/x\nv1\n3").hexdigest()


@pytest.mark.parametrize(
    ("etag", "digest"),
    [(MD5_OF_ABC, MD5_OF_ABC), (f"{MD5_OF_ABC}-3", None), (MD5_OF_ABC.upper(), None), (MD5_OF_ABC[1:], None)],
)
def test_an_etag_that_is_an_md5_is_the_contents_digest(file: Path, etag: str, digest: str | None) -> None:
    entry = CacheEntry.of_object("s3://a/x", ObjectInfo("x", 3, etag))
    assert (entry.size, entry.digest, entry.algorithm) == (3, digest, "md5")
    assert entry.matches(file)
    file.write_bytes(b"abx")
    assert entry.matches(file) is (digest is None)
    file.write_bytes(b"ab")
    assert not entry.matches(file)


def test_content_is_known_by_its_digest(file: Path) -> None:
    entry = CacheEntry.of_content("sha256", SHA256_OF_ABC)
    assert (entry.size, entry.digest, entry.algorithm) == (None, SHA256_OF_ABC, "sha256")
    assert entry.matches(file)
    file.write_bytes(b"ab")
    assert not entry.matches(file)
    others = [CacheEntry.of_content("sha512", SHA256_OF_ABC), CacheEntry.of_content("sha256", MD5_OF_ABC)]
    assert entry.name not in {other.name for other in others}


def test_what_is_derived_is_known_by_its_name_alone(file: Path) -> None:
    entry = CacheEntry.of_name("decoded 8x8")
    assert (entry.size, entry.digest) == (None, None)
    assert entry.name != CacheEntry.of_name("decoded 8x9").name
    assert entry.matches(file)


def test_an_entry_without_its_digest_is_another_one() -> None:
    entry = CacheEntry.of_object("s3://a/x", ObjectInfo("x", 3, MD5_OF_ABC))
    other = entry.by_size()
    assert (other.size, other.digest) == (3, None)
    assert other.name != entry.name


# What is kept


def test_an_entry_lies_in_a_folder_by_the_beginning_of_its_name(cache: FileCache, tmp_path: Path, file: Path) -> None:
    entry = CacheEntry.of_content("md5", MD5_OF_ABC)
    cache.save(entry, file)
    assert kept(tmp_path) == [tmp_path / "cache/objects" / entry.name[:2] / entry.name]
    assert kept(tmp_path)[0].samefile(file), "a link"


def test_a_file_of_another_size_is_not_kept(cache: FileCache, tmp_path: Path, file: Path) -> None:
    cache.save(CacheEntry.of_object("s3://a/x", ObjectInfo("x", 4, MD5_OF_ABC)), file)
    assert kept(tmp_path) == []


def test_an_etag_that_only_looks_like_an_md5_is_kept_by_its_size(cache: FileCache, tmp_path: Path, file: Path) -> None:
    entry = CacheEntry.of_object("s3://a/x", ObjectInfo("x", 3, "0123456789abcdef0123456789abcdef"))
    cache.save(entry, file)
    assert [path.name for path in kept(tmp_path)] == [entry.by_size().name]
    assert cache.restore(entry, tmp_path / "out")


def test_a_damaged_entry_is_removed_and_not_restored(cache: FileCache, tmp_path: Path, file: Path) -> None:
    entry = CacheEntry.of_content("md5", MD5_OF_ABC)
    cache.save(entry, file)
    (place,) = kept(tmp_path)
    place.unlink()
    place.write_bytes(b"abx")
    assert cache.restore(entry, tmp_path / "out") is False
    assert kept(tmp_path) == []


def test_a_small_entry_is_replaced(cache: FileCache, tmp_path: Path, told: list[str]) -> None:
    entry = CacheEntry.of_name("x")
    assert cache.load(entry) is None
    cache.store(entry, b"first")
    cache.store(entry, b"second")
    assert cache.load(entry) == b"second"
    assert (len(kept(tmp_path)), told) == (1, [])


@pytest.mark.parametrize("use", ["restore", "load"])
def test_use_makes_an_entry_young(cache: FileCache, tmp_path: Path, file: Path, use: str) -> None:
    entry = CacheEntry.of_content("md5", MD5_OF_ABC)
    cache.save(entry, file)
    os.utime(kept(tmp_path)[0], (1, 1))
    assert cache.restore(entry, tmp_path / "out") if use == "restore" else cache.load(entry)
    assert kept(tmp_path)[0].stat().st_mtime > 1e9


@pytest.mark.parametrize("use", ["restore", "load"])
def test_an_entry_whose_age_cannot_be_set_is_used(
    cache: FileCache, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    entry = CacheEntry.of_content("md5", MD5_OF_ABC)
    cache.save(entry, file)

    def refuse(path: Path) -> Never:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.restore(entry, tmp_path / "out") if use == "restore" else cache.load(entry)


def test_an_entry_on_another_file_system_is_copied(
    cache: FileCache, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Never:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    entry = CacheEntry.of_content("md5", MD5_OF_ABC)
    cache.save(entry, file)
    assert cache.restore(entry, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"abc"
    assert not kept(tmp_path)[0].samefile(file)


def test_what_other_runs_remove_meanwhile_is_no_fault(
    cache: FileCache,
    file: Path,
    tmp_path: Path,
    free: Callable[[int], None],
    told: list[str],
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A damaged entry, one that was about to be evicted, and one that was just listed."""
    entry = CacheEntry.of_content("md5", MD5_OF_ABC)
    cache.save(entry, file)

    def removed(self: CacheEntry, restored: Path) -> bool:
        kept(tmp_path)[0].unlink()
        return False

    with monkeypatch.context() as damaged:
        damaged.setattr(CacheEntry, "matches", removed)
        assert cache.restore(entry, tmp_path / "out") is False
    free(150_002)
    (tmp_path / "cache/objects/ab").mkdir()
    (tmp_path / "cache/objects/ab/gone").symlink_to("nowhere")
    listed = module._entries
    gone = tmp_path / "cache/objects/ab/evicted"
    monkeypatch.setattr(module, "_entries", lambda root: [(0.0, 40_000, gone), *listed(root)])
    cache.store(CacheEntry.of_name("new"), b"abc")
    assert cache.load(CacheEntry.of_name("new")) == b"abc"
    assert told == []


# Room


@pytest.mark.parametrize(("size", "fits"), [(150_003, True), (150_002, False)])
def test_the_disk_keeps_15_percent_free(
    cache: FileCache,
    file: Path,
    tmp_path: Path,
    free: Callable[[int], None],
    told: list[str],
    *,
    size: int,
    fits: bool,
) -> None:
    free(size)
    cache.save(CacheEntry.of_content("md5", MD5_OF_ABC), file)
    assert len(kept(tmp_path)) == fits
    assert told == ([] if fits else ["the data cache is on a full disk: files are pulled instead"])


@pytest.mark.parametrize(("available", "evicted"), [(150_003, 0), (150_002, 4), (140_003, 4), (130_002, 6)])
def test_the_oldest_entries_make_room_and_3_percent_more(
    cache: FileCache, tmp_path: Path, free: Callable[[int], None], told: list[str], *, available: int, evicted: int
) -> None:
    """Ten of 10,000 bytes: what is missing, and 30,000 more, are freed."""
    entries = [CacheEntry.of_name(str(index)) for index in range(10)]
    for age, entry in enumerate(entries):
        cache.store(entry, b"x" * 10_000)
        place = tmp_path / "cache/objects" / entry.name[:2] / entry.name
        os.utime(place, (1_000_000 + age, 1_000_000 + age))
    free(available)
    cache.store(CacheEntry.of_name("new"), b"abc")
    assert [cache.load(entry) is None for entry in entries] == [index < evicted for index in range(10)]
    assert cache.load(CacheEntry.of_name("new")) == b"abc"
    assert told == []


def test_what_could_not_be_written_is_only_told_once(
    cache: FileCache, file: Path, free: Callable[[int], None], told: list[str], tmp_path: Path
) -> None:
    free(0)
    for index in range(3):
        cache.store(CacheEntry.of_name(str(index)), b"x")
    free(TOTAL)
    cache.store(CacheEntry.of_name("later"), b"x")
    assert told == ["the data cache is on a full disk: files are pulled instead"]
    assert kept(tmp_path) == []


@pytest.mark.parametrize(("seconds", "abandoned"), [(3599, False), (3601, True)])
def test_a_half_written_file_is_abandoned_after_an_hour(
    cache: FileCache,
    tmp_path: Path,
    free: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    seconds: int,
    abandoned: bool,
) -> None:
    half = tmp_path / "cache/objects/ab/.half"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    later = half.stat().st_ctime + seconds
    monkeypatch.setattr(module, "datetime", SimpleNamespace(now=lambda zone: SimpleNamespace(timestamp=lambda: later)))
    free(0)
    cache.store(CacheEntry.of_name("x"), b"x")
    assert half.exists() is not abandoned


# A slow or failing disk


class Clock:
    """A clock on which every use of the cache takes the same time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


@pytest.mark.parametrize(("size", "seconds", "slow"), [(0, 10, False), (0, 11, True), (10_000_000, 12, False)])
def test_a_cache_that_takes_longer_than_ten_seconds_and_its_bytes_is_slow(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch, *, size: int, seconds: float, slow: bool
) -> None:
    """10 MB at 5 MB/s may take two seconds more."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=TOTAL, free=10**12))
    cache, entry = FileCache(tmp_path / "cache", told.append), CacheEntry.of_name("x")
    cache.store(entry, b"x" * size)
    monkeypatch.setattr(module, "monotonic", Clock(seconds))
    assert cache.load(entry) == b"x" * size
    assert told == (["the data cache is slow (11 s for 0.0 MB): files are pulled instead"] if slow else [])
    assert (cache.load(entry) is None) is slow
    assert cache.restore(entry, tmp_path / "out") is not slow


@pytest.mark.parametrize("use", ["store", "save"])
def test_a_slow_cache_is_not_written_to_any_more(
    cache: FileCache, told: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, use: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(total=TOTAL, free=10**12))
    monkeypatch.setattr(module, "monotonic", Clock(12.1))
    (tmp_path / "large").write_bytes(b"x" * 10_000_000)
    for name in ("x", "y"):
        entry = CacheEntry.of_name(name)
        cache.store(entry, b"x" * 10_000_000) if use == "store" else cache.save(entry, tmp_path / "large")
    assert told == ["the data cache is slow (12 s for 10.0 MB): files are pulled instead"]
    assert len(kept(tmp_path)) == 1


def fail(*_: object, **__: object) -> Never:
    raise OSError(5, "Input/output error")


def test_a_cache_that_cannot_be_read_costs_a_download_and_one_warning(
    cache: FileCache, told: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = CacheEntry.of_name("x")
    cache.store(entry, b"x")
    monkeypatch.setattr(Path, "read_bytes", fail)
    monkeypatch.setattr(Path, "hardlink_to", fail)
    monkeypatch.setattr(shutil, "copyfile", fail)
    assert cache.load(entry) is None
    assert cache.restore(entry, tmp_path / "out") is False
    assert told == ["the data cache cannot be read (Input/output error): files are pulled instead"]


def test_a_cache_that_cannot_be_written_costs_one_warning(
    cache: FileCache, told: list[str], monkeypatch: pytest.MonkeyPatch, file: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "write_bytes", fail)
    cache.store(CacheEntry.of_name("x"), b"x")
    cache.save(CacheEntry.of_name("y"), file)
    assert told == ["the data cache cannot be written (Input/output error): files are pulled instead"]
    assert kept(tmp_path) == []


# In front of a store


class Counting(FolderStore):
    """Counts its downloads."""

    downloads = 0

    @property
    def local_root(self) -> None:
        return None

    def download(self, info: ObjectInfo, destination: Path) -> None:
        type(self).downloads += 1
        super().download(info, destination)


@pytest.mark.parametrize(("etag", "downloads"), [("v1", 1), ("", 2)])
def test_what_has_a_version_is_pulled_once(
    cache: FileCache, tmp_path: Path, file: Path, etag: str, downloads: int
) -> None:
    Counting.downloads = 0
    source = with_cache(Counting(tmp_path), cache)
    for name in ("1", "2"):
        source.download(ObjectInfo("abc", 3, etag), tmp_path / "run" / name)
        assert (tmp_path / "run" / name).read_bytes() == b"abc"
    assert Counting.downloads == downloads
    assert source.local_root is None


def test_the_same_key_of_another_store_is_another_object(cache: FileCache, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
        with_cache(FolderStore(tmp_path / name), cache).download(ObjectInfo("x", 1, "v1"), tmp_path / "run" / name)
        assert (tmp_path / "run" / name).read_text() == name


def test_a_failure_of_the_store_is_told_as_it_is(cache: FileCache, tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="No such file"):
        with_cache(FolderStore(tmp_path), cache).download(ObjectInfo("x", 1, "v1"), tmp_path / "run/x")
    assert kept(tmp_path) == []


def test_without_a_cache_a_store_is_its_own_source(cache: FileCache, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert with_cache(store, None) is store
    assert with_cache(store, cache).local_root == tmp_path
