"""Stores and downloads: what is copied, what is refused, and messages of a server's refusals."""

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber
from PIL import Image

from anomaly_api.dataset import DatasetLimits
from anomaly_api.storage import LocationRole, S3Location
from anomaly_runner.data.batches import IntegrityLog, read_batches
from anomaly_runner.data.files import read_file
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import DataChanged, DataInvalid, RunFailed, Stopped, StorageDenied, StorageUnavailable
from anomaly_runner.storage import FolderStore, ObjectInfo, download_all, start_prefetch
from anomaly_runner.storage.folder import check_unchanged
from anomaly_runner.storage.s3 import S3Store, connect

KEYS = {"ANOMALY_DATASET_AWS_ACCESS_KEY_ID": "id", "ANOMALY_DATASET_AWS_SECRET_ACCESS_KEY": "secret"}


def never_stop() -> None:
    """Never stop waiting."""


@pytest.fixture(scope="module")
def connected() -> S3Store:
    location = S3Location(uri="s3://bucket/some/prefix/", endpoint="http://127.0.0.1:1")
    return connect(LocationRole.DATASET, location, KEYS)


@pytest.fixture
def s3(connected: S3Store) -> Iterator[tuple[S3Store, Stubber]]:
    with Stubber(connected.client) as stub:
        yield connected, stub


def test_folder_store_lists_files_in_order_and_hides_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png", ".cache/x", "b/.DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    (tmp_path / "loop").symlink_to(tmp_path)
    store = FolderStore(tmp_path)
    assert [info.key for info in store.list()] == ["a/1.png", "b/2.png"]
    assert [info.key for info in store.list("b/")] == ["b/2.png"]
    assert store.list()[0].size == 2


def test_a_folder_that_may_not_be_read_is_told_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what file systems keep for themselves."""
    for name in ("train/good/1.png", "closed/2.png", "lost+found/3.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"1")
    scandir = os.scandir

    def guarded(path: str | Path) -> Any:
        if Path(path).name in ("closed", "lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    store = FolderStore(tmp_path)
    assert [info.key for info in store.list("train/")] == ["train/good/1.png"]
    assert store.list("nowhere/") == []
    with pytest.raises(StorageDenied, match=f"no permission for {tmp_path}/closed in {tmp_path}$"):
        store.list()
    (tmp_path / "closed/2.png").unlink()
    (tmp_path / "closed").rmdir()
    assert [info.key for info in store.list()] == ["train/good/1.png"]


@pytest.mark.parametrize(
    "use",
    [
        lambda store, here: store.list(),
        lambda store, here: store.folders(),
        lambda store, here: store.download(ObjectInfo("a/x", 1, "v"), here / "x"),
        lambda store, here: store.read("a/x"),
        lambda store, here: store.upload(here / "source", "a/y"),
        lambda store, here: store.delete("a/x"),
        lambda store, here: check_unchanged(ObjectInfo("a/x", 1, "v"), here / "root/a/x"),
    ],
    ids=["list", "folders", "download", "read", "upload", "delete", "check_unchanged"],
)
@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (PermissionError(13, "Permission denied", "the file"), StorageDenied, "no permission for the file in {}"),
        (OSError(5, "Input/output error", "the file"), StorageUnavailable, "{}: Input/output error (the file)"),
        (OSError("no number"), StorageUnavailable, "{}: no number (None)"),
    ],
)
def test_every_failure_of_a_file_system_is_typed_and_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, use: Any, error: OSError, kind: type[RunFailed], told: str
) -> None:
    (tmp_path / "root/a").mkdir(parents=True)
    (tmp_path / "root/a/x").write_bytes(b"1")
    (tmp_path / "source").write_bytes(b"1")
    store = FolderStore(tmp_path / "root")

    def fail(*_: object, **__: object) -> Never:
        raise error

    for module, name in ((os, "scandir"), (shutil, "copyfile")):
        monkeypatch.setattr(module, name, fail)
    for name in ("read_bytes", "unlink", "lstat"):
        monkeypatch.setattr(Path, name, fail)
    with pytest.raises(kind) as raised:
        use(store, tmp_path)
    places = {store.uri, str(tmp_path / "root/a/x")}
    assert str(raised.value) in {told.format(place) for place in places}


def test_a_file_is_copied_into_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "root/a").mkdir(parents=True)
    (tmp_path / "root/a/x").write_bytes(b"1")
    store = FolderStore(tmp_path / "root")
    store.download(store.list()[0], tmp_path / "deep/er/x")
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["x"]
    assert (tmp_path / "deep/er/x").read_bytes() == b"1"
    store.delete("a/x")
    store.delete("a/x")
    assert store.list() == []
    assert store.address("a/x") == f"{tmp_path}/root/a/x"
    assert store.subfolder("") is store


def test_folders_are_listed_without_what_they_hold(tmp_path: Path, s3: tuple[S3Store, Stubber]) -> None:
    for name in ("screws-t1/uid/report.json", "screws-t2/uid/report.json", "screws/x", "bolts-t1/x", ".hidden/x"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "screws-table.csv").write_bytes(b"")
    assert FolderStore(tmp_path).folders("screws-t") == ("screws-t1", "screws-t2")
    assert FolderStore(tmp_path).folders() == ("bolts-t1", "screws", "screws-t1", "screws-t2")
    assert FolderStore(tmp_path / "none").folders() == ()
    store, stub = s3
    answer = {"CommonPrefixes": [{"Prefix": "some/prefix/screws-t%3A2/"}, {"Prefix": "some/prefix/screws-t1/"}]}
    stub.add_response(
        "list_objects_v2",
        {"EncodingType": "url", "Contents": [{"Key": "some/prefix/screws-table.csv", "Size": 1}], **answer},
        {"Bucket": "bucket", "Prefix": "some/prefix/screws-t", "Delimiter": "/", "EncodingType": "url"},
    )
    assert store.folders("screws-t") == ("screws-t1", "screws-t:2")


def test_folder_store_writes_whole_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    store = FolderStore(tmp_path / "out").subfolder("ns/name")
    store.upload(source, "deep/file.bin")
    assert store.read("deep/file.bin") == b"content"
    assert store.read("other") is None
    assert [path.name for path in (tmp_path / "out/ns/name/deep").iterdir()] == ["file.bin"]


def test_a_volume_that_is_full_keeps_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would never be removed, and would leave less room for the next pod."""

    def full(source: Path, target: Path) -> Never:
        target.write_bytes(b"a part")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageUnavailable, match="No space left on device"):
        FolderStore(tmp_path / "out").upload(Path(__file__), "model.onnx")
    assert list((tmp_path / "out").iterdir()) == []


