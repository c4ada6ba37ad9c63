"""The volumes of a run's pod, each with its mounts: scratch space, what the run is told, and what it may reach."""

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anomaly_api.run import (
    CA_DIR,
    CA_KEY,
    CONFIG_PATH,
    NODE_CACHE_PATH,
    PROGRESS_AUDIENCE,
    PROGRESS_TOKEN_PATH,
    WORK_DIR,
    RunConfig,
    mount_path,
)
from anomaly_api.storage import LocationRole, PersistentVolumeClaimLocation
from anomaly_operator import names
from anomaly_operator.decide.pod_settings import PodSettings

Manifest = dict[str, Any]

SHARED_MEMORY = "1Gi"
"""Upper bound of /dev/shm, which libraries use between processes; it counts as the pod's memory only when used."""
TOKEN_SECONDS = 3600
_WRITTEN = {LocationRole.OUTPUT, LocationRole.CACHE}


@dataclass(frozen=True)
class Volume:
    """A volume of the pod and its mounts in the container."""

    source: Manifest
    mounts: tuple[Manifest, ...]


def pod_volumes(config: RunConfig, namespace: str, settings: PodSettings) -> list[Volume]:
    """Everything that the pod mounts."""
    return [*_always(), *_claims(config), *_authorities(config), *_node_cache(config, namespace, settings)]


def _volume(name: str, source: Manifest, path: str, **mount: Any) -> Volume:
    return Volume({"name": name} | source, ({"name": name, "mountPath": path} | mount,))


def _always() -> list[Volume]:
    config = {
        "downwardAPI": {
            "items": [
                {
                    "path": posixpath.basename(CONFIG_PATH),
                    "fieldRef": {"fieldPath": f"metadata.annotations['{names.CONFIG_ANNOTATION}']"},
                }
            ]
        }
    }
    token = {
        "projected": {
            "sources": [
                {
                    "serviceAccountToken": {
                        "path": posixpath.basename(PROGRESS_TOKEN_PATH),
                        "audience": PROGRESS_AUDIENCE,
                        "expirationSeconds": TOKEN_SECONDS,
                    }
                }
            ]
        }
    }
    return [
        _volume("config", config, posixpath.dirname(CONFIG_PATH), readOnly=True),
        _volume("progress-token", token, posixpath.dirname(PROGRESS_TOKEN_PATH), readOnly=True),
        _volume("work", {"emptyDir": {}}, WORK_DIR),
        _volume("tmp", {"emptyDir": {}}, "/tmp"),  # noqa: S108 - the pod's own emptyDir
        _volume("shared-memory", {"emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}, "/dev/shm"),  # noqa: S108
    ]


def _claims(config: RunConfig) -> Iterator[Volume]:
    """Persistent volume claims, read-only but where the run has to write.

    A claim is one volume however many roles it has: the kubelet mounts it once for a pod, and were it in there twice,
    once read-only, chance would decide whether the run can write.
    """
    claims: dict[str, dict[LocationRole, PersistentVolumeClaimLocation]] = defaultdict(dict)
    for role, location in config.locations().items():
        if claim := location.persistent_volume_claim:
            claims[claim.claim_name][role] = claim
    for claim_name, roles in claims.items():
        name = next(iter(roles)).value
        source = {"claimName": claim_name} | ({} if roles.keys() & _WRITTEN else {"readOnly": True})
        mounts = tuple(_claim_mount(name, role, claim) for role, claim in roles.items())
        yield Volume({"name": name, "persistentVolumeClaim": source}, mounts)


def _claim_mount(volume: str, role: LocationRole, claim: PersistentVolumeClaimLocation) -> Manifest:
    mount: Manifest = {"name": volume, "mountPath": mount_path(role)}
    if claim.path:
        mount["subPath"] = claim.path
    if role not in _WRITTEN:
        mount["readOnly"] = True
    return mount


def _authorities(config: RunConfig) -> Iterator[Volume]:
    """Certificates of S3 endpoints with authorities of their own."""
    for role, location in config.locations().items():
        if location.s3 and location.s3.ca_config_map:
            source = {"configMap": {"name": location.s3.ca_config_map, "items": [{"key": CA_KEY, "path": CA_KEY}]}}
            yield _volume(f"{role.value}-ca", source, posixpath.join(CA_DIR, role.value), readOnly=True)


def _node_cache(config: RunConfig, namespace: str, settings: PodSettings) -> Iterator[Volume]:
    """The node's cache folder, a part of it for each namespace: what one tenant cached, no other can read or forge."""
    cache = config.spec.images.cache
    if settings.node_cache and cache and cache.node is not None:
        host_path = {"hostPath": {"path": settings.node_cache, "type": "Directory"}}
        yield _volume("node-cache", host_path, NODE_CACHE_PATH, subPath=namespace)
