"""Make MLflow's client with short timeouts: by default it retries for minutes when a server is down.

MLflow takes seconds to import, so it is imported only where it is needed.
"""

import logging
import os
from pathlib import Path
from typing import Any

_SQLITE = "sqlite:///"
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


_ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
"""Where a database keeps artifacts of experiments without a place of their own; else below the current folder."""


def connect(uri: str) -> Any:
    """Make a client of the server or database at ``uri``, without sending a request."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if uri.startswith(_SQLITE):
        os.environ[_ARTIFACT_ROOT] = artifact_root(Path(uri.removeprefix(_SQLITE)).parent).as_uri()
    from mlflow.tracking import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def local_uri(folder: Path) -> str:
    """URI of the database that replaces a server in runs without a cluster."""
    return f"{_SQLITE}{folder / 'mlflow.db'}"


def is_there(uri: str) -> bool:
    """Whether a local database exists; true for a server."""
    return not uri.startswith(_SQLITE) or Path(uri.removeprefix(_SQLITE)).exists()


def artifact_root(folder: Path) -> Path:
    """Folder of all artifacts in runs without a cluster."""
    return folder.absolute() / "mlartifacts"
