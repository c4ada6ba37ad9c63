"""A repository of the Hugging Face hub as plain files: a cache that survives buckets, volumes and copying.

The hub's own client stores contents separately from names, connected by links, with lock files beside them. Here only
plain files are kept; ``refs/main`` is written last, so a repository without it is incomplete.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomaly_runner.models.weights import Wanted
from hack.weights.cache import repository_folder

_PATTERNS = ("*.safetensors", "*.json")


def bring_repository(
    wanted: Wanted, cache: Path, staging: Path, endpoint: str | None, advance: Callable[[int], None]
) -> None:
    """Download the weights and configuration of a repository.

    Args:
        wanted: the repository, OWNER/NAME, with a commit, or none for the newest.
        cache: the weights cache.
        staging: folder in which an interrupted download resumes.
        endpoint: URL of a mirror of the hub; None means HF_ENDPOINT, or the hub itself.
        advance: called with the number of bytes that have arrived.

    Raises:
        OSError: the hub has no such repository, or does not answer (the client's own errors are of this class).
    """
    from huggingface_hub import snapshot_download

    found = snapshot_download(
        wanted.name,
        revision=wanted.revision or None,
        cache_dir=staging,
        allow_patterns=list(_PATTERNS),
        endpoint=endpoint,
        tqdm_class=_reporting(advance),
    )
    _settle(Path(str(found)), repository_folder(wanted.name, cache))


def _settle(snapshot: Path, target: Path) -> None:
    kept = target / "snapshots" / snapshot.name
    for name in (path.relative_to(snapshot) for path in snapshot.rglob("*") if path.is_file()):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snapshot / name, kept / name)  # two names may be links to the same content
    (target / "refs").mkdir(parents=True, exist_ok=True)
    (target / "refs" / "main").write_text(snapshot.name)


def _reporting(advance: Callable[[int], None]) -> Any:
    """Return a progress-bar class for the client that draws nothing and passes the downloaded bytes to ``advance``.

    The client makes one bar for files, one for bytes written and one for bytes downloaded, which differ in unit and
    description.
    """
    from huggingface_hub.utils.tqdm import tqdm

    class Reporting(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._downloads = options.get("unit") == "B" and str(options.get("desc")).startswith("Downloading")
            super().__init__(*arguments, **(options | {"disable": True}))  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            if self._downloads:
                advance(int(n or 0))

    return Reporting
