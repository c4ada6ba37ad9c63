"""A repository of the Hugging Face hub as plain files: a cache that survives buckets, volumes and copying.

The hub's own client keeps content apart from names, joined by links, with locks beside them. Only names and content
are left of that; ``refs/main`` is written last, so a repository without it was not finished.
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
    """Bring the weights and configuration of a repository.

    Args:
        wanted: the repository, OWNER/NAME, and a commit of it, or the newest.
        cache: the weights cache.
        staging: folder where a download that broke off goes on.
        endpoint: URL of a mirror of the hub; None means HF_ENDPOINT, or the hub itself.
        advance: called with the bytes that have come.

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
    """The client reports to a class of progress bars; this one draws nothing and passes on what is downloaded.

    Of its bars one counts files, one the bytes written and one those downloaded, told apart by unit and description.
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
