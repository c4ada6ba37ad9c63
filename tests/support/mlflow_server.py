"""MLflow's own server, as a process on loopback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.server_process import ServerProcess

PROGRAM = Path(sys.executable).with_name("mlflow")


@contextmanager
def mlflow_server(root: Path, port: int) -> Iterator[str]:
    """Run a server with all its data below a folder, and yield its URL; a second server continues with that data.

    The server is ready when it returns an experiment: on a busy machine the first request after a good health check
    has taken a minute.
    """
    command = [
        str(PROGRAM),
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{root}/mlflow.db",
        "--artifacts-destination",
        str(root / "files"),
    ]
    url = f"http://127.0.0.1:{port}"
    no_jobs = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # MLflow's own jobs, in further processes
    with ServerProcess(command, f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0", no_jobs):
        yield url
