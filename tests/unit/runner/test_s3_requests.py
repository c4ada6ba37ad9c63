"""What is asked of an S3 server, request by request: keys, versions, resumed downloads, retries, and what answers mean.

botocore's stub takes the requests, in order, and fails on a parameter more or less.
"""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Never

import certifi
import obstore
import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.response import StreamingBody
from botocore.stub import Stubber
from obstore.exceptions import GenericError
from urllib3.exceptions import ProtocolError

from anomaly_api.storage import LocationRole, S3Location
from anomaly_runner.errors import DataChanged, DataInvalid, InvalidConfig, RunFailed, StorageDenied, StorageUnavailable
from anomaly_runner.storage import ObjectInfo, s3
from anomaly_runner.storage.obstore_reader import ObstoreReader, open_reader
from anomaly_runner.storage.s3 import S3Store, connect
from support.optional import not_none

KEYS = {"ANOMALY_OUTPUT_AWS_ACCESS_KEY_ID": "id", "ANOMALY_OUTPUT_AWS_SECRET_ACCESS_KEY": "secret"}
HERE = S3Location(uri="s3://bucket/some/prefix/", endpoint="http://127.0.0.1:1")
IN_BUCKET = {"Bucket": "bucket", "Key": "some/prefix/a.png"}
A = ObjectInfo("a.png", 6, "v1")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between two attempts, in seconds, which are not made."""
    made = list[float]()
    monkeypatch.setattr("tenacity.nap.time.sleep", made.append)
    return made


@pytest.fixture(scope="module")
def connected() -> S3Store:
    return connect(LocationRole.OUTPUT, HERE, KEYS)


@pytest.fixture
def store(connected: S3Store, pauses: list[float]) -> S3Store:
    """A store without the fast reader, whose client sends nothing."""
    return replace(connected, fast_reader=None)


@pytest.fixture
def stub(store: S3Store) -> Iterator[Stubber]:
    with Stubber(store.client) as made:
        yield made
        made.assert_no_pending_responses()


class Breaking(io.BytesIO):
    """A response whose connection breaks at its end."""

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        if not found:
            raise ProtocolError("Connection broken")
        return found


def answer(content: bytes, etag: str = "v1", *, breaks: bool = False) -> dict[str, Any]:
    raw = Breaking(content) if breaks else io.BytesIO(content)
    return {"Body": StreamingBody(raw, None if breaks else len(content)), "ETag": f'"{etag}"'}


# Downloads


def test_an_object_is_asked_for_once_and_nothing_else_is_left(store: S3Store, stub: Stubber, tmp_path: Path) -> None:
    stub.add_response("get_object", answer(b"abcdef"), IN_BUCKET)
    store.download(A, tmp_path / "deep/er/a.png")
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["a.png"]
    assert (tmp_path / "deep/er/a.png").read_bytes() == b"abcdef"


def test_an_empty_object_is_a_file(store: S3Store, stub: Stubber, tmp_path: Path) -> None:
    stub.add_response("get_object", answer(b""), IN_BUCKET)
    store.download(replace(A, size=0), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b""


def test_the_rest_is_asked_for_from_the_next_byte_of_the_same_version(
    store: S3Store, stub: Stubber, tmp_path: Path, pauses: list[float]
) -> None:
    stub.add_response("get_object", answer(b"abc", breaks=True), IN_BUCKET)
    stub.add_response("get_object", answer(b"d", breaks=True), IN_BUCKET | {"IfMatch": '"v1"', "Range": "bytes=3-"})
    stub.add_response("get_object", answer(b"ef"), IN_BUCKET | {"IfMatch": '"v1"', "Range": "bytes=4-"})
    store.download(A, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"abcdef"
    assert len(pauses) == 2


def test_nothing_is_asked_for_once_the_only_byte_is_there(store: S3Store, stub: Stubber, tmp_path: Path) -> None:
    stub.add_response("get_object", answer(b"a", breaks=True), IN_BUCKET)
    store.download(replace(A, size=1), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"a"


def test_nothing_is_asked_for_once_the_last_byte_is_there(store: S3Store, stub: Stubber, tmp_path: Path) -> None:
    """The connection breaks after it."""
    stub.add_response("get_object", answer(b"abcdef", breaks=True), IN_BUCKET)
    store.download(A, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"abcdef"


def test_without_a_version_the_whole_is_asked_for_again(store: S3Store, stub: Stubber, tmp_path: Path) -> None:
    stub.add_response("get_object", answer(b"xyz", breaks=True), IN_BUCKET)
    stub.add_response("get_object", answer(b"abcdef"), IN_BUCKET)
    store.download(replace(A, etag=""), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"abcdef"


def test_a_pinned_object_is_asked_for_by_its_version(store: S3Store, stub: Stubber, tmp_path: Path) -> None:
    stub.add_response("get_object", answer(b"abcdef"), IN_BUCKET | {"IfMatch": '"v1"'})
    store.download(replace(A, pinned=True), tmp_path / "a.png")
    stub.add_response("get_object", answer(b"abcdef"), IN_BUCKET)
    store.download(replace(A, pinned=True, etag=""), tmp_path / "b.png")


def test_another_version_of_a_pinned_object_is_not_read(store: S3Store, stub: Stubber, tmp_path: Path) -> None:
    given = answer(b"abcdef", "v2")
    stub.add_response("get_object", given, IN_BUCKET | {"IfMatch": '"v1"'})
    with pytest.raises(DataChanged, match=r"s3://bucket/some/prefix/a\.png was replaced or deleted"):
        store.download(replace(A, pinned=True), tmp_path / "a.png")
    assert given["Body"]._raw_stream.closed


@pytest.mark.parametrize(
    ("code", "status", "unpinned"),
    [
        ("NoSuchKey", 404, DataInvalid("s3://bucket/some/prefix/a.png does not exist")),
        ("404", 404, DataInvalid("s3://bucket/some/prefix/a.png does not exist")),
        ("NotFound", 404, DataInvalid("s3://bucket/some/prefix/a.png does not exist")),
        ("PreconditionFailed", 412, StorageUnavailable("s3://bucket/some/prefix/a.png changed while it was read")),
    ],
)
def test_an_object_that_is_gone_has_changed_where_it_is_pinned(
    stub: Stubber, store: S3Store, tmp_path: Path, *, code: str, status: int, unpinned: RunFailed
) -> None:
    stub.add_client_error("get_object", code, http_status_code=status)
    with pytest.raises(type(unpinned), match=re.escape(str(unpinned))):
        store.download(A, tmp_path / "a.png")
    stub.add_client_error("get_object", code, http_status_code=status)
    with pytest.raises(DataChanged, match=r"a\.png was replaced or deleted"):
        store.download(replace(A, pinned=True), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("content", [b"abcde", b"abcdefg"])
def test_another_length_than_was_listed_is_no_file(
    store: S3Store, stub: Stubber, tmp_path: Path, content: bytes
) -> None:
    stub.add_response("get_object", answer(content), IN_BUCKET)
    with pytest.raises(StorageUnavailable, match=r"s3://bucket/some/prefix/a\.png changed while it was read"):
        store.download(A, tmp_path / "a.png")
    stub.add_response("get_object", answer(content), IN_BUCKET | {"IfMatch": '"v1"'})
    with pytest.raises(DataChanged):
        store.download(replace(A, pinned=True), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


# Small objects, uploads, deletion


def test_keys_are_below_the_prefix(store: S3Store, stub: Stubber, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    stub.add_response("get_object", answer(b"abcdef"), IN_BUCKET)
    stub.add_response("put_object", {}, IN_BUCKET | {"Body": b"content"})
    stub.add_response("delete_object", {}, IN_BUCKET)
    assert store.read("a.png") == b"abcdef"
    store.upload(tmp_path / "x", "a.png")
    store.delete("a.png")
    stub.add_response("get_object", answer(b"1"), {"Bucket": "bucket", "Key": "some/prefix/deep/a.png"})
    assert store.subfolder("deep").read("a.png") == b"1"
    assert store.subfolder("") is store
    assert (store.local_root, store.address("a.png")) == (None, "http://127.0.0.1:1/bucket/some/prefix/a.png")


def test_a_bucket_may_be_the_whole_folder(stub: Stubber, store: S3Store) -> None:
    whole = replace(store, prefix="")
    contents = [{"Key": "a.png", "Size": 1, "ETag": '"v1"'}, {"Key": "d/b.png", "Size": 2, "ETag": '"v2"'}]
    stub.add_response(
        "list_objects_v2", {"Contents": contents}, {"Bucket": "bucket", "Prefix": "", "EncodingType": "url"}
    )
    assert whole.list() == [ObjectInfo("a.png", 1, "v1"), ObjectInfo("d/b.png", 2, "v2")]
    stub.add_response(
        "list_objects_v2",
        {"CommonPrefixes": [{"Prefix": "d/"}, {"Prefix": ".hidden/"}]},
        {"Bucket": "bucket", "Prefix": "", "Delimiter": "/", "EncodingType": "url"},
    )
    assert whole.folders() == ("d",)
    assert whole.uri == "s3://bucket"
    assert whole.subfolder("d").uri == "s3://bucket/d"


@pytest.mark.parametrize("encoding", [{"EncodingType": "url"}, {}])
def test_keys_are_decoded_where_the_server_has_encoded_them(
    store: S3Store, stub: Stubber, encoding: dict[str, str]
) -> None:
    contents = [{"Key": "some/prefix/a%2Bb+c.png", "Size": 1}]
    stub.add_response("list_objects_v2", {"Contents": contents} | encoding)
    assert [info.key for info in store.list()] == ["a+b c.png" if encoding else "a%2Bb+c.png"]
    stub.add_response("list_objects_v2", {"CommonPrefixes": [{"Prefix": "some/prefix/a%2Bb+c/"}]} | encoding)
    assert store.folders() == ("a+b c" if encoding else "a%2Bb+c",)


def test_a_part_of_a_folder_is_listed_by_the_beginning_of_its_keys(store: S3Store, stub: Stubber) -> None:
    stub.add_response(
        "list_objects_v2", {}, {"Bucket": "bucket", "Prefix": "some/prefix/train/", "EncodingType": "url"}
    )
    assert store.list("train/") == []


def test_an_object_that_is_not_there_is_none_and_any_other_refusal_is_told(store: S3Store, stub: Stubber) -> None:
    stub.add_client_error("get_object", "NoSuchKey", http_status_code=404)
    assert store.read("a.png") is None
    stub.add_client_error("get_object", "NoSuchBucket", http_status_code=404)
    with pytest.raises(DataInvalid, match=r"s3://bucket/some/prefix/a\.png: the bucket does not exist"):
        store.read("a.png")
    stub.add_client_error("get_object", "AccessDenied", http_status_code=403)
    with pytest.raises(StorageDenied, match=r"the server refused access to s3://bucket/some/prefix/a\.png: AccessDen"):
        store.read("a.png")


@pytest.mark.parametrize("use", [S3Store.read, S3Store.delete])
def test_no_use_of_a_key_leads_out_of_the_folder(store: S3Store, stub: Stubber, use: Callable[..., object]) -> None:
    with pytest.raises(DataInvalid, match="leads out"):
        use(store, "../a.png")


def test_a_file_is_uploaded_in_parts_from_64_mebibytes_on(
    store: S3Store, stub: Stubber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = list[tuple[str, ...]]()
    monkeypatch.setattr(store.client, "put_object", lambda **asked: sent.append(("whole", asked["Key"])))
    monkeypatch.setattr(store.client, "upload_file", lambda *asked: sent.append(asked))
    for size in (64 * 2**20 - 1, 64 * 2**20):
        with (tmp_path / "model").open("wb") as file:
            file.truncate(size)
        store.upload(tmp_path / "model", "model.onnx")
    key = "some/prefix/model.onnx"
    assert sent == [("whole", key), (str(tmp_path / "model"), "bucket", key)]


# Retries


@pytest.mark.parametrize(
    ("code", "status", "attempts"),
    [
        ("SlowDown", 503, 6),
        ("", 429, 6),
        ("RequestTimeout", 400, 6),  # as AWS sends it, where a connection was too slow
        ("IncompleteBody", 400, 6),
        ("OperationAborted", 409, 6),
        ("InternalError", 500, 1),  # which botocore itself has retried
        ("AccessDenied", 403, 1),
        ("Conflict", 409, 1),
    ],
)
def test_what_may_pass_soon_is_tried_six_times(
    store: S3Store, stub: Stubber, pauses: list[float], *, code: str, status: int, attempts: int
) -> None:
    for _ in range(attempts):
        stub.add_client_error("delete_object", code, http_status_code=status)
    with pytest.raises(StorageUnavailable if attempts > 1 or status == 500 else StorageDenied):
        store.delete("a.png")
    assert len(pauses) == attempts - 1


def test_an_answer_after_a_refusal_that_passes_is_taken(store: S3Store, stub: Stubber, pauses: list[float]) -> None:
    stub.add_client_error("get_object", "SlowDown", http_status_code=503)
    stub.add_response("get_object", answer(b"abcdef"), IN_BUCKET)
    assert store.read("a.png") == b"abcdef"
    assert len(pauses) == 1


def test_pauses_grow_at_random_up_to_15_seconds(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is drawn up to a bound that doubles: threads that were refused together do not come back together."""
    bounds = list[float]()
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)

    def uniform(low: float, high: float) -> float:
        bounds.append(high)
        return low

    monkeypatch.setattr("random.uniform", uniform)
    with Stubber(store.client) as stub:
        for _ in range(6):
            stub.add_client_error("delete_object", "SlowDown", http_status_code=503)
        with pytest.raises(StorageUnavailable, match="the server answered 503 SlowDown"):
            store.delete("a.png")
    assert bounds[:5] == [1, 2, 4, 8, 15]


