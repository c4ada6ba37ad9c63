"""Read the files of a model in MLflow's model registry, as a store.

The version is resolved at the first access and then kept, because an alias or the newest version may change during the
run.

MLflow supports one account a process: it reads MLFLOW_TRACKING_* from the environment at every request. A registry with
other credentials than the tracking server therefore gets them by changing the environment during each of its requests.
This cannot affect the tracker's requests, because a run is tracked only once its model is loaded.
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
from anomaly_runner.system.full_disk import full_disk
from anomaly_runner.tracking.mlflow_client import connect, local_uri
from anomaly_runner.tracking.mlflow_failures import (
    TRANSIENT_STATUSES,
    http_status,
    is_of_the_server,
    is_of_this_disk,
)

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
"""Attempts to download a file: MLflow retries failed requests, but not connections that break during a response."""
_ENVIRONMENT_LOCK = threading.RLock()


@dataclass(frozen=True)
class ModelRegistry:
    """A registry server and its credentials.

    Attributes:
        uri: of the server.
        credentials: environment variables that MLflow logs in with; None to use the environment as it is.
    """

    uri: str
    credentials: Mapping[str, str] | None = None

    def call(self, what: str, request: Callable[[], Result]) -> Result:
        """Make a request with the registry's credentials.

        Args:
            what: name of the requested object, for messages.
            request: calls MLflow's client.

        Raises:
            ModelInvalid: the server does not have the object.
            StorageDenied: the server refused the credentials.
            StorageUnavailable: the server does not answer, after MLflow's own retries; or the disk of this machine is
                full.
        """
        try:
            with _credentials_in_environment(self.credentials):
                return request()
        except Exception as error:
            if not isinstance(error, OSError) and not is_of_the_server(error):
                raise
            raise _translated(error, what, self.uri) from error


def open_registered_model(
    spec: InferenceSpec, model: RegisteredModel, environment: Mapping[str, str], local: Path | None
) -> "RegisteredModelStore":
    """Open the store of a registered model, without sending a request or importing MLflow.

    Args:
        spec: the inference.
        model: ``spec.model.mlflow``.
        environment: environment variables, which hold the registry's own credentials if it has some.
        local: folder with the database that replaces the server in runs without a cluster; None in a pod.
    """
    if local:
        return RegisteredModelStore(ModelRegistry(local_uri(local)), model)
    uri = spec.registry_uri
    return RegisteredModelStore(ModelRegistry(uri, _credentials(spec, model, uri, environment)), model)


def _credentials(
    spec: InferenceSpec, model: RegisteredModel, uri: str, environment: Mapping[str, str]
) -> Mapping[str, str] | None:
    """The registry's own credentials; None to use those of the tracking server in the environment.

    A registry on another server than the tracking server must not receive the tracking server's credentials: without
    its own it gets none.
    """
    if model.credentials_secret:
        found = {key: environment.get(registry_env(key)) for key in MLFLOW_SECRET_KEYS}
        return {key: value for key, value in found.items() if value}
    tracking = spec.tracking.mlflow
    elsewhere = tracking is not None and tracking.tracking_uri.rstrip("/") != uri.rstrip("/")
    return {} if elsewhere and tracking and tracking.credentials_secret else None


@contextmanager
def _credentials_in_environment(credentials: Mapping[str, str] | None) -> Iterator[None]:
    if credentials is None:
        yield
        return
    with _ENVIRONMENT_LOCK:
        before = {key: os.environ.pop(key) for key in MLFLOW_SECRET_KEYS if key in os.environ}
        os.environ.update(credentials)
        try:
            yield
        finally:
            for key in credentials:
                os.environ.pop(key, None)
            os.environ.update(before)


def _translated(error: Exception, what: str, uri: str) -> RunFailed:
    if is_of_this_disk(error):
        return full_disk(error)
    status = http_status(error)
    if status in (401, 403):
        return StorageDenied(f"{uri} refused access to {what}: check model.mlflow.credentialsSecret ({error})")
    if 400 <= status < 500 and status not in TRANSIENT_STATUSES:
        return ModelInvalid(f"there is no {what} at {uri}: {error}")
    return StorageUnavailable(f"{uri} does not give {what}: {error}"[:1000])


@dataclass(frozen=True)
class _Version:
    """A version of a registered model: its URI, models:/NAME/VERSION, and MLflow's ArtifactRepository of its files."""

    uri: str
    repository: Any


