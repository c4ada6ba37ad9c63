"""Folders of objects on S3 or on a file system, behind one small protocol."""

from anomaly_runner.storage.folder import FolderStore
from anomaly_runner.storage.object_cache import FileCache, with_cache
from anomaly_runner.storage.prefetch import Prefetcher, download_all, start_prefetch
from anomaly_runner.storage.store import ObjectInfo, Source, Store

__all__ = [
    "FileCache",
    "FolderStore",
    "ObjectInfo",
    "Prefetcher",
    "Source",
    "Store",
    "download_all",
    "start_prefetch",
    "with_cache",
]