class Failing:
    """A method of the client that raises what it was given, in order, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.asked = list(errors), 0

    def __call__(self, *_: object, **__: object) -> dict[str, Any]:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return answer(b"abcdef")


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ProtocolError("Connection broken"), 6),
        (ReadTimeoutError(endpoint_url="http://s3"), 6),
        (EndpointConnectionError(endpoint_url="http://s3"), 1),  # which botocore itself has retried
    ],
)
def test_connections_that_break_are_made_again(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int
) -> None:
    broken = Failing(*[error] * 9)
    monkeypatch.setattr(store.client, "get_object", broken)
    with pytest.raises(StorageUnavailable, match=r"s3://bucket/some/prefix/a\.png does not answer"):
        store.read("a.png")
    assert broken.asked == attempts


def refusal_of_a_part(code: str, status: int) -> S3UploadFailedError:
    """What boto3 raises when the server refuses a part of an upload."""
    told = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    failure = S3UploadFailedError("Failed to upload")
    failure.__context__ = ClientError(told, "UploadPart")
    return failure


@pytest.mark.parametrize(
    ("errors", "raised", "attempts"),
    [
        ([refusal_of_a_part("SlowDown", 503)] * 2, None, 3),
        ([refusal_of_a_part("SlowDown", 503)] * 9, StorageUnavailable, 6),
        ([refusal_of_a_part("AccessDenied", 403)], StorageDenied, 1),
        ([S3UploadFailedError("the file was cut off")], StorageUnavailable, 1),
    ],
    ids=["throttled for a while", "throttled", "refused", "other"],
)
def test_refusals_of_parts_are_judged_as_those_of_whole_files(
    store: S3Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    errors: list[Exception],
    raised: type[RunFailed] | None,
    attempts: int,
) -> None:
    (tmp_path / "model").write_bytes(b"content")
    upload = Failing(*errors)
    monkeypatch.setattr("anomaly_runner.storage.s3._MULTIPART_BYTES", 1)
    monkeypatch.setattr(store.client, "upload_file", upload)
    if raised is None:
        store.upload(tmp_path / "model", "model.onnx")
    else:
        with pytest.raises(raised, match=r"s3://bucket/some/prefix/model\.onnx"):
            store.upload(tmp_path / "model", "model.onnx")
    assert upload.asked == attempts


# What answers mean


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (
            PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
            StorageDenied,
            "no credentials for s3://bucket/some/prefix/a.png: set credentialsSecret or give the pod an identity",
        ),
        (
            SSLError(endpoint_url="https://s3", error="self-signed"),
            StorageDenied,
            "the certificate of s3://bucket/some/prefix/a.png is not trusted: set caConfigMap",
        ),
    ],
)
def test_what_never_reaches_a_server_says_what_to_set(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[RunFailed], said: str
) -> None:
    monkeypatch.setattr(store.client, "get_object", Failing(error))
    with pytest.raises(raised) as found:
        store.read("a.png")
    assert str(found.value).startswith(said)


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"])
def test_an_expired_token_may_be_renewed_for_the_next_pod(store: S3Store, stub: Stubber, code: str) -> None:
    stub.add_client_error("delete_object", code, http_status_code=400)
    with pytest.raises(
        StorageUnavailable, match=r"the session token for .*a\.png has expired: renew AWS_SESSION_TOKEN"
    ):
        store.delete("a.png")


def skewed(where: dict[str, Any]) -> ClientError:
    return ClientError({"Error": {"Code": "RequestTimeTooSkewed"}} | where, "GetObject")


@pytest.mark.parametrize(
    ("error", "here", "there"),
    [
        (
            skewed({"Error": {"Code": "RequestTimeTooSkewed", "RequestTime": "10:00", "ServerTime": "11:00"}}),
            "10:00",
            "11:00",
        ),
        (skewed({"ResponseMetadata": {"HTTPStatusCode": 403, "HTTPHeaders": {"date": "12:00"}}}), "unknown", "12:00"),
        (skewed({}), "unknown", "unknown"),
    ],
)
def test_clocks_that_differ_are_named_with_both_times(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, error: ClientError, here: str, there: str
) -> None:
    monkeypatch.setattr(store.client, "get_object", Failing(error))
    with pytest.raises(StorageUnavailable, match=rf"the request is of {here}, the server's time is {there} \(Request"):
        store.read("a.png")


def elsewhere(code: str, told: dict[str, str], headers: dict[str, str]) -> ClientError:
    metadata = {"HTTPStatusCode": 301, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code} | told, "ResponseMetadata": metadata}, "GetObject")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (elsewhere("PermanentRedirect", {"Region": "eu-west-3"}, {}), "set region: eu-west-3 (PermanentRedirect)"),
        (
            elsewhere("301", {"Region": "no"}, {"x-amz-bucket-region": "eu-west-3", "location": "https://there"}),
            "set region: eu-west-3 and the endpoint that serves the bucket, https://there (301)",
        ),
        (
            elsewhere("TemporaryRedirect", {"Endpoint": "there"}, {"location": "no"}),
            "set the endpoint that serves the bucket, there (TemporaryRedirect)",
        ),
        (elsewhere("IllegalLocationConstraintException", {}, {}), "set the bucket's region (IllegalLocationConstr"),
    ],
)
def test_a_bucket_elsewhere_is_named_with_its_place(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, error: ClientError, advice: str
) -> None:
    monkeypatch.setattr(store.client, "get_object", Failing(error))
    with pytest.raises(StorageDenied) as found:
        store.read("a.png")
    assert f"the bucket of s3://bucket/some/prefix/a.png is in another region: {advice}" in str(found.value)


# How the clients are set up


@pytest.mark.parametrize(
    ("location", "region", "style"),
    [
        (HERE, "us-east-1", "path"),
        (S3Location(uri="s3://bucket", region="eu-west-3"), "eu-west-3", None),
        (S3Location(uri="s3://bucket", endpoint="http://s3", region="eu-west-3"), "eu-west-3", "path"),
    ],
)
def test_the_client_waits_and_retries_as_is_written(
    location: S3Location, region: str, style: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    meta = connect(LocationRole.OUTPUT, location, KEYS).client.meta
    config = meta.config
    assert (meta.region_name, (config.s3 or {}).get("addressing_style")) == (region, style)
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (5, 30, 16)
    assert (config.retries["mode"], config.retries["total_max_attempts"]) == ("standard", 5)
    sums = (config.request_checksum_calculation, config.response_checksum_validation)
    assert sums == ("when_required", "when_required")


def test_the_region_of_the_environment_is_taken_where_the_spec_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    store = connect(LocationRole.OUTPUT, HERE, KEYS)
    assert store.client.meta.region_name == "eu-north-1"
    assert not_none(store.fast_reader).store.config["region"] == "eu-north-1"


def test_credentials_come_from_the_process_unless_others_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    found = connect(LocationRole.OUTPUT, HERE).client._request_signer._credentials
    assert (found.access_key, found.secret_key, found.token) == ("id", "secret", None)


@pytest.mark.parametrize(
    ("uri", "prefix"), [("s3://bucket", ""), ("s3://bucket/XRAY/may//", "XRAY/may"), ("s3://bucket//a", "a")]
)
def test_a_location_may_end_in_slashes(uri: str, prefix: str) -> None:
    found = connect(LocationRole.OUTPUT, HERE.model_copy(update={"uri": uri}), KEYS)
    assert (found.bucket, found.prefix) == ("bucket", prefix)


def test_a_pinned_object_of_another_length_has_changed(store: S3Store, stub: Stubber, tmp_path: Path) -> None:
    stub.add_response("get_object", answer(b"abc"), IN_BUCKET | {"IfMatch": '"v1"'})
    with pytest.raises(DataChanged, match=r"^s3://bucket/some/prefix/a\.png was replaced"):
        store.download(replace(A, pinned=True), tmp_path / "a.png")


# What a listing and an answer may lack


def test_a_listing_has_keys_as_they_are_and_versions_that_can_be_asked_for(store: S3Store, stub: Stubber) -> None:
    items = [
        ("%E9.png", '"v1"'),
        ("weak.png", 'W/"v1"'),
        ("X.png", '"XvX"'),
        ("folder/", '"v1"'),
        ("a/.b/c.png", '"v1"'),
        (".c.png", '"v1"'),
        ("", '"v1"'),
        ("../out.png", None),
    ]
    contents = [{"Key": f"some/prefix/{key}", "Size": 3} | ({"ETag": etag} if etag else {}) for key, etag in items]
    stub.add_response(
        "list_objects_v2",
        {"EncodingType": "url", "Contents": contents},
        {"Bucket": "bucket", "Prefix": "some/prefix/", "EncodingType": "url"},
    )
    assert store.list() == [
        ObjectInfo("../out.png", 3, ""),
        ObjectInfo("X.png", 3, "XvX"),
        ObjectInfo("weak.png", 3, ""),
        ObjectInfo("\udce9.png", 3, "v1"),
    ]


def test_a_bucket_may_have_no_folders_or_refuse_to_tell_them(store: S3Store, stub: Stubber) -> None:
    asked = {"Bucket": "bucket", "Prefix": "some/prefix/", "Delimiter": "/", "EncodingType": "url"}
    stub.add_response("list_objects_v2", {"EncodingType": "url"}, asked)
    assert store.folders() == ()
    stub.add_client_error("list_objects_v2", "AccessDenied", http_status_code=403)
    with pytest.raises(StorageDenied, match="refused access to s3://bucket/some/prefix: AccessDenied"):
        store.folders()


@pytest.mark.parametrize(
    ("response", "kind", "told"),
    [
        ({}, StorageUnavailable, "s3://b/k: the server answered 0 "),
        ({"ResponseMetadata": {}}, StorageUnavailable, "s3://b/k: the server answered 0 "),
        ({"ResponseMetadata": {"HTTPStatusCode": 299}}, StorageUnavailable, "s3://b/k: the server answered 299 "),
        ({"ResponseMetadata": {"HTTPStatusCode": 300}}, StorageDenied, "the server refused access to s3://b/k: "),
        (
            {"Error": {"Code": "301"}},
            StorageDenied,
            "the bucket of s3://b/k is in another region: set the bucket's region (301)",
        ),
        (
            {"Error": {"Code": "301"}, "ResponseMetadata": {}},
            StorageDenied,
            "the bucket of s3://b/k is in another region: set the bucket's region (301)",
        ),
        (
            {"Error": {"Code": "ExpiredToken"}},
            StorageUnavailable,
            "the session token for s3://b/k has expired: renew AWS_SESSION_TOKEN in credentialsSecret, or give the pod "
            "an identity, whose tokens renew themselves",
        ),
    ],
)
def test_an_answer_that_tells_little_is_an_answer_all_the_same(
    response: dict[str, Any], kind: type[RunFailed], told: str
) -> None:
    found = s3._from_response(ClientError(response, "GetObject"), "s3://b/k")
    assert (type(found), str(found)) == (kind, told)


def test_a_fault_that_follows_a_throttled_request_is_not_tried_again(pauses: list[float]) -> None:
    def fails() -> Never:
        try:
            raise ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject")
        except ClientError:
            raise KeyError("a fault of ours")  # noqa: B904 - as it is raised by mistake

    with pytest.raises(KeyError):
        s3._with_retries(fails)
    assert pauses == []


def test_the_session_is_of_the_locations_region(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[Any]()
    monkeypatch.setattr(s3, "open_reader", lambda *arguments, **_: opened.append(arguments[2]))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    for region in ("eu-west-3", None):
        connect(LocationRole.OUTPUT, HERE.model_copy(update={"region": region}), KEYS)
    assert [session.region_name for session in opened] == ["eu-west-3", "eu-west-1"]


# Certificates


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a caConfigMap of the output would be."""
    places = {LocationRole.OUTPUT: tmp_path / "ca.crt"}
    monkeypatch.setattr(s3, "ca_path", lambda role: str(places[role]))
    return tmp_path / "ca.crt"


