"""Make MLflow's client with short timeouts: by default it retries for minutes when a server is down.

MLflow takes seconds to import, so it is imported only where it is needed.
"""

import logging
import os
from pathlib import Path
from typing import Any

_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def connect(uri: str) -> Any:
    """Make a client of the server or database at ``uri``, without sending a request."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def local_uri(folder: Path) -> str:
    """URI of the database that replaces a server in runs without a cluster."""
    return f"sqlite:///{folder / 'mlflow.db'}"
