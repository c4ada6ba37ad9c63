"""The contents of a weights cache: whether something is in it, and a list of all that is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from anomaly_runner.models.weights import Wanted
from anomaly_runner.storage import FolderStore

_DEPTH = {"hub": 2, "datasets": 2}
"""Number of path components that name one item: a repository, a folder of images. Elsewhere each file is an item."""


def repository_folder(repository: str, cache: Path) -> Path:
    """Return the folder of a hub repository in a cache."""
    return cache / "hub" / f"models--{repository.replace('/', '--')}"


def is_there(wanted: Wanted, cache: Path) -> bool:
    """Whether a cache holds the wanted item already."""
    if wanted.kind == "hub":
        repository = repository_folder(wanted.name, cache)
        revision = repository / "refs" / "main"
        name = revision.read_text().strip() if revision.is_file() else ""
        return (
            bool(name)
            and wanted.revision in ("", name)
            and any((repository / "snapshots" / name).glob("*.safetensors"))
        )
    path = cache / wanted.name
    return path.is_file() if wanted.kind == "file" else any(path.rglob("*.*"))


def contents(cache: Path) -> dict[str, int]:
    """Return the bytes of each repository, file and folder of images in a cache, by its path there."""
    sizes: Counter[str] = Counter()
    for info in FolderStore(cache).list():
        parts = info.key.split("/")
        sizes["/".join(parts[: _DEPTH.get(parts[0])])] += (cache / info.key).stat().st_size
    return dict(sizes)