def test_a_server_is_checked_against_the_certificates_of_its_location(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[object]()
    monkeypatch.setattr(s3, "open_reader", lambda *arguments, **_: opened.append(arguments[4]))
    assert connect(LocationRole.OUTPUT, HERE, KEYS).client._endpoint.http_session._verify != str(mounted)
    shutil.copy(certifi.where(), mounted)
    found = connect(LocationRole.OUTPUT, HERE, KEYS)
    assert found.client._endpoint.http_session._verify == str(mounted)
    assert opened == [None, str(mounted)]


@pytest.mark.parametrize("content", ["", "-----BEGIN PRIVATE KEY-----"])
def test_a_file_without_certificates_is_told_with_its_place(mounted: Path, content: str) -> None:
    mounted.write_text(content)
    with pytest.raises(InvalidConfig, match=r"^ca\.crt in the caConfigMap of the output location holds no PEM cert"):
        connect(LocationRole.OUTPUT, HERE, KEYS)


# The fast reader


class Answer:
    """obstore's answer to a request."""

    def __init__(self, content: bytes, etag: str | None = '"v1"', *, breaks: bool = False) -> None:
        self.meta, self.content, self.breaks = {"e_tag": etag}, content, breaks

    def stream(self, min_chunk_size: int) -> Iterator[bytes]:
        assert min_chunk_size == 1 << 20
        yield self.content
        if self.breaks:
            raise GenericError("connection broken")


class Asked:
    """Stands in for ``obstore.get``: takes down the requests."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers, self.requests = list(answers), list[tuple[str, dict[str, Any]]]()

    def __call__(self, store: object, key: str, options: dict[str, Any]) -> Answer:
        assert store == "the bucket"
        self.requests.append((key, options))
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.mark.parametrize(
    ("there", "etag", "pinned", "options"),
    [
        (b"", "v1", False, {}),
        (b"", "v1", True, {"if_match": '"v1"'}),
        (b"", "", True, {}),
        (b"abc", "v1", False, {"if_match": '"v1"', "range": {"offset": 3}}),
    ],
)
def test_the_fast_reader_asks_for_the_rest_of_the_same_version(
    monkeypatch: pytest.MonkeyPatch, there: bytes, etag: str, pinned: bool, options: dict[str, Any]
) -> None:
    asked, file = Asked(Answer(b"def")), io.BytesIO()
    file.write(there)
    monkeypatch.setattr(obstore, "get", asked)
    assert ObstoreReader("the bucket").append("some/a.png", file, etag, pinned=pinned)
    assert asked.requests == [("some/a.png", options)]
    assert file.getvalue() == there + b"def"


@pytest.mark.parametrize(
    "failure",
    [Answer(b"x", '"v2"'), GenericError("refused"), FileNotFoundError("gone"), ValueError("a//b is no path")],
    ids=["another version", "refused", "gone", "no path"],
)
def test_the_fast_reader_leaves_the_explanation_to_the_client(
    monkeypatch: pytest.MonkeyPatch, failure: Answer | Exception
) -> None:
    file = io.BytesIO()
    monkeypatch.setattr(obstore, "get", Asked(failure))
    assert not ObstoreReader("the bucket").append("a.png", file, "v1", pinned=True)
    assert file.getvalue() == b""


def test_a_server_that_tells_no_version_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstore, "get", Asked(Answer(b"abcdef", None), Answer(b"abcdef", '"v2"')))
    assert ObstoreReader("the bucket").append("a.png", io.BytesIO(), "v1", pinned=True)
    assert ObstoreReader("the bucket").append("a.png", io.BytesIO(), "v1"), "any version will do"


def test_the_client_goes_on_where_the_fast_reader_stopped(
    store: S3Store, stub: Stubber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(Answer(b"ab", breaks=True), Answer(b"ef"))
    monkeypatch.setattr(obstore, "get", asked)
    stub.add_response("get_object", answer(b"cd", breaks=True), IN_BUCKET | {"IfMatch": '"v1"', "Range": "bytes=2-"})
    replace(store, fast_reader=ObstoreReader("the bucket")).download(A, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"abcdef"
    rest = {"if_match": '"v1"', "range": {"offset": 4}}
    assert asked.requests == [("some/prefix/a.png", {}), ("some/prefix/a.png", rest)]


def test_without_a_version_what_the_fast_reader_wrote_is_thrown_away(
    store: S3Store, stub: Stubber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstore, "get", Asked(Answer(b"xy", breaks=True)))
    stub.add_response("get_object", answer(b"abcdef"), IN_BUCKET)
    replace(store, fast_reader=ObstoreReader("the bucket")).download(replace(A, etag=""), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"abcdef"


def test_a_pinned_object_is_pinned_for_the_fast_reader_too(
    store: S3Store, stub: Stubber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(Answer(b"abcdef"))
    monkeypatch.setattr(obstore, "get", asked)
    replace(store, fast_reader=ObstoreReader("the bucket")).download(replace(A, pinned=True), tmp_path / "a.png")
    assert asked.requests == [("some/prefix/a.png", {"if_match": '"v1"'})]


def test_a_file_that_cannot_be_written_is_not_blamed_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, content: object) -> Never:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(obstore, "get", Asked(Answer(b"abcdef")))
    with pytest.raises(OSError, match="No space left"):
        ObstoreReader("the bucket").append("a.png", Full(), "v1")


def test_the_fast_reader_is_set_up_as_the_client_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = dict[str, Any]()

    class Session:
        """Of boto3."""

        region_name = "eu-west-3"

        def get_credentials(self) -> None:
            """Nobody asks yet."""

    def store(bucket: str, **settings: Any) -> str:
        made.update(settings, bucket=bucket)
        return "store"

    monkeypatch.setattr("obstore.store.S3Store", store)
    monkeypatch.setattr("obstore.auth.boto3.Boto3CredentialProvider", lambda session: session)
    (tmp_path / "ca.crt").write_bytes(b"of the cluster")
    (tmp_path / "other.crt").write_bytes(b"of the system")
    session = Session()

    def opened(ca_file: str | None) -> Any:
        found = open_reader("data", "http://s3", session, "eu-west-3", ca_file, connect_seconds=2, read_seconds=3)
        assert found == ObstoreReader("store")
        return made["client_options"]

    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    options = opened(None)
    assert options == {
        "allow_http": True,
        "timeout": timedelta(days=30),
        "connect_timeout": timedelta(seconds=2),
        "read_timeout": timedelta(seconds=3),
    }
    assert (made["bucket"], made["retry_config"], made["credential_provider"]) == ("data", {"max_retries": 0}, session)
    assert made["config"] == {"region": "eu-west-3", "endpoint": "http://s3", "virtual_hosted_style_request": False}
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "other.crt"))
    assert opened(None)["root_certificate"] == b"of the system"
    assert opened(str(tmp_path / "ca.crt"))["root_certificate"] == b"of the cluster"


def test_without_credentials_the_client_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(Path("/nonexistent")))
    assert (
        connect(LocationRole.OUTPUT, S3Location(uri="s3://data", endpoint="http://127.0.0.1:1"), {}).fast_reader is None
    )


@pytest.mark.parametrize(
    ("uri", "endpoint", "expected"),
    [
        ("s3://data/x", "http://minio:9000", ("http://minio:9000", "false")),
        ("s3://data/x", None, (None, "true")),
        ("s3://my.data/x", None, (None, "false")),
    ],
)
def test_the_url_of_a_bucket(uri: str, endpoint: str | None, expected: tuple[str | None, str]) -> None:
    """A path below the endpoint, or at AWS a part of the host's name if certificates allow that."""
    quick = connect(LocationRole.OUTPUT, S3Location(uri=uri, endpoint=endpoint), KEYS).fast_reader
    found = not_none(quick).store.config
    assert (found.get("endpoint"), str(found["virtual_hosted_style_request"]).lower()) == expected
