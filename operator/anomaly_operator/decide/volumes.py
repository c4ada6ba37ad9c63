"""The volumes of a run's pod with their mounts: scratch space, configuration, and the data that the run may access."""

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

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
from anomaly_operator.resources import Manifest

SHARED_MEMORY = "1Gi"
"""Upper bound of /dev/shm, shared memory between processes; it counts as the pod's memory only when used."""
TOKEN_SECONDS = 3600
"""Lifetime of the token for progress, seconds; the kubelet renews it before it expires."""
_WRITTEN = {LocationRole.OUTPUT, LocationRole.CACHE}
"""Locations that the run writes; all others are mounted read-only."""


@dataclass(frozen=True)
class Volume:
    """A volume of the pod (``source``) and its mounts in the runner container."""

    source: Manifest
    mounts: tuple[Manifest, ...]


def pod_volumes(config: RunConfig, namespace: str, settings: PodSettings) -> list[Volume]:
    """Return every volume that the pod mounts."""
    return [*_common(), *_claims(config), *_certificates(config), *_node_cache(config, namespace, settings)]


def _volume(name: str, source: Manifest, path: str, **mount: bool | str) -> Volume:
    return Volume({"name": name} | source, ({"name": name, "mountPath": path} | mount,))


def _common() -> list[Volume]:
    """Return the volumes of every pod: its configuration, its token for progress, and scratch space."""
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
    """Yield the persistent volume claims, read-only except where the run has to write.

    A claim is one volume, however many roles it has. The kubelet mounts a claim once per pod: if it were listed twice,
    once read-only, it would be chance whether the run can write.
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


def _certificates(config: RunConfig) -> Iterator[Volume]:
    """Yield the CA certificates of S3 endpoints with a private certificate authority."""
    for role, location in config.locations().items():
        if location.s3 and location.s3.ca_config_map:
            source = {"configMap": {"name": location.s3.ca_config_map, "items": [{"key": CA_KEY, "path": CA_KEY}]}}
            yield _volume(f"{role.value}-ca", source, posixpath.join(CA_DIR, role.value), readOnly=True)


def _node_cache(config: RunConfig, namespace: str, settings: PodSettings) -> Iterator[Volume]:
    """Yield the node's cache folder, of which each namespace mounts its own subfolder.

    No tenant can read or forge what another one cached.
    """
    cache = config.spec.images.cache
    if settings.node_cache and cache and cache.node is not None:
        host_path = {"hostPath": {"path": settings.node_cache, "type": "Directory"}}
        yield _volume("node-cache", host_path, NODE_CACHE_PATH, subPath=namespace)
