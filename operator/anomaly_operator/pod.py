"""The pod of a run, from its RunConfig: pure, and allowed under the *restricted* Pod Security Standard.

The RunConfig travels as an annotation that the kubelet writes to ``run.CONFIG_PATH`` (a downwardAPI volume), not as
a ConfigMap: it is one object less to write, to watch, to own and to keep in step with the Job, and it cannot change
under a running pod. Annotations may take 256 KiB together; a RunConfig takes 1 to 3.
"""

import posixpath
from collections.abc import Iterable
from typing import Any

from anomaly_api.artifacts import MlflowTracking
from anomaly_api.run import (
    CONFIG_PATH,
    MLFLOW_SECRET_KEYS,
    PROGRESS_AUDIENCE,
    PROGRESS_PATH,
    PROGRESS_TOKEN_PATH,
    PROGRESS_URL_ENV,
    S3_SECRET_KEYS,
    WORK_DIR,
    RunConfig,
    mount_path,
    s3_env,
)
from anomaly_api.scheduling import PodTemplate, Scheduling
from anomaly_api.storage import Location, LocationRole
from anomaly_operator import names
from anomaly_operator.keys import RunKey
from anomaly_operator.settings import PodSettings

Manifest = dict[str, Any]

USER = 65532
"""The user of the images (nonroot, as in distroless)."""
GRACE_SECONDS = 60
"""Between SIGTERM and SIGKILL: time to save state and say goodbye."""
SHARED_MEMORY = "1Gi"
"""Upper bound of /dev/shm, which libraries use between processes; it counts as the pod's memory only when used."""
TOKEN_SECONDS = 3600


def pod_template(key: RunKey, config: RunConfig, settings: PodSettings) -> Manifest:
    """The Job's pod template."""
    scheduling = scheduling_of(config)
    overlay = scheduling.pod_template or PodTemplate()
    return {
        "metadata": {
            "labels": (overlay.labels or {}) | names.labels(key),
            "annotations": (overlay.annotations or {}) | {names.CONFIG_ANNOTATION: config_json(config)},
        },
        "spec": _pod_spec(config, scheduling, overlay, settings),
    }


def scheduling_of(config: RunConfig) -> Scheduling:
    """Where and how the pod runs."""
    spec = config.experiment or config.inference
    assert spec is not None
    return spec.scheduling


def config_json(config: RunConfig) -> str:
    """The RunConfig as the pod reads it."""
    return config.model_dump_json(by_alias=True, exclude_none=True)


def _pod_spec(config: RunConfig, scheduling: Scheduling, overlay: PodTemplate, settings: PodSettings) -> Manifest:
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(config, scheduling, overlay, settings)],
        "volumes": _volumes(config),
        "serviceAccountName": scheduling.service_account_name,
        "nodeSelector": scheduling.node_selector,
        "tolerations": [found.to_json_object() for found in scheduling.tolerations or ()],
        "affinity": scheduling.affinity,
        "priorityClassName": scheduling.priority_class_name,
        "runtimeClassName": scheduling.runtime_class_name,
        "resourceClaims": [found.to_json_object() for found in scheduling.resource_claims or ()],
        "imagePullSecrets": [{"name": name} for name in overlay.image_pull_secrets or ()],
    }  # fmt: skip
    return {field: value for field, value in spec.items() if value is not None and value != []}


def _container(config: RunConfig, scheduling: Scheduling, overlay: PodTemplate, settings: PodSettings) -> Manifest:
    default = settings.runner_image if config.experiment else settings.inference_image
    return {
        "name": names.CONTAINER,
        "image": scheduling.image or default,
        "imagePullPolicy": settings.image_pull_policy,
        "args": ["pod"],
        "env": _environment(config, overlay, settings),
        "resources": _resources(scheduling),
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "File",
        "volumeMounts": _mounts(config),
    }  # fmt: skip


def _resources(scheduling: Scheduling) -> Manifest:
    requests = dict(scheduling.resources.requests or {})
    limits = dict(scheduling.resources.limits or {})
    if scheduling.gpus.count:
        limits[scheduling.gpus.resource_name] = str(scheduling.gpus.count)
    resources: Manifest = {"requests": requests, "limits": limits}
    resources["claims"] = [{"name": claim.name} for claim in scheduling.resource_claims or ()]
    return {field: value for field, value in resources.items() if value}


def _environment(config: RunConfig, overlay: PodTemplate, settings: PodSettings) -> list[Manifest]:
    ours = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108 - the pod's own emptyDir
    if settings.service_url:
        ours.append({"name": PROGRESS_URL_ENV, "value": settings.service_url.rstrip("/") + PROGRESS_PATH})
    ours += _credentials(config)
    taken = {variable["name"] for variable in ours}
    extra = [{"name": found.name, "value": found.value} for found in overlay.env or () if found.name not in taken]
    return ours + extra


def _credentials(config: RunConfig) -> list[Manifest]:
    """Secrets as environment variables, one set a location: they may be different accounts."""
    found = []
    for role, location in config.locations().items():
        secret = location.s3.credentials_secret if location.s3 else None
        if secret:
            found += [
                _from_secret(s3_env(role, key), secret, key, optional=not needed)
                for key, needed in S3_SECRET_KEYS.items()
            ]
    mlflow = _mlflow(config)
    if mlflow and mlflow.credentials_secret:
        found += [_from_secret(key, mlflow.credentials_secret, key, optional=True) for key in MLFLOW_SECRET_KEYS]
    return found


def _mlflow(config: RunConfig) -> MlflowTracking | None:
    spec = config.experiment or config.inference
    assert spec is not None
    return spec.tracking.mlflow


def _from_secret(variable: str, secret: str, key: str, *, optional: bool) -> Manifest:
    reference: Manifest = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def _claims(config: RunConfig) -> Iterable[tuple[LocationRole, Location]]:
    return ((role, where) for role, where in config.locations().items() if where.persistent_volume_claim)


def _volumes(config: RunConfig) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "config", "downwardAPI": {"items": [{
            "path": posixpath.basename(CONFIG_PATH),
            "fieldRef": {"fieldPath": f"metadata.annotations['{names.CONFIG_ANNOTATION}']"},
        }]}},
        {"name": "progress-token", "projected": {"sources": [{"serviceAccountToken": {
            "path": posixpath.basename(PROGRESS_TOKEN_PATH), "audience": PROGRESS_AUDIENCE,
            "expirationSeconds": TOKEN_SECONDS,
        }}]}},
        {"name": "work", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
    ]  # fmt: skip
    for role, location in _claims(config):
        claim = location.persistent_volume_claim
        assert claim is not None
        source = {"claimName": claim.claim_name} | ({} if role is LocationRole.OUTPUT else {"readOnly": True})
        volumes.append({"name": role.value, "persistentVolumeClaim": source})
    return volumes


def _mounts(config: RunConfig) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "config", "mountPath": posixpath.dirname(CONFIG_PATH), "readOnly": True},
        {"name": "progress-token", "mountPath": posixpath.dirname(PROGRESS_TOKEN_PATH), "readOnly": True},
        {"name": "work", "mountPath": WORK_DIR},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    for role, location in _claims(config):
        claim = location.persistent_volume_claim
        assert claim is not None
        mount: Manifest = {"name": role.value, "mountPath": mount_path(role)}
        if claim.path:
            mount["subPath"] = claim.path
        if role is not LocationRole.OUTPUT:
            mount["readOnly"] = True
        mounts.append(mount)
    return mounts
