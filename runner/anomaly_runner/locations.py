"""Open the locations of a run as stores: S3 and mounted claims in a pod, sub-folders of one folder without a cluster.

A registered model is a store too, on its MLflow server or in the local database that stands for the server. No request
is sent here.
"""

import os
from pathlib import Path

from anomaly_api.inference import InferenceSpec
from anomaly_api.run import NODE_CACHE_PATH, RunConfig, mount_path
from anomaly_api.storage import Location, LocationRole, S3Location
from anomaly_runner.storage import FolderStore, Store
from anomaly_runner.storage.s3 import connect
from anomaly_runner.tracking.mlflow_registry import open_registered_model


def pod_stores(config: RunConfig) -> dict[LocationRole, Store]:
    """Open every location of a run in a pod: S3, or the sub-folder of a claim that the pod has mounted.

    A run without a cache of its own uses the node's cache folder, if the operator has mounted one.
    """
    stores: dict[LocationRole, Store] = {
        role: _open_in_pod(role, location) for role, location in config.locations().items()
    }
    stores |= _registered_model(config, None)
    node_cache = Path(NODE_CACHE_PATH)
    if node_cache.is_dir():
        stores.setdefault(LocationRole.CACHE, FolderStore(node_cache))
    return stores


def local_stores(folder: Path, config: RunConfig) -> dict[LocationRole, Store]:
    """Open every location of a run below a folder: s3://BUCKET/KEY at BUCKET/KEY, a claim at CLAIM/PATH."""
    stores: dict[LocationRole, Store] = {
        role: FolderStore(folder / local_path(location)) for role, location in config.locations().items()
    }
    return stores | _registered_model(config, folder)


def local_path(location: Location) -> Path:
    """Path of a location relative to the local folder."""
    place = location.place
    if isinstance(place, S3Location):
        return Path(place.uri.removeprefix("s3://").strip("/"))
    return Path(place.claim_name) / (place.path or "")


def _open_in_pod(role: LocationRole, location: Location) -> Store:
    return connect(role, location.s3) if location.s3 else FolderStore(Path(mount_path(role)))


def _registered_model(config: RunConfig, local: Path | None) -> dict[LocationRole, Store]:
    """The model of an inference, if it comes from a registry."""
    if not isinstance(config.spec, InferenceSpec) or config.spec.model.mlflow is None:
        return {}
    return {LocationRole.MODEL: open_registered_model(config.spec, config.spec.model.mlflow, os.environ, local)}
