"""Downloads in the background: what is pulled again, what is logged, and how they end."""

import hashlib
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from anomaly_runner.errors import StorageUnavailable
from anomaly_runner.storage import ObjectInfo, download_all, prefetch, start_prefetch
from anomaly_runner.storage.prefetch import _DownloadCounter

MEBIBYTE = 1 << 20


class Source:
    """Objects that are all the same; takes down which are pulled."""

    local_root = None

    def __init__(self, content: bytes = b"1", before: Callable[[ObjectInfo], None] = lambda info: None) -> None:
        self.content, self.before = content, before
        self.pulled = list[str]()

    def download(self, info: ObjectInfo, destination: Path) -> None:
        self.before(info)
        self.pulled.append(info.key)
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(self.content)


def never_stop() -> None:
    """Never stop waiting."""


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int, int]]:
    """Files, of how many, and mebibytes, of each line about the downloads."""
    lines = [record.__dict__ for record in caplog.records if record.message == "pulled"]
    return [(line["files"], line["of"], line["megabytes"]) for line in lines]


def test_the_log_tells_of_each_tenth_of_the_bytes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    objects = [ObjectInfo(str(index), MEBIBYTE, "v") for index in range(20)]
    counter = _DownloadCounter(objects)
    for info in objects:
        counter.add(info)
    assert told(caplog) == [(done, 20, done) for done in range(2, 21, 2)]


def test_the_log_tells_of_the_last_file_even_if_it_is_empty(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    objects = [ObjectInfo("a", 10 * MEBIBYTE, "v"), ObjectInfo("b", 0, "v"), ObjectInfo("c", 0, "v")]
    counter = _DownloadCounter(objects)
    for info in objects:
        counter.add(info)
    assert told(caplog) == [(1, 3, 10), (3, 3, 10)]
    caplog.clear()
    _DownloadCounter([ObjectInfo("a", 0, "v")]).add(ObjectInfo("a", 0, "v"))
    assert told(caplog) == [(1, 1, 0)]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, []),
        ({"etag": "v2"}, ["d/a"]),
        ({"size": 2}, ["d/a"]),
        ({"key": "d/b"}, ["d/b"]),
    ],
)
def test_an_object_is_pulled_again_if_it_is_another(
    tmp_path: Path, change: dict[str, object], again: list[str]
) -> None:
    first, second = {"key": "d/a", "size": 1, "etag": "v1"}, Source()
    download_all(Source(), [ObjectInfo(**first)], tmp_path, never_stop)  # type: ignore[arg-type]
    assert (tmp_path / ".etags.jsonl").read_text() == '["d/a", 1, "v1"]\n'
    changed = ObjectInfo(**first | change)  # type: ignore[arg-type]
    assert download_all(second, [changed], tmp_path, never_stop) == tmp_path
    assert second.pulled == again


def test_an_object_without_a_version_is_pulled_again(tmp_path: Path) -> None:
    source = Source()
    for _ in range(2):
        download_all(source, [ObjectInfo("a", 1, "")], tmp_path, never_stop)
    assert source.pulled == ["a", "a"]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"12")])
