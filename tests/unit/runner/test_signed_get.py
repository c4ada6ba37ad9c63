"""Reading without botocore's client: signatures that a real server accepts, and a way back to the client."""

import hashlib
from pathlib import Path

import pytest

from anomaly_api.storage import LocationRole, S3Location
from anomaly_runner.errors import StorageDenied
from anomaly_runner.storage import local_copy
from anomaly_runner.storage.s3 import S3Store, connect
from anomaly_runner.storage.signed_get import bucket_url
from benchmarks.storage_transport import BUCKET, KEY, SECRET, SERVER, server

NAMES = ["a b.png", "a+b.png", "ü~é.png", "x#y?z=1&k.png", "100%25.png", "(1)!*'.png", "d/e@f:g;h,i.png", "q$=w.png",
         "empty.png"]  # fmt: skip


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    if not SERVER.exists():
        pytest.skip(f"no S3 server at {SERVER}")
    with server(tmp_path_factory.mktemp("s3")) as address:
        store = store_at(address)
        store.client.create_bucket(Bucket=BUCKET)
        for name in NAMES:
            store.client.put_object(Bucket=BUCKET, Key=f"an odd/prefix/{name}", Body=content(name))
        yield address


def store_at(address: str, secret: str = SECRET) -> S3Store:
    keys = {"ANOMALY_DATASET_AWS_ACCESS_KEY_ID": KEY, "ANOMALY_DATASET_AWS_SECRET_ACCESS_KEY": secret}
    location = S3Location(uri=f"s3://{BUCKET}/an odd/prefix", endpoint=address)
    return connect(LocationRole.DATASET, location, keys)


def content(name: str) -> bytes:
    return b"" if name == "empty.png" else name.encode()


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_signed_as_the_server_reads_it(url, name):
    body = store_at(url).quick.body(f"an odd/prefix/{name}", {})
    assert body is not None
    assert body.read() == content(name)


def test_ranges_hold_for_the_object_that_was_meant(url):
    quick, key = store_at(url).quick, "an odd/prefix/a b.png"
    etag = hashlib.md5(b"a b.png").hexdigest()
    assert quick.body(key, {"Range": "bytes=2-", "If-Match": f'"{etag}"'}).read() == b"b.png"
    assert quick.body(key, {"Range": "bytes=2-", "If-Match": '"another"'}) is None


def test_a_pull_of_all_of_them(url, tmp_path):
    store = store_at(url)
    local_copy(store, store.list(), tmp_path, lambda: None)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == content(name)


def test_a_refusal_is_explained_by_the_client(url, tmp_path):
    objects = store_at(url).list()
    with pytest.raises(StorageDenied, match="SignatureDoesNotMatch"):
        local_copy(store_at(url, "another-secret"), objects, tmp_path, lambda: None)


def test_without_credentials_the_client_is_asked(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(Path("/nonexistent")))
    assert connect(LocationRole.DATASET, S3Location(uri="s3://data", endpoint="http://127.0.0.1:1"), {}).quick is None


@pytest.mark.parametrize(
    ("endpoint", "bucket", "path_style", "expected"),
    [
        ("http://minio:9000/", "data", True, "http://minio:9000/data"),
        ("https://s3.eu-west-1.amazonaws.com", "data", False, "https://data.s3.eu-west-1.amazonaws.com"),
        ("https://s3.eu-west-1.amazonaws.com", "my.data", False, "https://s3.eu-west-1.amazonaws.com/my.data"),
    ],
)
def test_where_a_bucket_is(endpoint, bucket, path_style, expected):
    assert bucket_url(endpoint, bucket, path_style=path_style) == expected
