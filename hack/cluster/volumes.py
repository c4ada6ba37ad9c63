"""Persistent volumes: folders of the node, for claims that name no StorageClass.

Most clusters have a default StorageClass, so manifests may rely on one. Here no provisioner creates
volumes on demand: a few exist from the beginning, each on a folder that is deleted together with the
cluster. `ensure` empties the folder of a volume whose claim is gone, for the next claim.
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
# Most that a claim may request; it is not enforced, each volume can use the whole disk.
CAPACITY = "100Gi"


def ensure() -> None:
    """Create the default StorageClass and missing volumes, and empty and release unclaimed volumes."""
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
    """Whether a claim is bound to a volume, or about to be; False once the claim was deleted."""
    return "claimRef" in volume.get("spec", {}) and volume["status"].get("phase") != "Released"


def _empty(folder: Path) -> None:
    """Delete the contents of a folder, but not the folder itself, which processes of the cluster may have open."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _release(name: str) -> None:
    """Remove a volume's reference to its deleted claim, so that another claim can be bound to it."""
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
    """Return a volume of type local: unlike with hostPath, the kubelet gives it to the pod's fsGroup."""
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
