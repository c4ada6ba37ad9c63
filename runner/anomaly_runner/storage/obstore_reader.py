"""Reading objects with Rust's object_store: what makes many small files fast.

A call of botocore's client costs many times the CPU of the request itself (benchmarks/storage_transport.py). Whatever
is not a plain success is left to that client, which knows redirects, refusals and retries: it then asks again, for what
is missing.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, S3Config

_FOREVER = timedelta(days=30)
"""A large object may take its time, as long as something comes."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ObstoreReader:
    """GET requests to one bucket. Safe to use from many threads."""

    store: Any
    """obstore's S3Store."""

    def append(self, key: str, file: BinaryIO, etag: str) -> bool:
        """Write what the file lacks of an object; false where the rest has to be asked for in another way.

        Raises:
            OSError: the file cannot be written.
        """
        import obstore
        from obstore.exceptions import BaseError

        here = file.tell()
        rest: GetOptions = {"range": {"offset": here}, "if_match": f'"{etag}"'} if here else {}
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
    authorities: str | None,
    *,
    seconds: Mapping[str, float],
) -> ObstoreReader:
    """A bucket at an endpoint, or at AWS.

    Args:
        bucket: its name.
        endpoint: URL of another server than AWS.
        session: boto3's, which has credentials and renews them.
        region: where it is.
        authorities: file of certificates to trust beside the system's.
        seconds: how long to ``connect`` and to wait for what is to be ``read``.
    """
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Store

    certificates = authorities or os.environ.get("AWS_CA_BUNDLE")
    options: ClientConfig = {
        "allow_http": True,
        "timeout": _FOREVER,
        "connect_timeout": timedelta(seconds=seconds["connect"]),
        "read_timeout": timedelta(seconds=seconds["read"]),
    }
    if certificates:
        options["root_certificate"] = Path(certificates).read_bytes()
    place: S3Config = {
        "region": region,
        "virtual_hosted_style_request": endpoint is None and "." not in bucket,
    }
    if endpoint:
        place["endpoint"] = endpoint
    return ObstoreReader(
        S3Store(
            bucket,
            config=place,
            client_options=options,
            retry_config={"max_retries": 0},
            credential_provider=Boto3CredentialProvider(session),
        )
    )
