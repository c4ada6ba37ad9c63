"""The data cache: a second download requests no object, damage costs a download, several runs share the cache."""

import dataclasses
import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest

from anomaly_api.dataset import BuiltinDataset
from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.run import RunConfig
from anomaly_api.storage import LocationRole, S3Location
from anomaly_runner import locations
from anomaly_runner.context import Context
from anomaly_runner.data.builtin import PUBLISHED, prepare
from anomaly_runner.data.builtin.remote_files import RemoteFile
from anomaly_runner.data.fetch import list_experiment, prefetch_images
from anomaly_runner.errors import DataInvalid
from anomaly_runner.storage import FileCache, FolderStore, ObjectInfo, Store, download_all, with_cache
from anomaly_runner.storage import object_cache as cache_module
from anomaly_runner.storage.object_cache import CacheEntry
from anomaly_runner.storage.s3 import connect
from support.contexts import RUN, make_context
from support.disk import Usage, plenty_of_space
from support.fake_s3 import FakeS3, fake_s3
from support.fake_web import serve_files
from support.optional import not_none

pytestmark = pytest.mark.usefixtures("disk_with_space")

KEYS = {"ANOMALY_DATASET_AWS_ACCESS_KEY_ID": "id", "ANOMALY_DATASET_AWS_SECRET_ACCESS_KEY": "secret"}
FOLDERS = ("train/good", "test/good", "test/dent")
OBJECTS = {
    f"set/{folder}/{index}.png": np.random.default_rng(index).bytes(5000 + index)
    for folder in FOLDERS
    for index in range(8)
}


def never_stop() -> None:
    """Never stop waiting."""


@pytest.fixture
def s3() -> Iterator[FakeS3]:
    with fake_s3(dict(OBJECTS)) as server:
        yield server


def download_through_cache(server_url: str, root: Path, destination: Path) -> list[str]:
    """Download all objects through the cache, and return its warnings."""
    warnings: list[str] = []
    store = connect(LocationRole.DATASET, S3Location(uri="s3://data/set", endpoint=server_url), KEYS)
    download_all(with_cache(store, FileCache(root, warnings.append)), store.list(), destination, never_stop)
    return warnings


