"""Folders of objects on S3 or on a file system, behind one small protocol."""

from anomaly_runner.storage.base import ObjectInfo, Source, Store
from anomaly_runner.storage.folder import FolderStore
from anomaly_runner.storage.object_cache import FileCache, cached
from anomaly_runner.storage.pull import Pull, local_copy, start_pull

__all__ = ["FileCache", "FolderStore", "ObjectInfo", "Pull", "Source", "Store", "cached", "local_copy", "start_pull"]
