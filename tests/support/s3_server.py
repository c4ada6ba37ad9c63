"""A real S3 server on loopback."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.absent import needs
from support.process import free_port
from support.server_process import ServerProcess

KEY, SECRET = "owner", "a-secret-of-the-owner"
PROGRAM = shutil.which("versitygw") or "/var/tmp/anomaly-cluster/bin/versitygw"

needs_s3_server = needs(Path(PROGRAM).exists(), "needs versitygw (hack/cluster builds it)")


@contextmanager
def s3_server(root: Path, log: Path | None = None) -> Iterator[str]:
    """Run a server whose buckets are the folders below ``root``, and yield its URL; ``log`` gets a line a request."""
    port = free_port()
    logged = ["--access-log", str(log)] if log else []
    account = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
    command = [PROGRAM, "--port", f"127.0.0.1:{port}", "--quiet", *logged, "posix", str(root)]
    with ServerProcess(command, f"http://127.0.0.1:{port}", account) as url:
        yield url
