"""S3 servers that throttle, break connections, stall or are not trusted: files are complete, or errors are clear."""

import io
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest

from anomaly_api.storage import LocationRole, S3Location
from anomaly_runner.errors import StorageDenied, StorageUnavailable
from anomaly_runner.storage import FolderStore, ObjectInfo, download_all
from anomaly_runner.storage.s3 import S3Store, connect
from support.certificates import Certificate, issue_certificate
from support.fake_s3 import FakeS3, fake_s3
from support.optional import not_none

KEYS = {"ANOMALY_DATASET_AWS_ACCESS_KEY_ID": "id", "ANOMALY_DATASET_AWS_SECRET_ACCESS_KEY": "secret"}
CONTENT = np.random.default_rng(0).bytes(3_000_000)
OBJECTS = {"set/large.png": CONTENT, "set/empty.png": b""} | {f"set/{index}.png": b"%d" % index for index in range(40)}


LOOPBACK = "IP:127.0.0.1"


def never_stop() -> None:
    """Never stop waiting."""


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_runner.storage.s3._LONGEST_PAUSE", 0.01)
    monkeypatch.setattr("anomaly_runner.storage.s3._READ_SECONDS", 0.3)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)


@pytest.fixture
def s3() -> Iterator[FakeS3]:
    with fake_s3(dict(OBJECTS)) as server:
        yield server


def store_of(server: FakeS3) -> S3Store:
    return connect(LocationRole.DATASET, S3Location(uri="s3://data/set", endpoint=server.url), KEYS)


def large_object(server: FakeS3) -> ObjectInfo:
    return next(found for found in store_of(server).list() if found.key == "large.png")


def test_all_objects_are_complete(s3: FakeS3, tmp_path: Path) -> None:
    store = store_of(s3)
    download_all(store, store.list(), tmp_path, never_stop)
    assert {f"set/{path.name}": path.read_bytes() for path in tmp_path.glob("*.png")} == OBJECTS
    assert not list(tmp_path.glob(".*.part"))


TOKENS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>lent</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


class TokenService(BaseHTTPRequestHandler):
    """Simulates AWS's STS: issues temporary keys for a token."""

    asked: list[dict[str, list[str]]]

    def do_POST(self) -> None:
        self.asked.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        self.send_response(200)
        self.send_header("Content-Length", str(len(TOKENS)))
        self.end_headers()
        self.wfile.write(TOKENS.encode())

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


