"""ImageNet weights of backbones from a Hugging Face cache of the cluster's own.

Layout: ``hub/models--timm--NAME.TAG/refs/main`` holds a revision, ``.../snapshots/REVISION/model.safetensors``
the weights. Only the wanted model's files are brought here.
"""

import os
from collections.abc import Callable
from pathlib import Path

from anomaly_runner.errors import DataInvalid, WeightsNotFound
from anomaly_runner.storage import ObjectInfo, Store, local_copy
from anomaly_runner.storage.base import join_uri

_NAMES = ("model.safetensors", "pytorch_model.bin")


def go_offline() -> None:
    """Keep the hub's client from looking for a network: a missing file then fails at once. Before importing timm."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def bring_weights(store: Store, repository: str | None, backbone: str, folder: Path, check: Callable[[], None]) -> None:
    """Make the cached weights of a hub repository loadable by timm.

    Raises:
        WeightsNotFound: the cache does not hold them; names the exact path that was looked for.
    """
    if repository is None:
        raise WeightsNotFound(f"timm knows no hub repository for the weights of {backbone}, so a cache cannot hold it")
    prefix = f"hub/models--{repository.replace('/', '--')}/"
    files = _cached(store, prefix)
    root = local_copy(store, files, folder, check)
    _use_cache(root / "hub")


def _cached(store: Store, prefix: str) -> list[ObjectInfo]:
    try:
        objects = store.list(prefix)
    except DataInvalid as error:
        raise WeightsNotFound(f"{error}: expected a cache with {prefix}snapshots/REVISION/{_NAMES[0]}") from error
    revision = (store.read(f"{prefix}refs/main") or b"").decode().strip()
    wanted = {f"{prefix}snapshots/{revision or 'REVISION'}/{name}" for name in _NAMES}
    if not any(info.key in wanted for info in objects):
        exact = join_uri(store.uri, f"{prefix}snapshots/{revision or 'REVISION'}/{_NAMES[0]}")
        why = "" if revision else f" and no revision in {join_uri(store.uri, prefix + 'refs/main')}"
        raise WeightsNotFound(f"no weights at {exact}{why}")
    return [info for info in objects if "/blobs/" not in info.key]


def _use_cache(hub: Path) -> None:
    from huggingface_hub import constants

    constants.HF_HUB_CACHE = str(hub)
    constants.HUGGINGFACE_HUB_CACHE = str(hub)
    os.environ["HF_HUB_CACHE"] = str(hub)
