"""The store against a real S3 server: objects in several parts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomaly_api.run import s3_env
from anomaly_api.storage import LocationRole, S3Location
from anomaly_runner.storage import s3
from anomaly_runner.storage.s3 import S3Store, connect
from support.s3_server import KEY, SECRET, needs_s3_server, s3_server

pytestmark = needs_s3_server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server with an empty bucket."""
    root = tmp_path_factory.mktemp("s3")
    (root / "bucket").mkdir()
    with s3_server(root) as url:
        yield url


def opened(url: str) -> S3Store:
    location = S3Location(uri="s3://bucket/some/prefix", endpoint=url, region="us-east-1")
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    return connect(
        LocationRole.OUTPUT, location, {s3_env(LocationRole.OUTPUT, name): key for name, key in keys.items()}
    )


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_MULTIPART_BYTES", 1 << 20)
    content, store = os.urandom(17 << 20), opened(url)
    (tmp_path / "large").write_bytes(content)
    store.upload(tmp_path / "large", "model.onnx")
    [info] = store.list("model.onnx")
    assert info.etag.endswith("-3"), "parts of boto3's 8 MB"
    store.download(info, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content
