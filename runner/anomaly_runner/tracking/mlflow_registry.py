"""The files of a registered model as a store to read from, by MLflow's own client.

Which version is meant is asked when the first file is, and then stays: newest and alias may move on meanwhile.

MLflow knows one account a process: it takes MLFLOW_TRACKING_* from the environment at every request. A registry with
another account than the tracking server finds its own there while it is asked. The tracker's requests do not meet
that: a run begins to be tracked once its model is loaded.
"""

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from anomaly_api.inference import InferenceSpec, RegisteredModel
from anomaly_api.run import MLFLOW_SECRET_KEYS, registry_env
from anomaly_runner.errors import ModelInvalid, RunFailed, StorageDenied, StorageUnavailable
from anomaly_runner.storage.store import ObjectInfo, check_key, join_uri
from anomaly_runner.tracking.mlflow_client import connect, local_uri

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
"""For one file: MLflow repeats requests that are refused, not bodies that break off."""
_MAY_PASS = (408, 429)
_ACCOUNT = threading.RLock()


@dataclass(frozen=True)
class ModelRegistry:
    """A server, and the variables that MLflow logs in with; None where they are in the environment already."""

    uri: str
    account: Mapping[str, str] | None = None

    def ask(self, what: str, question: Callable[[], Result]) -> Result:
        """The answer of a question that MLflow's client asks.

        Raises:
            ModelInvalid: the server does not know what is asked for.
            StorageDenied: it refused the credentials.
            StorageUnavailable: it does not answer, after MLflow's own retries.
        """
        from botocore.exceptions import BotoCoreError, ClientError
        from mlflow.exceptions import MlflowException

        try:
            with _logged_in(self.account):
                return question()
        except (MlflowException, OSError, BotoCoreError, ClientError) as error:  # requests' are OSErrors
            raise _explained(error, what, self.uri) from error


def open_registered_model(
    spec: InferenceSpec, model: RegisteredModel, environment: Mapping[str, str], local: Path | None
) -> "RegisteredModelStore":
    """The store of ``spec.model.mlflow``; without a cluster, in the database below the folder ``local``.

    Nothing is sent yet, and MLflow not yet imported.
    """
    if local:
        return RegisteredModelStore(ModelRegistry(local_uri(local)), model)
    uri = spec.registry_uri
    return RegisteredModelStore(ModelRegistry(uri, _account(spec, model, uri, environment)), model)


def _account(
    spec: InferenceSpec, model: RegisteredModel, uri: str, environment: Mapping[str, str]
) -> Mapping[str, str] | None:
    """The registry's own, else the tracking server's, which no other server may see."""
    if model.credentials_secret:
        found = {key: environment.get(registry_env(key), "") for key in MLFLOW_SECRET_KEYS}
        return {key: value for key, value in found.items() if value}
    tracking = spec.tracking.mlflow
    elsewhere = tracking is not None and tracking.tracking_uri.rstrip("/") != uri.rstrip("/")
    return {} if elsewhere and tracking and tracking.credentials_secret else None


@contextmanager
def _logged_in(account: Mapping[str, str] | None) -> Iterator[None]:
    if account is None:
        yield
        return
    with _ACCOUNT:
        before = {key: os.environ.pop(key) for key in MLFLOW_SECRET_KEYS if key in os.environ}
        os.environ.update(account)
        try:
            yield
        finally:
            for key in account:
                os.environ.pop(key, None)
            os.environ.update(before)


def _explained(error: Exception, what: str, uri: str) -> RunFailed:
    status = _http_status(error)
    if status in (401, 403):
        return StorageDenied(f"{uri} refused access to {what}: check model.mlflow.credentialsSecret ({error})")
    if 400 <= status < 500 and status not in _MAY_PASS:
        return ModelInvalid(f"there is no {what} at {uri}: {error}")
    return StorageUnavailable(f"{uri} does not give {what}: {error}"[:1000])


def _http_status(error: Exception) -> int:
    """Of MLflow's, requests' and botocore's errors; 0 where there was no answer."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return int(getattr(response, "status_code", 0))


@dataclass(frozen=True)
class _Version:
    """A version of a registered model, and MLflow's access to its files."""

    uri: str
    files: Any


