"""Folders of objects on S3 or on a file system, behind one small protocol."""

from anomaly_runner.storage.base import ObjectInfo, Store
from anomaly_runner.storage.folder import FolderStore
from anomaly_runner.storage.pull import Pull, local_copy, start_pull

__all__ = ["FolderStore", "ObjectInfo", "Pull", "Store", "local_copy", "start_pull"]
