"""The demo's S3 server: uploading folders, listing, and downloading one object."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

REGION = "us-east-1"
PARALLEL = 16

# boto3 makes its client classes at run time, so there is no type to name.
Client = Any


@dataclass(frozen=True)
class Credentials:
    """The keys of an S3 account."""

    access_key: str
    secret_key: str


@dataclass(frozen=True)
class StoredObject:
    """An object in a bucket; `size` is in bytes."""

    key: str
    size: int


def connect(address: str, credentials: Credentials, authorities: Path | None = None) -> Client:
    """Return a client of the S3 server at host:port, without proxies; HTTPS if CA certificates are given."""
    config = Config(
        max_pool_connections=PARALLEL,
        proxies={"http": "", "https": ""},
        retries={"mode": "standard", "max_attempts": 5},
        s3={"addressing_style": "path"},
    )
    return boto3.client(
        "s3",
        endpoint_url=f"{'https' if authorities else 'http'}://{address}",
        verify=str(authorities) if authorities else None,
        region_name=REGION,
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        config=config,
    )


def list_objects(client: Client, bucket: str, prefix: str = "") -> list[StoredObject]:
    """Return all objects below a prefix, in the order of their keys."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [StoredObject(found["Key"], found["Size"]) for page in pages for found in page.get("Contents", [])]


def upload_folder(client: Client, folder: Path, bucket: str) -> int:
    """Upload the missing files below a folder under their relative paths, and return their number."""
    present = {(found.key, found.size) for found in list_objects(client, bucket)}
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    missing = {key: path for key, path in files.items() if (key, path.stat().st_size) not in present}
    with ThreadPoolExecutor(PARALLEL) as pool:
        # list() consumes the results, so that a failed upload raises here.
        list(pool.map(lambda item: client.upload_file(str(item[1]), bucket, item[0]), missing.items()))
    return len(missing)


def download(client: Client, bucket: str, key: str, folder: Path) -> Path:
    """Download an object into a folder under its own file name, and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / Path(key).name
    client.download_file(bucket, key, str(target))
    return target


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of s3://BUCKET/KEY."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