def test_a_file_that_is_not_as_it_was_is_pulled_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    source = Source()
    download_all(source, [ObjectInfo("a", 1, "v")], tmp_path, never_stop)
    damage(tmp_path / "a")
    download_all(source, [ObjectInfo("a", 1, "v")], tmp_path, never_stop)
    assert source.pulled == ["a", "a"]
    lines = (tmp_path / ".etags.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [["a", 1, "v"]] * 2


def test_a_line_that_a_full_disk_or_a_dead_process_left_incomplete_costs_a_download(tmp_path: Path) -> None:
    """The next line is written behind it."""
    objects = [ObjectInfo(key, 1, "v") for key in ("a", "b", "c")]
    download_all(Source(), objects[:1], tmp_path, never_stop)
    with (tmp_path / ".etags.jsonl").open("a") as index:
        index.write('["b", 1')
    pulled = list[list[str]]()
    for _ in range(3):
        source = Source()
        download_all(source, objects, tmp_path, never_stop)
        pulled.append(sorted(source.pulled))
    assert pulled[0] == ["b", "c"]
    assert pulled[2] == []


@pytest.mark.parametrize(
    ("key", "extension"),
    [
        ("d/a.PNG", ".png"),
        ("d/a", ""),
        ("d/a.p-g", ""),
        ("d/a.-png", ""),
        ("d/a.\u00e4", ""),
        (f"d/a.{'x' * 300}", f".{'x' * 32}"),
    ],
)
def test_a_file_is_named_by_the_digest_of_its_key_and_its_extension(tmp_path: Path, key: str, extension: str) -> None:
    """Libraries choose how to decode it by that; a name has at most 100 characters."""
    source = Source()
    prefetcher = start_prefetch(source, [ObjectInfo(key, 1, "v")], tmp_path, never_stop)
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert prefetcher.path(key) == tmp_path / digest[:2] / f"{digest}{extension}"
    prefetcher.close()


def test_objects_that_are_all_waited_for_keep_their_keys(tmp_path: Path) -> None:
    download_all(Source(), [ObjectInfo("d/a_UDCE9_.png", 1, "v")], tmp_path, never_stop)
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["a\udce9.png"]


def test_a_disk_that_fails_is_a_failure_of_the_storage(tmp_path: Path) -> None:
    def full(info: ObjectInfo) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageUnavailable, match=rf"cannot write d/a below {tmp_path}: \[Errno 28\] No space left"):
        download_all(Source(before=full), [ObjectInfo("d/a", 1, "v")], tmp_path, never_stop)


def test_what_has_not_begun_is_given_up_at_the_end_and_what_has_is_waited_for(tmp_path: Path) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def hold(info: ObjectInfo) -> None:
        begun.release()
        go_on.wait(5)

    source = Source(before=hold)
    objects = [ObjectInfo(f"{index:02d}", 1, "v") for index in range(40)]
    prefetcher = start_prefetch(source, objects, tmp_path, never_stop)
    for _ in range(16):
        assert begun.acquire(timeout=5)
    threading.Timer(0.1, go_on.set).start()
    prefetcher.close()
    assert sorted(source.pulled) == [f"{index:02d}" for index in range(16)]
    assert len((tmp_path / ".etags.jsonl").read_text().splitlines()) == 16


def test_a_consumer_asks_again_and_again_while_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "_POLL_SECONDS", 0.01)
    asked, go_on = list[int](), threading.Event()

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            go_on.set()

    def hold(info: ObjectInfo) -> None:
        go_on.wait(5)

    source = Source(before=hold)
    prefetcher = start_prefetch(source, [ObjectInfo("a.png", 1, "v")], tmp_path, check)
    assert prefetcher.path("a.png").read_bytes() == b"1"
    assert len(asked) >= 3
    prefetcher.close()


def test_what_was_pulled_is_known_even_if_the_process_dies(tmp_path: Path) -> None:
    prefetcher = start_prefetch(Source(), [ObjectInfo("a.png", 1, "v")], tmp_path / "deep/er", never_stop)
    prefetcher.path("a.png")
    assert (tmp_path / "deep/er/.etags.jsonl").read_text() == '["a.png", 1, "v"]\n'
    prefetcher.close()


def test_a_consumer_asks_whether_to_wait_on_before_it_waits(tmp_path: Path) -> None:
    asked = list[int]()
    prefetcher = start_prefetch(Source(), [ObjectInfo("a.png", 1, "v")], tmp_path, lambda: asked.append(1))
    assert prefetcher.path("a.png").read_bytes() == b"1"
    assert prefetcher.path("a.png").suffix == ".png"
    assert asked
    prefetcher.close()
    prefetcher.close()
