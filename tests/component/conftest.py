"""Fixtures of the runner's tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.mlflow_server import mlflow_server
from support.process import free_port
from support.textures import write_textures

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@pytest.fixture
def textures(tmp_path: Path) -> Path:
    """A local folder with the bucket ``data`` and the textures in it."""
    write_textures(tmp_path / "data" / "textures")
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an MLflow server."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as url:
        yield url


@pytest.fixture(scope="module")
def client(server: str) -> "MlflowClient":
    """MLflow's own client of ``server``."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(server)
