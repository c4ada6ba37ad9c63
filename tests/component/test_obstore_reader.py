"""Reading without botocore's client: keys as a real server decodes them, and the fallback to the client."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomaly_api.storage import LocationRole, S3Location
from anomaly_runner.errors import StorageDenied
from anomaly_runner.storage import download_all
from anomaly_runner.storage.s3 import S3Store, connect
from benchmarks.storage_transport import BUCKET, KEY, SECRET, SERVER, server
from support.absent import absent
from support.optional import not_none

NAMES = [
    "a b.png",
    "a+b.png",
    "ü~é.png",
    "x#y?z=1&k.png",
    "100%25.png",
    "(1)!*'.png",
    "d/e@f:g;h,i.png",
    "q$=w.png",
    "empty.png",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not SERVER.exists():
        absent(f"no S3 server at {SERVER}")
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


def etag(name: str) -> str:
    return hashlib.md5(content(name)).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_keys_with_special_characters_are_read(url: str, name: str) -> None:
    file = io.BytesIO()
    assert not_none(store_at(url).fast_reader).append(f"an odd/prefix/{name}", file, etag(name))
    assert file.getvalue() == content(name)


def test_the_rest_of_an_object_is_read_only_from_the_same_version(url: str) -> None:
    quick, key = store_at(url).fast_reader, "an odd/prefix/a b.png"
    file = io.BytesIO(b"a ")
    file.seek(2)
    assert not not_none(quick).append(key, file, "another")
    assert not_none(quick).append(key, file, etag("a b.png"))
    assert file.getvalue() == b"a b.png"


def test_all_objects_are_downloaded(url: str, tmp_path: Path) -> None:
    store = store_at(url)
    download_all(store, store.list(), tmp_path, lambda: None)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == content(name)


def test_a_refusal_is_explained_by_the_client(url: str, tmp_path: Path) -> None:
    objects = store_at(url).list()
    with pytest.raises(StorageDenied, match="SignatureDoesNotMatch"):
        download_all(store_at(url, "another-secret"), objects, tmp_path, lambda: None)
