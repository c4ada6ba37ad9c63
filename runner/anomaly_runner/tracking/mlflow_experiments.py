"""Find or create the MLflow experiment of a run, and refuse one that cannot take it."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from anomaly_runner.errors import TrackingDenied
from anomaly_runner.system.names import file_name


def experiment_of(client: Any, name: str, uri: str, artifact_root: Path | None) -> str:
    """Find or create an experiment; returns its id.

    Args:
        client: MLflow's.
        name: of the experiment.
        uri: of the server, for messages.
        artifact_root: folder that has to hold the artifacts if ``uri`` is a local database.

    Raises:
        TrackingDenied: it is deleted, or a local one keeps its artifacts outside of the folder.
        MlflowException: the server refuses or does not answer.
    """
    found = find_experiment(client, name, uri, artifact_root)
    return _create(client, name, artifact_root) if found is None else found


def find_experiment(client: Any, name: str, uri: str, artifact_root: Path | None) -> str | None:
    """The id of an experiment; None if there is none yet. Arguments and exceptions are those of ``experiment_of``."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return None
    if found.lifecycle_stage == "deleted":
        raise TrackingDenied(
            f"the MLflow experiment {name} at {uri} is deleted: restore it (mlflow experiments restore "
            f"--experiment-id {found.experiment_id}), or set tracking.mlflow.experimentName to another"
        )
    if artifact_root is not None and not _is_below(found.artifact_location, artifact_root):
        raise TrackingDenied(
            f"the MLflow experiment {name} at {uri} keeps its artifacts at {found.artifact_location}, outside of "
            f"{artifact_root}: set tracking.mlflow.experimentName to another"
        )
    return str(found.experiment_id)


def _create(client: Any, name: str, artifact_root: Path | None) -> str:
    from mlflow.exceptions import MlflowException

    try:
        location = (artifact_root / file_name(name)).as_uri() if artifact_root else None
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        # Another pod has created the experiment since it was looked up.
        return str(client.get_experiment_by_name(name).experiment_id)


def _is_below(location: str, root: Path) -> bool:
    """Whether a place of artifacts (a path or a file: URI) is a folder below ``root``."""
    parts = urlsplit(location)
    path = Path(url2pathname(parts.path) if parts.scheme else location)
    return parts.scheme in ("", "file") and path.resolve().is_relative_to(root.resolve())