def test_a_pod_without_keys_uses_its_service_accounts_token(
    s3: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with IRSA: both clients exchange the token and role for temporary keys."""
    (tmp_path / "token").write_text("of the service account")
    asked: list[dict[str, list[str]]] = []
    role = "arn:aws:iam::123456789012:role/vision"
    handler = type("Handler", (TokenService,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        for name, value in {
            "WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "ROLE_ARN": role,
            "ENDPOINT_URL_STS": f"http://127.0.0.1:{service.server_port}",
        }.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        store = connect(LocationRole.DATASET, S3Location(uri="s3://data/set", endpoint=s3.url, region="us-east-1"), {})
        download_all(store, store.list(), tmp_path / "here", never_stop)
        service.shutdown()
    assert len(list((tmp_path / "here").glob("*.png"))) == len(OBJECTS)
    assert s3.signed == {("lent", "session")}
    assert {(*found["WebIdentityToken"], *found["RoleArn"]) for found in asked} == {("of the service account", role)}
    assert store.fast_reader is not None


def test_names_as_long_as_file_systems_allow(s3: FakeS3, tmp_path: Path) -> None:
    name = "x" * 251 + ".png"
    s3.objects[f"set/{name}"] = b"long"
    store = store_of(s3)
    download_all(store, [found for found in store.list() if found.key == name], tmp_path, never_stop)
    assert (tmp_path / name).read_bytes() == b"long"
    FolderStore(tmp_path / "out").upload(tmp_path / name, name)
    assert (tmp_path / "out" / name).read_bytes() == b"long"


@pytest.mark.parametrize("status", [503, 429, 500])
def test_a_server_that_throttles_for_a_while(s3: FakeS3, tmp_path: Path, status: int) -> None:
    """Sixteen threads against a server that refuses four of five requests."""
    store = store_of(s3)
    objects = store.list()
    count = 60 if status != 500 else 4
    s3.faults = [status if index % 5 else None for index in range(count)]
    download_all(store, objects, tmp_path, never_stop)
    assert all((tmp_path / found.key).stat().st_size == found.size for found in objects)


@pytest.mark.parametrize("status", [503, 429])
def test_a_server_that_keeps_throttling(s3: FakeS3, tmp_path: Path, status: int) -> None:
    objects = [large_object(s3)]
    s3.faults = [status] * 100
    with pytest.raises(StorageUnavailable, match=rf"s3://data/set/large\.png: the server answered {status}"):
        download_all(store_of(s3), objects, tmp_path, never_stop)


def test_listing_and_reading_retry_after_throttling(s3: FakeS3) -> None:
    s3.faults = [503] * 7
    assert len(store_of(s3).list()) == len(OBJECTS)
    s3.faults = [429, 429]
    assert store_of(s3).read("3.png") == b"3"


def test_a_broken_response_is_resumed(s3: FakeS3, tmp_path: Path) -> None:
    objects = [large_object(s3)]
    s3.asked.clear()
    s3.faults = [-1_500_000, -1_000_000]
    download_all(store_of(s3), objects, tmp_path, never_stop)
    assert (tmp_path / "large.png").read_bytes() == CONTENT
    starts = [int(line.partition("bytes=")[2].rstrip("-") or 0) for line in s3.asked]
    assert len(starts) == 3
    assert 0 < starts[1] <= 1_500_000 < starts[2] <= 2_500_000


def test_a_silent_server_gets_a_new_request(s3: FakeS3, tmp_path: Path) -> None:
    objects = [large_object(s3)]
    s3.faults = ["stall"]
    download_all(store_of(s3), objects, tmp_path, never_stop)
    assert (tmp_path / "large.png").read_bytes() == CONTENT


@pytest.mark.parametrize("count", [1, 2, 100])
def test_an_error_response_without_its_body(s3: FakeS3, tmp_path: Path, count: int) -> None:
    """botocore does not convert urllib3's timeout here."""
    objects = [large_object(s3)]
    s3.faults = ["stall 503"] * count
    if count == 100:
        with pytest.raises(StorageUnavailable, match=r"s3://data/set/large\.png does not answer"):
            download_all(store_of(s3), objects, tmp_path, never_stop)
    else:
        download_all(store_of(s3), objects, tmp_path, never_stop)
        assert (tmp_path / "large.png").read_bytes() == CONTENT


def test_an_object_that_changes_during_a_read_is_never_mixed_from_two_versions(s3: FakeS3, tmp_path: Path) -> None:
    objects = [large_object(s3)]
    s3.objects["set/large.png"] = CONTENT[::-1] + b"x"
    s3.faults = [-1_500_000]
    with pytest.raises(StorageUnavailable, match="changed while it was read"):
        download_all(store_of(s3), objects, tmp_path, never_stop)


@pytest.mark.parametrize("fast", [True, False], ids=["obstore", "botocore"])
def test_an_object_of_the_same_length_is_not_mixed_either(s3: FakeS3, tmp_path: Path, fast: bool) -> None:
    """The connection breaks in the middle of the listed version; the rest would be that of its successor."""
    store = store_of(s3) if fast else replace(store_of(s3), fast_reader=None)
    objects = [large_object(s3)]
    s3.later["set/large.png"] = CONTENT[::-1]
    s3.faults = [-1_500_000]
    with pytest.raises(StorageUnavailable, match=r"large\.png changed while it was read"):
        download_all(store, objects, tmp_path, never_stop)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".png"] == []


def test_an_object_that_changed_since_it_was_listed(s3: FakeS3, tmp_path: Path) -> None:
    objects = [large_object(s3)]
    s3.objects["set/large.png"] = b"short"
    with pytest.raises(StorageUnavailable, match="changed while it was read"):
        download_all(store_of(s3), objects, tmp_path, never_stop)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Certificate and key of an authority; the certificate is also valid for 127.0.0.1."""
    return issue_certificate(tmp_path_factory.mktemp("tls"), "ca", LOOPBACK)


@contextmanager
def https_server(certificate: Certificate) -> Iterator[FakeS3]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    with fake_s3(dict(OBJECTS), tls) as server:
        yield server


@pytest.fixture
def https_s3(authority: Certificate) -> Iterator[FakeS3]:
    with https_server(authority) as server:
        yield server


def test_a_certificate_authority_of_the_cluster(authority: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomaly_runner.storage.s3.ca_path", lambda role: str(authority[0]))
    monkeypatch.setattr("anomaly_runner.storage.s3._READ_SECONDS", 30)  # for the handshake, on a busy machine
    signed = issue_certificate(
        authority[0].parent,
        "server",
        LOOPBACK,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        authority[0],
        "-CAkey",
        authority[1],
    )
    with https_server(signed) as server:
        store, file = store_of(server), io.BytesIO()
        assert store.read("7.png") == b"7"
        assert not_none(store.fast_reader).append("set/7.png", file, "")
        assert file.getvalue() == b"7"


def test_a_self_signed_certificate_is_left_to_the_client(
    https_s3: FakeS3, authority: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rust's TLS does not accept an authority's certificate as that of a server."""
    monkeypatch.setattr("anomaly_runner.storage.s3.ca_path", lambda role: str(authority[0]))
    download_all(store_of(https_s3), [large_object(https_s3)], tmp_path, never_stop)
    assert (tmp_path / "large.png").read_bytes() == CONTENT


def test_an_unknown_authority_is_refused_with_advice(https_s3: FakeS3) -> None:
    with pytest.raises(StorageDenied, match=r"certificate of s3://data/set/7\.png is not trusted: set caConfigMap"):
        store_of(https_s3).read("7.png")
