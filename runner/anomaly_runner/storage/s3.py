"""A store on any S3-compatible server.

botocore retries transient failures (5xx, throttling, timeouts: standard mode, jittered back-off). It does not retry a
connection that breaks while a body is read, 429 without an error code that it knows, and lasting throttling (all
threads share one quota of retries): these are retried here, with longer pauses.

Objects are read by ``obstore_reader`` first; after a failure, botocore reads the rest or explains the failure.
"""

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote_plus

from anomaly_api.run import CA_KEY, ca_path, s3_env
from anomaly_api.storage import LocationRole, S3Location
from anomaly_runner.errors import DataInvalid, InvalidConfig, StorageDenied, StorageUnavailable
from anomaly_runner.storage.obstore_reader import ObstoreReader, open_reader
from anomaly_runner.storage.store import (
    ObjectInfo,
    check_key,
    data_changed,
    is_safe_key,
    is_version,
    join_uri,
    partial_file,
)

Result = TypeVar("Result")

THREADS = 16
"""Number of parallel transfers, and size of the connection pool."""
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0
_BOTOCORE_ATTEMPTS = 5
"""botocore's attempts for one request."""
_ATTEMPTS = 6
"""Our attempts for one object: throttling may outlast botocore's, whose quota all threads share."""
_LONGEST_PAUSE = 15.0
"""Longest pause in seconds between two of our attempts."""
_MULTIPART_BYTES = 64 << 20
"""Size from which a file is uploaded in parts."""
_CHUNK = 1 << 20
"""Bytes read at a time."""
_TRANSIENT_STATUSES = (408, 429)
"""The 4xx statuses that do not mean that the request is wrong."""
_TRANSIENT_CODES = {"IncompleteBody", "OperationAborted", "RequestTimeout"}
"""Codes that S3 sends with other 4xx statuses, and that do not mean it either: a connection that was too slow or broke,
and another request for the same object (Amazon S3 API Reference, Error responses)."""
_THROTTLING_STATUSES = (429, 503)
_MISSING_CODES = {"404", "NoSuchKey", "NotFound"}
_GONE_CODES = _MISSING_CODES | {"412", "PreconditionFailed"}
"""Codes of answers to a request for a version of an object that is not there any more."""
_OTHER_REGION_CODES = {
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
}


def connect(role: LocationRole, location: S3Location, environment: Mapping[str, str] | None = None) -> "S3Store":
    """Open a location with the credentials that the environment has for its role, without sending a request.

    Credentials come from the variables ``run.s3_env(role, key)`` or, if none are set, from boto3's own chain (the pod's
    identity). The endpoint's certificate is checked against ``run.ca_path(role)``, if that file is mounted.

    Args:
        role: the run's use of the location.
        location: bucket, prefix, endpoint and region.
        environment: environment variables; None for those of the process.

    Raises:
        InvalidConfig: the mounted file holds no certificates.
    """
    bucket, _, prefix = location.uri.removeprefix("s3://").partition("/")
    credentials = _credentials(role, os.environ if environment is None else environment)
    client, reader = _clients(location, credentials, bucket, _authority(role))
    return S3Store(client, reader, bucket, prefix.strip("/"))


def _authority(role: LocationRole) -> str | None:
    """Path of the certificates that the location's endpoint is checked against; None for the system's.

    Raises:
        InvalidConfig: the file holds none.
    """
    file = Path(ca_path(role))
    if not file.is_file():
        return None
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        raise InvalidConfig(
            f"{CA_KEY} in the caConfigMap of the {role.value} location holds no PEM certificates ({error.reason})"
        ) from error
    return str(file)


def _credentials(role: LocationRole, environment: Mapping[str, str]) -> dict[str, str]:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    found = {name.lower(): environment.get(s3_env(role, name)) for name in names}
    return {name: value for name, value in found.items() if value}


