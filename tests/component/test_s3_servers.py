"""S3 servers as they are: without ETags or checksums, with odd keys, many keys, other regions, expired tokens."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.stub import Stubber

from anomaly_api.storage import LocationRole, S3Location
from anomaly_runner.errors import DataChanged, InvalidConfig, RunFailed, StorageDenied, StorageUnavailable
from anomaly_runner.storage import FileCache, ObjectInfo, download_all, start_prefetch, with_cache
from anomaly_runner.storage.s3 import S3Store, connect
from support.fake_s3 import FakeS3, Refusal, fake_s3
from support.s3_server import KEY, SECRET, needs_s3_server, s3_server

pytestmark = pytest.mark.usefixtures("disk_with_space")

KEYS = {"ANOMALY_DATASET_AWS_ACCESS_KEY_ID": "id", "ANOMALY_DATASET_AWS_SECRET_ACCESS_KEY": "secret"}
LARGE = bytes(range(256)) * 8192
ODD_NAMES = [
    "2024-05-01T12:30:00.png",
    "C:/x.png",
    "a b+c%20d&e=f.png",
    "'quotes\" \\ back.png",
    "new\nline\x01.png",
    "\u5927/\U0001f600.png",
    "e\u0301.png",
    "\u00e9.png",
    "A.PNG",
    "a.png",
    "a.png/b.png",
    "a//b.png",
    f"{'x' * 600}/{'y' * 300}.png",
]


def never_stop() -> None:
    """Never stop waiting."""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_runner.storage.s3._LONGEST_PAUSE", 0.01)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)


@pytest.fixture
def s3() -> Iterator[FakeS3]:
    with fake_s3({"set/a.png": b"first", "set/large.png": LARGE}) as server:
        yield server


def store_of(server: FakeS3) -> S3Store:
    return connect(LocationRole.DATASET, S3Location(uri="s3://data/set", endpoint=server.url), KEYS)


@pytest.mark.parametrize("content", ["", "none", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"])
def test_an_authority_without_certificates_is_named(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "ca.crt"
    mounted.write_text(content)
    monkeypatch.setattr("anomaly_runner.storage.s3.ca_path", lambda role: str(mounted))
    location = S3Location(uri="s3://data", endpoint="https://s3.example.org")
    with pytest.raises(
        InvalidConfig, match=r"ca\.crt in the caConfigMap of the dataset location holds no PEM certificates"
    ):
        connect(LocationRole.DATASET, location)


def test_objects_without_etags_are_read_whole(s3: FakeS3, tmp_path: Path) -> None:
    s3.etags = False
    store = store_of(s3)
    download_all(store, store.list(), tmp_path, never_stop)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.png")} == {"a.png": b"first", "large.png": LARGE}


def test_without_an_etag_a_broken_download_begins_anew(s3: FakeS3, tmp_path: Path) -> None:
    """The object may have changed, and nothing would show it."""
    s3.etags = False
    store = store_of(s3)
    [info] = [found for found in store.list() if found.key == "large.png"]
    s3.faults = [-100_000, -200_000]
    store.download(info, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == LARGE
    assert not any("bytes=" in request for request in s3.asked)


def test_without_etags_nothing_is_kept_for_the_next_run(s3: FakeS3, tmp_path: Path) -> None:
    s3.etags = False
    store, warnings = store_of(s3), list[str]()
    for name in ("one", "two"):
        s3.objects["set/a.png"] = name.encode().ljust(5)
        source = with_cache(store, FileCache(tmp_path / "cache", warnings.append))
        for _ in range(2):  # neither in the cache nor in the folder
            download_all(source, store.list(), tmp_path / "here", never_stop)
        assert (tmp_path / "here/a.png").read_bytes() == name.encode().ljust(5)
    assert warnings == []


def pinned(store: S3Store, name: str) -> ObjectInfo:
    [info] = [found for found in store.list() if found.key == name]
    return replace(info, pinned=True)


@pytest.mark.parametrize("matches", [True, False], ids=["If-Match", "without If-Match"])
def test_a_pinned_object_is_the_one_that_was_listed_or_the_data_has_changed(
    s3: FakeS3, tmp_path: Path, matches: bool
) -> None:
    s3.matches = matches
    store = store_of(s3)
    for reader in (store, replace(store, fast_reader=None)):
        s3.objects["set/a.png"] = b"first"
        info = pinned(reader, "a.png")
        reader.download(info, tmp_path / "a.png")
        assert (tmp_path / "a.png").read_bytes() == b"first"
        s3.objects["set/a.png"] = b"other"
        with pytest.raises(DataChanged, match=r"s3://data/set/a\.png was replaced or deleted"):
            reader.download(info, tmp_path / "b.png")
        assert not (tmp_path / "b.png").exists()
        reader.download(replace(info, pinned=False), tmp_path / "c.png")
        assert (tmp_path / "c.png").read_bytes() == b"other"


def test_without_etags_a_pinned_object_is_known_by_its_size(s3: FakeS3, tmp_path: Path) -> None:
    s3.etags = False
    store = store_of(s3)
    info = pinned(store, "a.png")
    s3.objects["set/a.png"] = b"other"
    store.download(info, tmp_path / "a.png")
    s3.objects["set/a.png"] = b"longer"
    with pytest.raises(DataChanged):
        store.download(info, tmp_path / "b.png")


def test_a_pinned_object_that_the_cache_has_is_not_asked_for(s3: FakeS3, tmp_path: Path) -> None:
    """The kept file is the version that was listed, whatever the bucket holds now."""
    store = store_of(s3)
    info, source = pinned(store, "a.png"), with_cache(store, FileCache(tmp_path / "cache", lambda _: None))
    source.download(info, tmp_path / "a.png")
    s3.objects["set/a.png"] = b"other"
    source.download(info, tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == b"first"


def test_weak_etags_are_none(s3: FakeS3) -> None:
    store = store_of(s3)
    with Stubber(store.client) as stub:
        stub.add_response("list_objects_v2", {"Contents": [{"Key": "set/a.png", "Size": 1, "ETag": 'W/"x"'}]})
        assert [info.etag for info in store.list()] == [""]


@pytest.mark.parametrize("encodes", [True, False])
def test_names_that_s3_allows_are_read(s3: FakeS3, tmp_path: Path, encodes: bool) -> None:
    """A server that does not encode keys can list no control characters: XML cannot hold them."""
    names = [name for name in ODD_NAMES if encodes or name.isprintable()]
    s3.encodes, s3.objects = encodes, {f"set/{name}": name.encode() for name in names}
    store = store_of(s3)
    objects = store.list()
    assert {info.key for info in objects} == set(names)
    prefetcher = start_prefetch(store, objects, tmp_path, never_stop)
    assert {name: prefetcher.path(name).read_bytes() for name in names} == {name: name.encode() for name in names}
    prefetcher.close()


def test_keys_that_are_not_utf8_stay_different(s3: FakeS3) -> None:
    names = [byte.decode(errors="surrogateescape") for byte in (b"\xe4.png", b"\xf6.png")]
    s3.encodes, s3.objects = True, {f"set/{name}": b"x" for name in names}
    assert [info.key for info in store_of(s3).list()] == names


def test_folder_markers_are_no_files(s3: FakeS3) -> None:
    s3.objects |= {"set/": b"", "set/train/": b"", "set/train/good/": b""}
    assert [info.key for info in store_of(s3).list()] == ["a.png", "large.png"]


def test_more_keys_than_one_listing_has(s3: FakeS3) -> None:
    s3.objects = {f"set/{index:05d}.png": b"x" for index in range(2 * s3.page + 1)}
    assert [info.key for info in store_of(s3).list()] == [key.removeprefix("set/") for key in s3.objects]


def test_no_checksums_are_sent_that_older_servers_refuse(s3: FakeS3, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    store_of(s3).upload(tmp_path / "x", "x")
    assert s3.objects["set/x"] == b"content"
    [headers] = s3.uploaded_with
    assert not [name for name in headers if "checksum" in name or name == "x-amz-trailer"]


EXPIRED = Refusal(400, "ExpiredToken", {"Message": "The provided token has expired."})
SKEWED = Refusal(403, "RequestTimeTooSkewed", {"RequestTime": "20240501T120000Z", "ServerTime": "2024-05-01T12:40:00Z"})
ELSEWHERE = Refusal(301, "PermanentRedirect", {"Endpoint": "data.s3.eu-central-1.amazonaws.com"})
MALFORMED = Refusal(400, "AuthorizationHeaderMalformed", {"Region": "eu-central-1"})
WITH_HEADER = Refusal(301, "PermanentRedirect", headers={"x-amz-bucket-region": "eu-west-3"})


@pytest.mark.parametrize(
    ("refusal", "error", "message"),
    [
        (EXPIRED, StorageUnavailable, "session token for s3://data/set has expired.*credentialsSecret"),
        (SKEWED, StorageUnavailable, "clocks.*20240501T120000Z.*2024-05-01T12:40:00Z"),
        (ELSEWHERE, StorageDenied, "another region.*endpoint.*data.s3.eu-central-1.amazonaws.com"),
        (MALFORMED, StorageDenied, "another region: set region: eu-central-1"),
        (WITH_HEADER, StorageDenied, "another region: set region: eu-west-3"),
    ],
)
def test_refusals_say_what_to_do(s3: FakeS3, refusal: Refusal, error: type[RunFailed], message: str) -> None:
    s3.faults = [refusal] * 50
    with pytest.raises(error, match=message):
        store_of(s3).list()


def test_a_token_that_expires_in_mid_run(s3: FakeS3, tmp_path: Path) -> None:
    store = store_of(s3)
    objects = store.list()
    s3.faults = [EXPIRED] * 50
    with pytest.raises(StorageUnavailable, match=r"session token for s3://data/set/a\.png has expired"):
        store.download(objects[0], tmp_path / "x")


@needs_s3_server
def test_odd_names_on_a_real_server(tmp_path: Path) -> None:
    """It encodes no keys, and its file system has no "a.png" beside "a.png/b.png" and no part of 300 bytes."""
    (tmp_path / "root/bucket").mkdir(parents=True)
    too_odd = {"new\nline\x01.png", "a.png/b.png", "a//b.png"}
    names = [name for name in ODD_NAMES if len(name) < 200 and name not in too_odd]
    with s3_server(tmp_path / "root") as url:
        keys = {"ANOMALY_DATASET_AWS_ACCESS_KEY_ID": KEY, "ANOMALY_DATASET_AWS_SECRET_ACCESS_KEY": SECRET}
        location = S3Location(uri="s3://bucket/an odd+prefix%", endpoint=url, region="us-east-1")
        store = connect(LocationRole.DATASET, location, keys)
        for name in names:
            (tmp_path / "one").write_bytes(name.encode())
            store.upload(tmp_path / "one", name)
        objects = store.list()
        assert {info.key for info in objects} == set(names)
        prefetcher = start_prefetch(store, objects, tmp_path / "here", never_stop)
        assert {name: prefetcher.path(name).read_bytes() for name in names} == {name: name.encode() for name in names}
        prefetcher.close()


@needs_s3_server
def test_folders_on_a_real_server(tmp_path: Path) -> None:
    """More of them than one answer holds."""
    (tmp_path / "root/data").mkdir(parents=True)
    for number in range(1005):
        folder = tmp_path / f"root/data/out/ns/screws-t{number:04d}/uid"
        folder.mkdir(parents=True)
        (folder / "report.json").write_bytes(b"{}")
    (tmp_path / "root/data/out/ns/screws").mkdir()
    (tmp_path / "root/data/out/ns/screws/x").write_bytes(b"")
    with s3_server(tmp_path / "root") as url:
        location = S3Location(uri="s3://data/out", endpoint=url, region="us-east-1")
        keys = {"ANOMALY_OUTPUT_AWS_ACCESS_KEY_ID": KEY, "ANOMALY_OUTPUT_AWS_SECRET_ACCESS_KEY": SECRET}
        store = connect(LocationRole.OUTPUT, location, keys).subfolder("ns")
        assert store.folders("screws-t") == tuple(f"screws-t{number:04d}" for number in range(1005))
        assert store.subfolder("screws-t0003").folders() == ("uid",)