class RegisteredModelStore:
    """The files of one version of a registered model, read-only. Safe to use from many threads.

    Methods raise ModelInvalid if there is no such model, version or file, or its files are at an untrusted address;
    StorageDenied if the server refuses the credentials; and StorageUnavailable if the server does not answer.
    """

    def __init__(self, registry: ModelRegistry, model: RegisteredModel) -> None:
        self._registry = registry
        self._model = model

    @property
    def uri(self) -> str:
        """MLflow's URI of the version, models:/NAME/VERSION."""
        return self._version.uri

    @property
    def local_root(self) -> Path | None:
        """None: files are downloaded."""
        return None

    def address(self, key: str) -> str:
        """Name of the file that is unique for server, model and version."""
        return join_uri(f"{self._registry.uri}#{self.uri}", key)

    @cached_property
    def _version(self) -> _Version:
        what, server = _describe(self._model), self._registry.uri
        client = self._registry.call(what, partial(connect, server))
        found = self._registry.call(what, partial(_find_version, client, self._model))
        if found is None:
            raise ModelInvalid(f"there is no {what} at {server}")
        source = self._registry.call(what, partial(client.get_model_version_download_uri, found.name, found.version))
        if not _is_trusted(source, server):
            raise ModelInvalid(
                f"the {what} has its files at {source}: only the artifacts of {server} and of S3 are read"
            )
        repository = self._registry.call(what, partial(_artifact_repository, source, server))
        version = _Version(f"models:/{found.name}/{found.version}", repository)
        logger.info("registered model", extra={"model": version.uri, "trained_by": found.run_id})
        return version

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """List the files whose keys begin with the prefix, sorted by key."""
        folder = prefix.rpartition("/")[0]
        found = self._registry.call(self.uri, lambda: list(_walk(self._version.repository, folder or None)))
        objects = (ObjectInfo(info.path, info.file_size or 0, self.uri) for info in found)
        return sorted((info for info in objects if info.key.startswith(prefix)), key=lambda info: info.key)

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """Refused: a model has no folders of its own."""
        raise NotImplementedError

    def download(self, info: ObjectInfo, destination: Path) -> None:
        """Download one file, whole or not at all."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

        key = check_key(info.key, self.uri)
        destination.parent.mkdir(parents=True, exist_ok=True)
        retrying = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(),
            retry=retry_if_exception_type(StorageUnavailable),
            reraise=True,
        )
        with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=destination.parent) as folder:
            file = retrying(self._registry.call, f"{key} in {self.uri}", partial(self._download, key, folder))
            file.replace(destination)

    def _download(self, key: str, folder: str) -> Path:
        return Path(self._version.repository.download_artifacts(key, folder))

    def read(self, key: str) -> bytes | None:
        """Read a small file; None if there is none."""
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


def _describe(model: RegisteredModel) -> str:
    if model.alias:
        return f"version with the alias {model.alias} of the registered model {model.name}"
    if model.version:
        return f"version {model.version} of the registered model {model.name}"
    return f"version of a registered model {model.name}"


def _find_version(client: Any, model: RegisteredModel) -> Any:
    """Find MLflow's ModelVersion by alias or number, or else the newest; None if the model has no version."""
    if model.alias:
        return client.get_model_version_by_alias(model.name, model.alias)
    if model.version:
        return client.get_model_version(model.name, str(model.version))
    quote = '"' if "'" in model.name else "'"
    newest = client.search_model_versions(f"name = {quote}{model.name}{quote}", 1, ["version_number DESC"])
    return newest[0] if newest else None


def _is_trusted(source: str, server: str) -> bool:
    """Whether files may be downloaded from an address.

    Anyone who may register a version chooses this address, and MLflow would send the credentials there.
    """
    if not server.startswith(("http://", "https://")):
        return True
    parts = urlsplit(source)
    own = parts.scheme == "mlflow-artifacts" and parts.netloc in ("", urlsplit(server).netloc)
    return own or parts.scheme == "s3"


def _artifact_repository(source: str, server: str) -> Any:
    """MLflow's ArtifactRepository of a version's folder."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(source, tracking_uri=server, registry_uri=server)


def _walk(repository: Any, folder: str | None) -> Iterator[Any]:
    """Yield every file below the folder, as MLflow's FileInfo."""
    for info in repository.list_artifacts(folder):
        if info.is_dir:
            yield from _walk(repository, info.path)
        else:
            yield info