def _clients(
    location: S3Location, credentials: Mapping[str, str], bucket: str, ca_file: str | None
) -> tuple[Any, ObstoreReader | None]:
    """Make boto3's client and, if there are credentials, obstore's reader."""
    import boto3
    from botocore.config import Config

    config = Config(
        max_pool_connections=THREADS,
        retries={"mode": "standard", "total_max_attempts": _BOTOCORE_ATTEMPTS},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        s3={"addressing_style": "path"} if location.endpoint else {},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = boto3.session.Session(region_name=location.region or None, **credentials)
    client = session.client(
        "s3",
        endpoint_url=location.endpoint,
        config=config,
        region_name=location.region or session.region_name or "us-east-1",
        verify=ca_file,
    )
    if session.get_credentials() is None:
        return client, None
    return client, open_reader(
        bucket,
        location.endpoint,
        session,
        client.meta.region_name,
        ca_file,
        connect_seconds=_CONNECT_SECONDS,
        read_seconds=_READ_SECONDS,
    )


@dataclass(frozen=True)
class S3Store:
    """The objects below s3://BUCKET/PREFIX. Safe to use from many threads.

    Methods raise StorageDenied if the server refuses the credentials, StorageUnavailable if it does not answer after
    all retries, and DataInvalid if the bucket or the object does not exist or a key leads out of the folder.

    Attributes:
        client: boto3's S3 client.
        fast_reader: reads objects faster than ``client``; None without credentials.
        bucket: its name.
        prefix: without slashes at its ends; empty for the whole bucket.
    """

    client: Any
    fast_reader: ObstoreReader | None
    bucket: str
    prefix: str = ""

    @property
    def uri(self) -> str:
        """The prefix as an S3 URI."""
        return join_uri(f"s3://{self.bucket}", self.prefix)

    @property
    def local_root(self) -> Path | None:
        """Return None: objects are never on this machine."""
        return None

    def address(self, key: str) -> str:
        """The object's URL."""
        return join_uri(f"{self.client.meta.endpoint_url}/{self.bucket}", self._with_prefix(key))

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """List the objects below the prefix, sorted by key; folder markers and hidden files are left out."""
        with _translated_errors(self.uri):
            return _with_retries(lambda: sorted(self._objects(prefix), key=lambda info: info.key))

    def _objects(self, prefix: str) -> Iterator[ObjectInfo]:
        skip = len(self.prefix) + 1 if self.prefix else 0
        # Keys are asked for as URLs have them: XML cannot hold control characters.
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self._with_prefix(prefix), EncodingType="url"
        )
        for page in pages:
            is_encoded = page.get("EncodingType") == "url"  # a server may ignore what was asked for
            for item in page.get("Contents", ()):
                key = (_decoded(item["Key"]) if is_encoded else item["Key"])[skip:]
                if key and not key.endswith("/") and not _is_hidden(key):
                    yield ObjectInfo(key, item["Size"], _strong_etag(item.get("ETag", "")))

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """List the names of the folders directly below the root that begin with the prefix, sorted."""
        with _translated_errors(self.uri):
            return _with_retries(lambda: tuple(sorted(self._folders(prefix))))

    def _folders(self, prefix: str) -> Iterator[str]:
        skip = len(self.prefix) + 1 if self.prefix else 0
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self._with_prefix(prefix), Delimiter="/", EncodingType="url"
        )
        for page in pages:
            is_encoded = page.get("EncodingType") == "url"
            for item in page.get("CommonPrefixes", ()):
                name = (_decoded(item["Prefix"]) if is_encoded else item["Prefix"])[skip:-1]
                if name and not name.startswith("."):
                    yield name

    def _with_prefix(self, prefix: str) -> str:
        return f"{self.prefix}/{prefix}" if self.prefix else prefix

    def _key(self, key: str) -> str:
        return self._with_prefix(check_key(key, self.uri))

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Copy one object to a file, through a temporary file; if the connection breaks, only the rest is requested."""
        temporary, uri = partial_file(destination), join_uri(self.uri, info.key)
        with _translated_errors(uri), _pinned(info, uri), _open_new(temporary) as file:
            _with_retries(partial(self._download, info, file))
            size = file.tell()
        if size != info.size:
            raise data_changed(uri) if info.pinned else StorageUnavailable(_changed_message(None, uri))
        temporary.replace(destination)

    def _download(self, info: ObjectInfo, file: BinaryIO) -> None:
        """Append the missing rest of the object to the file."""
        key = self._key(info.key)
        _resume_at(info, file)
        if _is_complete(info, file):
            return
        if self.fast_reader and self.fast_reader.append(key, file, info.etag, pinned=info.pinned):
            return
        # The fast reader may have written a part, so the position is read after it.
        offset = _resume_at(info, file)
        wanted = {"IfMatch": f'"{info.etag}"'} if offset or (info.pinned and info.etag) else {}
        if offset:
            wanted["Range"] = f"bytes={offset}-"
        answer = self.client.get_object(Bucket=self.bucket, Key=key, **wanted)
        if info.pinned and not is_version(answer.get("ETag"), info.etag):
            answer["Body"].close()
            raise data_changed(join_uri(self.uri, info.key))
        for chunk in answer["Body"].iter_chunks(_CHUNK):
            file.write(chunk)

    def read(self, key: str) -> bytes | None:
        """Read a small object; None if there is none."""
        with _translated_errors(join_uri(self.uri, key)):
            try:
                return _with_retries(partial(self._content, key))
            except self.client.exceptions.NoSuchKey:
                return None

    def _content(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read())

    def upload(self, source: Path, key: str) -> None:
        """Upload a file: a small one in one request, a large one in parallel parts."""
        with _translated_errors(join_uri(self.uri, key)):
            _with_retries(partial(self._upload, source, self._key(key)))

    def _upload(self, source: Path, key: str) -> None:
        if source.stat().st_size < _MULTIPART_BYTES:
            self.client.put_object(Bucket=self.bucket, Key=key, Body=source.read_bytes())
        else:
            self.client.upload_file(str(source), self.bucket, key)

    def delete(self, key: str) -> None:
        """Remove an object if it exists."""
        with _translated_errors(join_uri(self.uri, key)):
            _with_retries(partial(self.client.delete_object, Bucket=self.bucket, Key=self._key(key)))

    def subfolder(self, prefix: str) -> "S3Store":
        """The store of the sub-folder ``prefix``."""
        return replace(self, prefix=self._with_prefix(prefix)) if prefix else self


def _decoded(key: str) -> str:
    """A key from its form in URLs; bytes that are not UTF-8 become surrogates (PEP 383)."""
    return unquote_plus(key, errors="surrogateescape")


def _strong_etag(etag: str) -> str:
    """The ETag without quotes; empty for a weak one, of which If-Match never holds (RFC 9110, 13.1.1)."""
    return "" if etag.startswith("W/") else etag.strip('"')


def _resume_at(info: ObjectInfo, file: BinaryIO) -> int:
    """Position from which the object is still missing; without an ETag all of it, as it may have changed."""
    if not info.etag and not _is_complete(info, file):
        file.seek(0)
        file.truncate()
    return file.tell()


def _is_complete(info: ObjectInfo, file: BinaryIO) -> bool:
    return 0 < info.size <= file.tell()


def _is_hidden(key: str) -> bool:
    return is_safe_key(key) and any(part.startswith(".") for part in key.split("/"))


def _open_new(file: Path) -> BinaryIO:
    """Open a new file for writing, and create its folder if it is missing."""
    try:
        return file.open("wb")
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("wb")


def _with_retries(operation: Callable[[], Result]) -> Result:
    """Call an operation, and retry it if the server throttles or a connection breaks."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    retrying = Retrying(
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(max=_LONGEST_PAUSE),
        retry=retry_if_exception(_is_transient),
        reraise=True,
    )
    return retrying(operation)