class RegisteredModelStore:
    """The files of one version of a registered model, read-only. Safe to use from many threads."""

    def __init__(self, registry: ModelRegistry, model: RegisteredModel) -> None:
        self._registry = registry
        self._model = model

    @property
    def uri(self) -> str:
        """models:/NAME/VERSION, as MLflow writes it."""
        return self._version.uri

    @property
    def local_root(self) -> Path | None:
        """Never: files are asked for."""
        return None

    def address(self, key: str) -> str:
        """The file's address at the server."""
        return join_uri(f"{self._registry.uri}#{self.uri}", key)

    @cached_property
    def _version(self) -> _Version:
        what, server = _described(self._model), self._registry.uri
        client = self._registry.ask(what, partial(connect, server))
        found = self._registry.ask(what, partial(_find, client, self._model))
        if found is None:
            raise ModelInvalid(f"there is no {what} at {server}")
        source = self._registry.ask(what, partial(client.get_model_version_download_uri, found.name, found.version))
        if not _is_trusted(source, server):
            raise ModelInvalid(
                f"the {what} has its files at {source}: only the artifacts of {server} and of S3 are read"
            )
        files = self._registry.ask(what, partial(_files, source, server))
        version = _Version(f"models:/{found.name}/{found.version}", files)
        logger.info("registered model", extra={"model": version.uri, "trained_by": found.run_id})
        return version

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Every file whose key begins with the prefix, sorted by key."""
        folder = prefix.rpartition("/")[0]
        found = self._registry.ask(self.uri, lambda: list(_walk(self._version.files, folder or None)))
        objects = (ObjectInfo(info.path, info.file_size or 0, self.uri) for info in found)
        return sorted((info for info in objects if info.key.startswith(prefix)), key=lambda info: info.key)

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Download one file, whole or not at all."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

        key = check_key(info.key, self.uri)
        destination.parent.mkdir(parents=True, exist_ok=True)
        retrying = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(min=1, max=10),
            retry=retry_if_exception_type(StorageUnavailable),
            reraise=True,
        )
        with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=destination.parent) as folder:
            file = retrying(self._registry.ask, f"{key} in {self.uri}", partial(self._download, key, folder))
            file.replace(destination)

    def _download(self, key: str, folder: str) -> Path:
        return Path(self._version.files.download_artifacts(key, folder))

    def read(self, key: str) -> bytes | None:
        """Content of a small file; None if there is none."""
        found = next((info for info in self.list(key) if info.key == key), None)
        if found is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            self.download(found, Path(folder) / "content")
            return (Path(folder) / "content").read_bytes()

    def upload(self, source: Path, key: str) -> None:
        """Refused: a registered version does not change."""
        raise NotImplementedError

    def delete(self, key: str) -> None:
        """Refused: a registered version does not change."""
        raise NotImplementedError

    def subfolder(self, prefix: str) -> "RegisteredModelStore":
        """Refused: a model has no folders of its own."""
        raise NotImplementedError


def _described(model: RegisteredModel) -> str:
    if model.alias:
        return f"version with the alias {model.alias} of the registered model {model.name}"
    if model.version:
        return f"version {model.version} of the registered model {model.name}"
    return f"version of a registered model {model.name}"


def _find(client: Any, model: RegisteredModel) -> Any:
    """MLflow's ModelVersion; None where the model has none."""
    if model.alias:
        return client.get_model_version_by_alias(model.name, model.alias)
    if model.version:
        return client.get_model_version(model.name, str(model.version))
    quote = '"' if "'" in model.name else "'"
    newest = client.search_model_versions(f"name = {quote}{model.name}{quote}", 1, ["version_number DESC"])
    return newest[0] if newest else None


def _is_trusted(source: str, server: str) -> bool:
    """Whether files may be asked for there: whoever registers a version chooses, and MLflow would send the account."""
    if not server.startswith(("http://", "https://")):
        return True
    parts = urlsplit(source)
    own = parts.scheme == "mlflow-artifacts" and parts.netloc in ("", urlsplit(server).netloc)
    return own or parts.scheme == "s3"


def _files(source: str, server: str) -> Any:
    """MLflow's ArtifactRepository of a version's folder."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(source, tracking_uri=server, registry_uri=server)


def _walk(files: Any, folder: str | None) -> Iterator[Any]:
    """Every file below the folder, as MLflow's FileInfo."""
    for info in files.list_artifacts(folder):
        if info.is_dir:
            yield from _walk(files, info.path)
        else:
            yield info
