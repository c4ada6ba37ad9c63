"""Read objects with Rust's object_store, which is fast for many small files.

A call of botocore's client costs several times the CPU of the request itself (benchmarks/storage_transport.py). Nothing
here retries or explains a failure: after any failure, botocore's client requests the missing rest, because it handles
redirects, refusals and retries.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from anomaly_runner.storage.store import is_version

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, S3Config

_TOTAL_TIMEOUT = timedelta(days=30)
"""In effect no limit: a large object may take long, as long as data arrives within the read timeout."""
_CHUNK = 1 << 20
"""Smallest number of bytes written at a time."""


@dataclass(frozen=True)
class ObstoreReader:
    """Reads objects of one bucket. Safe to use from many threads.

    ``store`` is obstore's S3Store.
    """

    store: Any

    def append(self, key: str, file: BinaryIO, etag: str, *, pinned: bool = False) -> bool:
        """Append the missing rest of an object to a file; returns false if the request failed.

        Args:
            key: the object's key in the bucket.
            file: positioned at its end, from which on the object is requested.
            etag: version of the object that the file's content is from.
            pinned: whether no other version will do, even for an empty file.

        Raises:
            OSError: the file cannot be written.
        """
        import obstore
        from obstore.exceptions import BaseError

        offset = file.tell()
        wanted: GetOptions = {"if_match": f'"{etag}"'} if offset or (pinned and etag) else {}
        if offset:
            wanted["range"] = {"offset": offset}
        try:
            answer = obstore.get(self.store, key, options=wanted)
            if pinned and not is_version(answer.meta["e_tag"], etag):
                return False  # of a server that does not know If-Match
            for chunk in answer.stream(min_chunk_size=_CHUNK):
                file.write(chunk)
        # FileNotFoundError: obstore's name for a missing object. ValueError: object_store takes no key with control
        # characters or empty parts.
        except (BaseError, FileNotFoundError, ValueError):
            return False
        return True


def open_reader(
    bucket: str,
    endpoint: str | None,
    session: Any,
    region: str,
    ca_file: str | None,
    *,
    connect_seconds: float,
    read_seconds: float,
) -> ObstoreReader:
    """Open a bucket at an endpoint, or at AWS, without sending a request.

    Args:
        bucket: its name.
        endpoint: URL of a server; None for AWS.
        session: boto3's session, which holds and renews the credentials.
        region: of the bucket.
        ca_file: certificates to trust besides the system's; None for those of AWS_CA_BUNDLE.
        connect_seconds: timeout of connecting.
        read_seconds: longest time without data from the server.
    """
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    certificates = ca_file or os.environ.get("AWS_CA_BUNDLE")
    options: ClientConfig = {
        "allow_http": True,
        "timeout": _TOTAL_TIMEOUT,
        "connect_timeout": timedelta(seconds=connect_seconds),
        "read_timeout": timedelta(seconds=read_seconds),
    }
    if certificates:
        options["root_certificate"] = Path(certificates).read_bytes()
    config: S3Config = {
        "region": region,
        # A dot in a bucket's name would not match the wildcard certificate of BUCKET.s3.amazonaws.com.
        "virtual_hosted_style_request": endpoint is None and "." not in bucket,
    }
    if endpoint:
        config["endpoint"] = endpoint
    return ObstoreReader(
        S3Store(
            bucket,
            config=config,
            client_options=options,
            retry_config={"max_retries": 0},
            credential_provider=Boto3CredentialProvider(session),
        )
    )