def _is_transient(error: BaseException) -> bool:
    from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError
    from urllib3.exceptions import HTTPError

    error = _answer_in(error)
    if isinstance(error, ClientError):
        return _status(error) in _THROTTLING_STATUSES or _code(error) in _TRANSIENT_CODES
    return isinstance(error, IncompleteReadError | ReadTimeoutError | ResponseStreamingError | HTTPError)


@contextmanager
def _translated_errors(uri: str) -> Iterator[None]:
    """Convert botocore's exceptions inside this block to the runner's, with the URI in the message.

    Raises:
        StorageDenied: the server refused the credentials or has no trusted certificate, or there are no credentials.
        DataInvalid: the bucket or the object does not exist.
        StorageUnavailable: no response, or 5xx, after all retries; or the object changed while it was read.
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError, SSLError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _from_response(error, uri) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageDenied(f"no credentials for {uri}: set credentialsSecret or give the pod an identity") from error
    except S3UploadFailedError as error:
        answer = _answer_in(error)
        if isinstance(answer, ClientError):
            raise _from_response(answer, uri) from error
        raise StorageUnavailable(f"upload to {uri} failed: {error}") from error
    except SSLError as error:
        raise StorageDenied(f"the certificate of {uri} is not trusted: set caConfigMap ({error})") from error
    except (BotoCoreError, HTTPError) as error:  # botocore passes on urllib3's if the body of an error response breaks
        raise StorageUnavailable(f"{uri} does not answer: {error}") from error


@contextmanager
def _pinned(info: ObjectInfo, uri: str) -> Iterator[None]:
    """Have answers that a pinned object is gone or another version inside this block mean that the data has changed.

    Raises:
        DataChanged: the server gave such an answer.
    """
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if info.pinned and _code(error) in _GONE_CODES:
            raise data_changed(uri) from error
        raise


def _answer_in(error: BaseException) -> BaseException:
    """The server's answer to a part of an upload, which boto3 hides behind an exception of its own."""
    from boto3.exceptions import S3UploadFailedError

    return error.__context__ or error if isinstance(error, S3UploadFailedError) else error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _changed_message(response: Any, uri: str) -> str:
    return f"{uri} changed while it was read"


