"""Whether the artifacts' folder can be written, found out by writing to it."""

import logging
import os
from pathlib import Path

from anomaly_api.status import Listing
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context
from anomaly_runner.data.fetch import ListedDataset, store_listing
from anomaly_runner.errors import RunFailed, StorageDenied
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID

logger = logging.getLogger(__name__)

_PROBE = ".check"
"""Name of an empty file; hidden, so that it is in no listing even if it cannot be deleted again."""


def check_output(listed: ListedDataset | None, context: Context) -> Listing | None:
    """Write the listing to the artifacts' folder for the next step, or an empty file where nothing was listed.

    A run without a cluster has no next step: nothing is written.

    Raises:
        StorageDenied, StorageUnavailable, DataInvalid: the folder cannot be written.
    """
    store = context.stores[LocationRole.OUTPUT].subfolder(context.run.folder)
    if context.run.uid == LOCAL_UID:
        _check_folder(store.local_root)
        return None
    if listed is not None:
        return store_listing(listed, context)
    empty = context.work / "empty"
    empty.write_bytes(b"")
    store.upload(empty, _PROBE)
    try:
        store.delete(_PROBE)
    except RunFailed as error:
        logger.info("the empty file %s of the check stays: %s", _PROBE, error)
    return None


def _check_folder(folder: Path | None) -> None:
    """Check that a folder can be made and written.

    Raises:
        StorageDenied: it cannot.
    """
    if folder is None:
        return
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise StorageDenied(f"no permission for {there} in {folder}")