def download_in_a_process(server_url: str, root: Path, destination: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", plenty_of_space)
        download_through_cache(server_url, root, destination)


def requested_objects(server: FakeS3) -> list[str]:
    """Objects requested since the last call."""
    asked = [line for line in server.asked if line.endswith(".png")]
    server.asked.clear()
    return asked


def assert_complete(destination: Path) -> None:
    found = {f"set/{file.relative_to(destination)}": file.read_bytes() for file in destination.rglob("*.png")}
    assert found == OBJECTS


def cached_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_a_second_download_requests_no_object(s3: FakeS3, tmp_path: Path) -> None:
    assert download_through_cache(s3.url, tmp_path / "cache", tmp_path / "a") == []
    assert len(requested_objects(s3)) == len(OBJECTS)
    assert download_through_cache(s3.url, tmp_path / "cache", tmp_path / "b") == []
    assert requested_objects(s3) == []
    assert_complete(tmp_path / "a")
    assert_complete(tmp_path / "b")


def test_only_a_changed_object_is_downloaded_again(s3: FakeS3, tmp_path: Path) -> None:
    download_through_cache(s3.url, tmp_path / "cache", tmp_path / "a")
    s3.objects["set/test/dent/3.png"] = b"another"
    requested_objects(s3)
    download_through_cache(s3.url, tmp_path / "cache", tmp_path / "b")
    assert requested_objects(s3) == ["GET set/test/dent/3.png"]
    assert (tmp_path / "b/test/dent/3.png").read_bytes() == b"another"


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-1] + b"?", lambda _: b""])
def test_damaged_entries_are_found_and_replaced(s3: FakeS3, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    download_through_cache(s3.url, tmp_path / "cache", tmp_path / "a")
    requested_objects(s3)
    for entry in cached_files(tmp_path / "cache")[:3]:
        content = entry.read_bytes()
        entry.unlink()  # the first run's own file stays as it is
        entry.write_bytes(damage(content))
    download_through_cache(s3.url, tmp_path / "cache", tmp_path / "b")
    assert len(requested_objects(s3)) == 3
    download_through_cache(s3.url, tmp_path / "cache", tmp_path / "c")
    assert requested_objects(s3) == []
    for folder in "abc":
        assert_complete(tmp_path / folder)


def test_objects_whose_etag_is_no_digest_are_checked_by_size(tmp_path: Path) -> None:
    """For multipart uploads, and for encrypted objects, whose ETags only look like MD5 digests."""
    cache = FileCache(tmp_path / "cache", pytest.fail)
    (tmp_path / "file").write_bytes(b"content")
    for etag in ("d41d8cd98f00b204e9800998ecf8427e-3", "0123456789abcdef0123456789abcdef"):
        entry = CacheEntry.of_object("http://s3/data/x", ObjectInfo("x", 7, etag))
        assert not cache.restore(entry, tmp_path / "out")
        cache.save(entry, tmp_path / "file")
        assert cache.restore(entry, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"content"


def test_the_same_key_elsewhere_is_another_entry() -> None:
    info = ObjectInfo("x", 7, "e")
    names = {CacheEntry.of_object(address, info).name for address in ("http://a/b/x", "http://a/c/x", "http://d/b/x")}
    assert len(names) == 3


def test_two_processes_use_the_cache_at_the_same_time(s3: FakeS3, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    runs = [
        spawn.Process(target=download_in_a_process, args=(s3.url, tmp_path / "cache", tmp_path / name)) for name in "ab"
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0]
    assert_complete(tmp_path / "a")
    assert_complete(tmp_path / "b")
    requested_objects(s3)
    download_through_cache(s3.url, tmp_path / "cache", tmp_path / "c")
    assert requested_objects(s3) == []
    assert len(cached_files(tmp_path / "cache")) == len(OBJECTS)


def test_another_file_system_gets_copies(s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_link(*_: object) -> Never:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse_link)
    download_through_cache(s3.url, tmp_path / "cache", tmp_path / "a")
    download_through_cache(s3.url, tmp_path / "cache", tmp_path / "b")
    assert len(requested_objects(s3)) == len(OBJECTS)
    assert_complete(tmp_path / "b")


def test_a_cache_that_cannot_be_written_costs_one_warning(s3: FakeS3, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    warnings = download_through_cache(s3.url, tmp_path / "cache", tmp_path / "a")
    assert len(warnings) == 1
    assert "the data cache cannot be" in warnings[0]
    assert_complete(tmp_path / "a")


TOTAL = 1_000_000
KEPT_FREE, FREED_AHEAD = 150_000, 30_000


def new_file(folder: Path, index: int = 0) -> tuple[CacheEntry, Path]:
    content = b"%03d." % index * 250
    file = folder / f"new{index}"
    file.write_bytes(content)
    digest = hashlib.md5(content).hexdigest()
    return CacheEntry.of_object(f"http://s3/data/{file.name}", ObjectInfo(file.name, len(content), digest)), file


def test_the_oldest_entries_make_room(s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download_through_cache(s3.url, tmp_path / "cache", tmp_path / "a")
    entries = cached_files(tmp_path / "cache")
    for age, entry in enumerate(entries):
        os.utime(entry, (1_000_000 - age, 1_000_000 - age))
    oldest = entries[-10:]
    removed = sum(entry.stat().st_size for entry in oldest)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(TOTAL, 0, KEPT_FREE + 1000 + FREED_AHEAD - removed))
    cache = FileCache(tmp_path / "cache", pytest.fail)
    new, file = new_file(tmp_path)
    cache.save(new, file)
    assert not any(entry.exists() for entry in oldest)
    assert all(entry.exists() for entry in entries[:-10])
    assert cache.restore(new, tmp_path / "out")


def test_a_full_disk_is_scanned_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(folder: Path) -> Usage:
        return Usage(TOTAL, 0, KEPT_FREE + 50_000 - sum(file.stat().st_size for file in cached_files(folder)))

    scans: list[Path] = []
    entries = cache_module._entries

    def counted(root: Path) -> Iterator[tuple[float, int, Path]]:
        scans.append(root)
        return entries(root)

    monkeypatch.setattr("shutil.disk_usage", usage)
    monkeypatch.setattr(cache_module, "_entries", counted)
    cache = FileCache(tmp_path / "cache", pytest.fail)
    for index in range(100, 200):
        cache.save(*new_file(tmp_path, index))
    assert 2 <= len(scans) <= 6


def test_an_entry_that_is_evicted_during_its_restore_is_still_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FileCache(tmp_path / "cache", pytest.fail)
    entry, file = new_file(tmp_path)
    cache.save(entry, file)
    (place,) = cached_files(tmp_path / "cache")

    def evicted(*_: object) -> bool:
        place.unlink()
        return True

    monkeypatch.setattr(CacheEntry, "matches", evicted)
    assert cache.restore(entry, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == file.read_bytes()


def test_temporary_files_of_other_runs_are_kept_until_they_are_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "cache/objects/ab/.half"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    os.utime(half, (1, 1))  # the mtime of a link to an old file
    cache = FileCache(tmp_path / "cache", lambda _: None)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(TOTAL, TOTAL, 0))
    cache.save(*new_file(tmp_path))
    assert half.exists()
    monkeypatch.setattr(cache_module, "_ABANDONED_SECONDS", -1.0)
    FileCache(tmp_path / "cache", lambda _: None).save(*new_file(tmp_path))
    assert not half.exists()


def test_a_temporary_file_that_another_run_removes_is_only_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def cleared(half: Path, target: Path) -> Path:
        half.unlink()
        monkeypatch.setattr(Path, "replace", replace)
        return replace(half, target)

    monkeypatch.setattr(Path, "replace", cleared)
    cache = FileCache(tmp_path / "cache", pytest.fail)
    entry, file = new_file(tmp_path)
    cache.save(entry, file)
    assert not cache.restore(entry, tmp_path / "out")
    cache.save(entry, file)
    assert cache.restore(entry, tmp_path / "out")


def test_a_failed_copy_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_half(source: Path, destination: Path) -> Never:
        destination.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    monkeypatch.setattr("shutil.copyfile", copy_half)
    warnings: list[str] = []
    FileCache(tmp_path / "cache", warnings.append).save(*new_file(tmp_path))
    assert warnings == ["the data cache cannot be written (No space left on device): files are pulled instead"]
    assert cached_files(tmp_path / "cache") == []


def test_a_full_disk_costs_one_warning(s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(1_000_000, 1_000_000, 0))
    warnings = download_through_cache(s3.url, tmp_path / "cache", tmp_path / "a")
    assert warnings == ["the data cache is on a full disk: files are pulled instead"]
    assert_complete(tmp_path / "a")
    assert cached_files(tmp_path / "cache") == []


def experiment(cache: dict[str, Any]) -> AnomalyExperiment:
    return AnomalyExperiment.model_validate(
        {
            "metadata": {"name": "x", "namespace": "ns"},
            "spec": {
                "dataset": {"source": {"s3": {"uri": "s3://data"}}, "category": "set", "cache": cache},
                "model": {"name": "padim"},
                "output": {"s3": {"uri": "s3://results"}},
            },
        }
    )


def context(work: Path, stores: Mapping[LocationRole, Store]) -> Context:
    return make_context(work, stores=stores)


def test_runs_of_a_node_share_its_folder(s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "NODE_CACHE_PATH", str(tmp_path / "node"))
    monkeypatch.setattr(
        locations, "connect", lambda role, location: connect(role, S3Location(uri=location.uri, endpoint=s3.url), KEYS)
    )
    (tmp_path / "node").mkdir()
    spec = experiment({"node": {}}).spec
    config = RunConfig(run=RUN, experiment=spec)
    for name in ("first", "second"):
        here = context(tmp_path / name, locations.pod_stores(config))
        listed = list_experiment(not_none(spec), here)
        brought = prefetch_images(listed, here)
        assert all(brought.path(key).is_file() for key in listed.dataset.file_keys())
        brought.close()
        assert not any("cache" in text for text in here.record.warnings)
    assert len(requested_objects(s3)) == len(OBJECTS)


def test_a_node_without_a_cache_gives_one_warning(s3: FakeS3, tmp_path: Path) -> None:
    store = connect(LocationRole.DATASET, S3Location(uri="s3://data", endpoint=s3.url), KEYS)
    here = context(tmp_path, {LocationRole.DATASET: store})
    assert list_experiment(experiment({"node": {}}).spec, here).cache is None
    assert here.record.warnings[-1] == "there is no node cache here: every run pulls its files anew"


def test_a_claim_can_hold_the_cache(tmp_path: Path) -> None:
    config = RunConfig(run=RUN, experiment=experiment({"persistentVolumeClaim": {"claimName": "cache"}}).spec)
    assert locations.local_stores(tmp_path, config)[LocationRole.CACHE] == FolderStore(tmp_path / "cache")


def test_public_datasets_are_cached(tmp_path: Path) -> None:
    content = b"not an archive, but the one that was published"
    file = RemoteFile(
        base="http://nowhere.invalid/",
        name="mvtec.tar",
        size=len(content),
        algorithm="sha256",
        digest=hashlib.sha256(content).hexdigest(),
    )
    with serve_files({"mvtec.tar": content}) as web:
        for name in ("first", "second"):
            cache = FileCache(tmp_path / "cache", pytest.fail)
            spec = BuiltinDataset(name="mvtec", mirror=web.url)
            with pytest.raises(DataInvalid, match="cannot be unpacked"):
                prepare(
                    spec,
                    "bottle",
                    tmp_path / name,
                    advance=lambda _: None,
                    check=never_stop,
                    catalog=dataclasses.replace(PUBLISHED, mvtec=file),
                    cache=cache,
                )
    assert len(web.asked) == 1
