"""Fetch the pre-trained weights and auxiliary images that a model loads from a cluster's own cache.

The layout is that of the libraries' own caches::

    hub/models--timm--NAME.TAG/{refs/main, snapshots/REVISION/model.safetensors}    Hugging Face (timm, open_clip)
    torch/hub/checkpoints/FILE.pth                                                  torchvision
    anomalib/pre_trained/...                                                        anomalib
    datasets/dtd, datasets/imagenette                                               images in sub-folders
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anomaly_api.model import Model
from anomaly_runner.errors import DataInvalid, WeightsNotFound
from anomaly_runner.models.catalog import CATALOG, WeightSource
from anomaly_runner.storage import ObjectInfo, Store, download_all
from anomaly_runner.storage.store import join_uri

_NAMES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
_MIXED = {"mcait": ("cait_m48_448", "cait_s24_224")}
"""Pairs of timm models by U-Flow's name for them."""


@dataclass(frozen=True)
class Wanted:
    """A repository, file or folder that a model loads."""

    kind: Literal["hub", "file", "folder"]
    """hub: repository on the Hugging Face hub; file: file in the cache; folder: folder of images in the cache."""
    name: str
    revision: str = ""
    """Revision of a repository; empty for the newest."""


def go_offline() -> None:
    """Switch the hub's client to offline mode, so that a missing file fails immediately; call before importing timm."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def wanted_weights(model: Model) -> list[Wanted]:
    """List the weights and auxiliary images that a model with these parameters loads.

    Raises:
        WeightsNotFound: timm knows no repository for the backbone's weights.
    """
    if not getattr(model.parameters, "pre_trained", True):
        return []
    values = model.parameters.model_dump()
    found: list[Wanted] = []
    for source in CATALOG[model.name].weights:
        found += _resolved(source, source.name.format(**values))
    return found


def weight_names(model: Model) -> str:
    """Names of the files and repositories that the model loads; its backbone's if timm knows no repository."""
    try:
        return ", ".join(wanted.name for wanted in wanted_weights(model) if wanted.kind != "folder")
    except WeightsNotFound:
        return str(getattr(model.parameters, "backbone", model.name))


def _resolved(source: WeightSource, name: str) -> list[Wanted]:
    match source.kind:
        case "timm":
            return [Wanted("hub", _repository(backbone)) for backbone in _MIXED.get(name, (name,))]
        case "torchvision":
            return [Wanted("file", f"torch/hub/checkpoints/{_torchvision_file(name)}")]
        case "hub":
            return [Wanted("hub", name, source.revision)]
        case "folder":
            return [Wanted("folder", name)]
        case "file":
            return [Wanted("file", name)]


def _repository(backbone: str) -> str:
    from anomaly_runner.models.backbone import hub_repository

    repository = hub_repository(backbone)
    if repository is None:
        raise WeightsNotFound(f"timm knows no hub repository for the weights of {backbone}, so a cache cannot hold it")
    return repository


def _torchvision_file(name: str) -> str:
    import torchvision

    url: str = torchvision.models.get_model_weights(name).DEFAULT.url
    return url.rpartition("/")[2]


def fetch_weights(store: Store, wanted: Sequence[Wanted], folder: Path, check: Callable[[], None]) -> Path:
    """Download everything that a model loads, point its libraries to it, and return the root of the local cache.

    Args:
        store: the cluster's cache.
        wanted: what the model loads.
        folder: target of files that are not on this machine yet.
        check: called regularly; may raise to stop.

    Raises:
        WeightsNotFound: something is missing in the cache; the message has its exact path.
        StorageDenied, StorageUnavailable: the cache cannot be read.
    """
    objects = find_weights(store, wanted)
    root = download_all(store, objects, folder, check)
    use_cache(root)
    return root


def find_weights(store: Store, wanted: Sequence[Wanted]) -> list[ObjectInfo]:
    """The files of everything that a model loads, without downloading them.

    Raises:
        WeightsNotFound: something is missing in the cache; the message has its exact path.
        StorageDenied, StorageUnavailable: the cache cannot be read.
    """
    return [info for want in wanted for info in _found(store, want)]


def _found(store: Store, wanted: Wanted) -> list[ObjectInfo]:
    try:
        if wanted.kind == "hub":
            return _repository_files(store, f"hub/models--{wanted.name.replace('/', '--')}/", wanted.revision)
        return _files(store, wanted)
    except DataInvalid as error:
        raise WeightsNotFound(f"{error}: expected a cache with {wanted.name}") from error


def _files(store: Store, wanted: Wanted) -> list[ObjectInfo]:
    prefix = f"{wanted.name}/" if wanted.kind == "folder" else wanted.name
    found = [info for info in store.list(prefix) if wanted.kind == "folder" or info.key == wanted.name]
    if not found:
        what = "no images below" if wanted.kind == "folder" else "no weights at"
        raise WeightsNotFound(f"{what} {join_uri(store.uri, wanted.name)}")
    return found


def _repository_files(store: Store, prefix: str, revision: str) -> list[ObjectInfo]:
    objects = store.list(prefix)
    revision = revision or (store.read(f"{prefix}refs/main") or b"").decode().strip()
    wanted = {f"{prefix}snapshots/{revision or 'REVISION'}/{name}" for name in _NAMES}
    if not any(info.key in wanted for info in objects):
        exact = join_uri(store.uri, f"{prefix}snapshots/{revision or 'REVISION'}/{_NAMES[0]}")
        why = "" if revision else f" and no revision in {join_uri(store.uri, prefix + 'refs/main')}"
        raise WeightsNotFound(f"no weights at {exact}{why}")
    return [info for info in objects if "/blobs/" not in info.key]


def use_cache(root: Path) -> None:
    """Make timm, open_clip, torchvision and anomalib look below this folder."""
    from huggingface_hub import constants

    hub = str(root / "hub")
    constants.HF_HUB_CACHE = constants.HUGGINGFACE_HUB_CACHE = hub
    os.environ["HF_HUB_CACHE"] = hub
    os.environ["TORCH_HOME"] = str(root / "torch")
    os.environ["XDG_CACHE_HOME"] = str(root)