def test_two_pods_do_not_write_to_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on a node that was lost may go on, and process ids are equal from pod to pod."""
    used, copy = list[Path](), shutil.copyfile

    def copied(source: Path, target: Path) -> None:
        used.append(target)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copied)
    for _ in range(2):
        FolderStore(tmp_path).upload(Path(__file__), "report.json")
    assert len(set(used)) == 2
    assert {(file.parent, file.name[0]) for file in used} == {(tmp_path, ".")}, "hidden, on the same file system"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_store_without_permission(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(StorageDenied):
        FolderStore(tmp_path / "out").upload(Path(__file__), "x")


def test_folder_store_on_a_failing_file_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageUnavailable, match="file"):
        FolderStore(tmp_path / "file").upload(Path(__file__), "x")


@pytest.mark.parametrize("key", ["../x", "/etc/x", "a/../../x", "a/./b", "a\0b", ""])
def test_hostile_keys_are_never_written(tmp_path: Path, s3: tuple[S3Store, Stubber], key: str) -> None:
    for store in (FolderStore(tmp_path), s3[0]):
        told = f"in {store.uri}: it leads out of the folder"
        with pytest.raises(DataInvalid, match=told):
            store.read(key)
        with pytest.raises(DataInvalid, match=told):
            store.upload(Path(__file__), key)
        with pytest.raises(DataInvalid, match=told):
            store.delete(key)
        with pytest.raises(DataInvalid, match=told):
            store.download(ObjectInfo(key, 1, "e"), tmp_path / "x")


def test_s3_keys_are_relative_to_the_prefix(s3: tuple[S3Store, Stubber]) -> None:
    store, stub = s3
    names = ("train/good/b.png", "train/good/a.png", "folder/", ".hidden/x", "../evil.png")
    contents = [{"Key": f"some/prefix/{name}", "Size": 3, "ETag": '"abc"'} for name in names]
    stub.add_response(
        "list_objects_v2", {"Contents": contents}, {"Bucket": "bucket", "Prefix": "some/prefix/", "EncodingType": "url"}
    )
    assert [info.key for info in store.list()] == ["../evil.png", "train/good/a.png", "train/good/b.png"]
    assert store.uri == "s3://bucket/some/prefix"
    assert store.subfolder("x").uri == "s3://bucket/some/prefix/x"


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("AccessDenied", 403, StorageDenied),
        ("InvalidAccessKeyId", 403, StorageDenied),
        ("SignatureDoesNotMatch", 403, StorageDenied),
        ("Unauthorized", 401, StorageDenied),
        ("XAdminUserNotFound", 404, StorageDenied),
        ("AuthorizationHeaderMalformed", 400, StorageDenied),
        ("NoSuchBucket", 404, DataInvalid),
        ("NoSuchKey", 404, DataInvalid),
        ("InternalError", 500, StorageUnavailable),
        ("SlowDown", 503, StorageUnavailable),
        ("TooManyRequests", 429, StorageUnavailable),
        ("RequestTimeout", 408, StorageUnavailable),
        ("Found", 302, StorageDenied),
        ("PermanentRedirect", 301, StorageDenied),
        ("TemporaryRedirect", 307, StorageDenied),
        ("MethodNotAllowed", 405, StorageDenied),
        ("", 499, StorageDenied),
        ("", 500, StorageUnavailable),
    ],
)
def test_refusals_of_a_server_become_typed_errors(
    s3: tuple[S3Store, Stubber], code: str, status: int, error: type[RunFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    store, stub = s3
    for _ in range(6):
        stub.add_client_error("list_objects_v2", code, http_status_code=status)
    with pytest.raises(error, match="s3://bucket/some/prefix"):
        store.list()


@pytest.mark.parametrize(
    ("raised", "error"),
    [(NoCredentialsError(), StorageDenied), (EndpointConnectionError(endpoint_url="http://x"), StorageUnavailable)],
)
def test_what_never_reaches_a_server(
    raised: Exception, error: type[RunFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect(LocationRole.DATASET, S3Location(uri="s3://bucket", endpoint="http://127.0.0.1:1"), KEYS)
    monkeypatch.setattr(store.client, "put_object", lambda **_: (_ for _ in ()).throw(raised))
    with pytest.raises(error, match="s3://bucket/key"):
        store.upload(Path(__file__), "key")


def test_each_role_has_credentials_of_its_own() -> None:
    location = S3Location(uri="s3://bucket", endpoint="http://127.0.0.1:1")
    keys = KEYS | {
        "ANOMALY_OUTPUT_AWS_ACCESS_KEY_ID": "other",
        "ANOMALY_OUTPUT_AWS_SECRET_ACCESS_KEY": "s",
        "ANOMALY_OUTPUT_AWS_SESSION_TOKEN": "token",
    }
    found = {
        role: connect(role, location, keys).client._request_signer._credentials
        for role in (LocationRole.DATASET, LocationRole.OUTPUT)
    }
    assert (found[LocationRole.DATASET].access_key, found[LocationRole.DATASET].token) == ("id", None)
    assert (found[LocationRole.OUTPUT].access_key, found[LocationRole.OUTPUT].token) == ("other", "token")


class MemoryStore:
    """A store of objects in a dictionary that counts downloads and can block them."""

    uri = "memory"
    local_root = None

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.downloaded: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        return [ObjectInfo(key, len(value), value.decode()) for key, value in sorted(self.contents.items())]

    def download(self, info: ObjectInfo, destination: Path) -> None:
        if not self.gate.wait(5):
            raise StorageUnavailable("held up")
        self.downloaded.append(info.key)
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(self.contents[info.key])


def test_downloaded_files_are_not_pulled_again(tmp_path: Path) -> None:
    store = MemoryStore({"a": b"1", "d/b": b"22", "c": b"3"})
    download_all(store, store.list(), tmp_path, never_stop)
    assert sorted(store.downloaded) == ["a", "c", "d/b"]
    assert (tmp_path / "d/b").read_bytes() == b"22"
    store.downloaded.clear()
    download_all(store, store.list(), tmp_path, never_stop)
    assert store.downloaded == []
    store.contents["a"] = b"9"
    (tmp_path / "c").unlink()
    download_all(store, store.list(), tmp_path, never_stop)
    assert sorted(store.downloaded) == ["a", "c"]
    assert (tmp_path / "a").read_bytes() == b"9"


def test_a_truncated_index_is_read_up_to_its_end(tmp_path: Path) -> None:
    store = MemoryStore({"a": b"1", "b": b"2"})
    download_all(store, store.list(), tmp_path, never_stop)
    index = tmp_path / ".etags.jsonl"
    index.write_text(index.read_text()[:-4])
    store.downloaded.clear()
    download_all(store, store.list(), tmp_path, never_stop)
    assert len(store.downloaded) == 1


def test_a_file_is_ready_before_the_whole_pull_is(tmp_path: Path) -> None:
    store = MemoryStore({"a": b"1", "b": b"2"})
    store.gate.clear()
    prefetcher = start_prefetch(store, store.list(), tmp_path, never_stop)
    store.gate.set()
    assert prefetcher.path("a").read_bytes() == b"1"
    prefetcher.close()


def test_waiting_for_a_file_ends_when_the_run_is_stopped(tmp_path: Path) -> None:
    store = MemoryStore({"a": b"1"})
    store.gate.clear()

    def check() -> Never:
        raise Stopped("now")

    prefetcher = start_prefetch(store, store.list(), tmp_path, check)
    with pytest.raises(Stopped):
        prefetcher.path("a")
    store.gate.set()
    prefetcher.close()


def test_a_folder_is_used_in_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    store = FolderStore(tmp_path)
    assert download_all(store, store.list(), tmp_path / "unused", never_stop) == tmp_path
    assert not (tmp_path / "unused").exists()


def test_pinned_files_of_a_folder_are_what_was_listed(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d/e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    store = FolderStore(tmp_path)
    listed = [replace(info, pinned=info.key != "c") for info in store.list()]
    prefetcher = start_prefetch(store, listed, tmp_path / "unused", never_stop)
    for info in listed:
        assert prefetcher.path(info.key).read_bytes() == b"1"
    written = (tmp_path / "a").stat().st_mtime_ns
    for name in ("a", "c"):
        (tmp_path / name).write_bytes(b"2")
        os.utime(tmp_path / name, ns=(written, written + 1))
    (tmp_path / "b").unlink()
    shutil.rmtree(tmp_path / "d")
    for name in ("a", "b", "d/e"):
        with pytest.raises(DataChanged, match=f"{name} was replaced or deleted"):
            prefetcher.path(name)
    assert prefetcher.path("c").read_bytes() == b"2"


def test_a_failed_pull_is_raised_to_waiting_readers(tmp_path: Path) -> None:
    class Refusing(MemoryStore):
        def download(self, info: ObjectInfo, destination: Path) -> None:
            raise StorageDenied("no")

    store = Refusing({"a": b"1"})
    with pytest.raises(StorageDenied):
        download_all(store, store.list(), tmp_path, never_stop)


@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "pipe-link.png").symlink_to("pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "nowhere.png").symlink_to("missing.png")
    (tmp_path / "outside.png").symlink_to("/etc/hostname")
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    (tmp_path / "link.png").symlink_to("image.png")
    samples = [Sample(info.key, "good") for info in FolderStore(tmp_path).list()]
    log = IntegrityLog(DatasetLimits(max_unreadable_images=5))
    prefetcher = start_prefetch(FolderStore(tmp_path), [], tmp_path, never_stop)
    (batch,) = read_batches(
        prefetcher, samples, Preprocessor(height=8, width=8, normalization="none"), log, batch_size=9, threads=2
    )
    assert [sample.key for sample in batch.samples] == ["image.png", "link.png"]
    assert {image.path: image.problem for image in log.unreadable} == {
        "pipe.png": "not a file",
        "pipe-link.png": "not a file",
        "loop.png": "not a file",
        "nowhere.png": "not a file",
        "outside.png": "a symbolic link that leads out of the dataset",
    }


def test_a_file_without_permission_is_denied_and_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_to_read(path: Path) -> Never:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.png").write_bytes(b"1")
    monkeypatch.setattr(Path, "read_bytes", fail_to_read)
    with pytest.raises(StorageDenied, match=r"no permission for .*a\.png"):
        read_file(start_prefetch(FolderStore(tmp_path), [], tmp_path, never_stop), "a.png")


def test_a_file_system_that_fails_is_named_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_to_read(path: Path) -> Never:
        raise OSError(errno.EIO, "Input/output error", str(path))

    (tmp_path / "a.png").write_bytes(b"1")
    monkeypatch.setattr(Path, "read_bytes", fail_to_read)
    with pytest.raises(StorageUnavailable, match=r"^cannot read .*a\.png: Input/output error$"):
        read_file(start_prefetch(FolderStore(tmp_path), [], tmp_path, never_stop), "a.png")


def test_weights_that_may_not_be_read_are_denied_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries would report such a file as missing."""
    (tmp_path / "model.safetensors").write_bytes(b"1")
    store = FolderStore(tmp_path)
    assert download_all(store, store.list(), tmp_path, never_stop) == tmp_path
    monkeypatch.setattr(os, "access", lambda path, mode: not path.name.endswith(".safetensors"))
    with pytest.raises(StorageDenied, match=r"no permission to read .*model\.safetensors: make it readable"):
        download_all(store, store.list(), tmp_path, never_stop)
