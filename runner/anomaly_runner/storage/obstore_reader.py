"""Read objects with Rust's object_store: what makes many small files fast.

A call of botocore's client costs many times the CPU of the request itself (benchmarks/storage_transport.py). Whatever
is not a plain success is left to that client, which knows redirects, refusals and retries: it then asks again, for what
is missing. So nothing here retries or explains a failure.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, S3Config

_TOTAL_TIMEOUT = timedelta(days=30)
"""Practically none: a large object may take its time, as long as something arrives within the read timeout."""
_CHUNK = 1 << 20
"""Bytes written at once."""


@dataclass(frozen=True)
class ObstoreReader:
    """GET requests to one bucket. Safe to use from many threads.

    ``store`` is obstore's S3Store.
    """

    store: Any

    def append(self, key: str, file: BinaryIO, etag: str) -> bool:
        """Append to a file what it lacks of an object; false where the rest has to be asked for in another way.

        Args:
            key: the object's key in the bucket.
            file: at its end; a file that is not empty gets the rest of the object from there.
            etag: the version that the file's beginning is of.

        Raises:
            OSError: the file cannot be written.
        """
        import obstore
        from obstore.exceptions import BaseError

        offset = file.tell()
        rest: GetOptions = {"range": {"offset": offset}, "if_match": f'"{etag}"'} if offset else {}
        try:
            for chunk in obstore.get(self.store, key, options=rest).stream(min_chunk_size=_CHUNK):
                file.write(chunk)
        except BaseError:
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
    """Open a bucket at an endpoint, or at AWS. Nothing is sent yet.

    Args:
        bucket: its name.
        endpoint: URL of another server than AWS.
        session: boto3's, which has credentials and renews them.
        region: of the bucket.
        ca_file: certificates to trust beside the system's; unset means those of AWS_CA_BUNDLE.
        connect_seconds: how long connecting may take.
        read_seconds: how long the server may send nothing.
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
