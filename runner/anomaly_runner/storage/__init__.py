"""Folders of objects, on S3 or on a file system, behind one protocol. Knows nothing of images, models or runs."""

from anomaly_runner.storage.folder import FolderStore
from anomaly_runner.storage.object_cache import CacheEntry, FileCache, with_cache
from anomaly_runner.storage.prefetch import Prefetcher, download_all, start_prefetch
from anomaly_runner.storage.store import ObjectInfo, ObjectSource, Store

__all__ = [
    "CacheEntry",
    "FileCache",
    "FolderStore",
    "ObjectInfo",
    "ObjectSource",
    "Prefetcher",
    "Store",
    "download_all",
    "start_prefetch",
    "with_cache",
]