def _from_response(error: Any, uri: str) -> StorageDenied | DataInvalid | StorageUnavailable:
    code, status = _code(error), _status(error)
    if code == "NoSuchBucket":
        return DataInvalid(f"{uri}: the bucket does not exist")
    if code in _MISSING_CODES:
        return DataInvalid(f"{uri} does not exist")
    if code in _PASSING_REFUSALS:
        return StorageUnavailable(_PASSING_REFUSALS[code](error.response, uri))
    if code in _OTHER_REGION_CODES:
        return StorageDenied(_other_region_message(error.response, uri))
    is_transient = status in _TRANSIENT_STATUSES or code in _TRANSIENT_CODES
    if 300 <= status < 500 and not is_transient:  # wrong keys, wrong region: each server has its own code
        return StorageDenied(f"the server refused access to {uri}: {code}")
    return StorageUnavailable(f"{uri}: the server answered {status} {code}")


def _expired_message(response: Any, uri: str) -> str:
    """The message for a token; not final, as a pod reads its Secret once and the next one may find a newer token."""
    return (
        f"the session token for {uri} has expired: renew AWS_SESSION_TOKEN in credentialsSecret, or give the pod an "
        "identity, whose tokens renew themselves"
    )


def _skewed_message(response: Any, uri: str) -> str:
    """The message for a clock that is wrong; not final, because another node's may be right."""
    answer = response["Error"]
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    here, there = answer.get("RequestTime", "unknown"), answer.get("ServerTime") or headers.get("date", "unknown")
    return (
        f"the clocks of this node and of the server of {uri} differ too much: the request is of {here}, the server's "
        f"time is {there} (RequestTimeTooSkewed)"
    )


def _other_region_message(response: Any, uri: str) -> str:
    answer = response["Error"]
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or answer.get("Region")
    endpoint = answer.get("Endpoint") or headers.get("location")
    wanted = [
        f"region: {region}" if region else "",
        f"the endpoint that serves the bucket, {endpoint}" if endpoint else "",
    ]
    advice = " and ".join(filter(None, wanted)) or "the bucket's region"
    return f"the bucket of {uri} is in another region: set {advice} ({answer['Code']})"


_PASSING_REFUSALS: dict[str, Callable[[Any, str], str]] = {
    "PreconditionFailed": _changed_message,
    "ExpiredToken": _expired_message,
    "ExpiredTokenException": _expired_message,
    "TokenRefreshRequired": _expired_message,
    "RequestTimeTooSkewed": _skewed_message,
}
"""Messages by code for refusals of a request that a later pod may be granted."""
