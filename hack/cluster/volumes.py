"""Persistent volumes: folders of the node, to which claims without a class of their own are bound.

Clusters that people share have a default StorageClass, so manifests may count on one. Here nothing
makes volumes when a claim asks: there are a few from the beginning, each on a folder that is deleted
together with the cluster. A folder is emptied when its claim is gone, for the next one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hack.cluster import settings
from hack.cluster.shell import kubectl

CLASS = "node"
NAMES = tuple(f"volume-{index}" for index in range(4))
# What a claim may ask for; the whole of the disk is there for each.
CAPACITY = "100Gi"


def ensure() -> None:
    """Have the default StorageClass and all volumes, and those that no claim is bound to empty."""
    found = json.loads(kubectl("get", "persistentvolumes", "--output=json"))["items"]
    volumes = {volume["metadata"]["name"]: volume for volume in found}
    for name in NAMES:
        volume = volumes.get(name, {})
        if not _is_claimed(volume):
            _empty(_folder(name))
            if volume.get("spec", {}).get("claimRef"):
                _release(name)
    objects = {"apiVersion": "v1", "kind": "List", "items": [_storage_class(), *map(_volume, NAMES)]}
    kubectl("apply", "--filename=-", stdin=json.dumps(objects))


def _is_claimed(volume: dict[str, Any]) -> bool:
    """Whether a claim is bound to a volume, or about to be; not any more when it was deleted."""
    return "claimRef" in volume.get("spec", {}) and volume["status"].get("phase") != "Released"


def _empty(folder: Path) -> None:
    """Delete what is in a folder, which the cluster's processes may have open."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _release(name: str) -> None:
    """Let another claim be bound to a volume that still names its last one."""
    patch = [{"op": "remove", "path": "/spec/claimRef"}]
    kubectl("patch", "persistentvolume", name, "--type=json", f"--patch={json.dumps(patch)}")


def _folder(name: str) -> Path:
    return settings.RUN / "volumes" / name


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
    }


def _volume(name: str) -> dict[str, Any]:
    """A volume of the type local, which unlike hostPath is given to the group of the pod that mounts it."""
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [settings.NODE]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": CLASS,
            "capacity": {"storage": CAPACITY},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(_folder(name))},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }
