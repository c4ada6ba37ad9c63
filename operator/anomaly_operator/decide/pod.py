"""The pod of a run, made from its RunConfig and allowed under the *restricted* Pod Security Standard.

The RunConfig travels as an annotation that the kubelet writes to ``run.CONFIG_PATH`` (a downwardAPI volume), not as
a ConfigMap: it is one object less to write, watch, own and keep consistent with the Job, and it cannot change
under a running pod. Annotations may take 256 KiB together; a RunConfig takes 1 to 3,
and that of a sweep's last step as much more as the sweep's status.
"""

from collections.abc import Iterator

from anomaly_api.inference import InferenceSpec
from anomaly_api.run import (
    MLFLOW_SECRET_KEYS,
    PROGRESS_PATH,
    PROGRESS_URL_ENV,
    S3_SECRET_KEYS,
    RunConfig,
    registry_env,
    s3_env,
)
from anomaly_api.scheduling import PodTemplate, Scheduling
from anomaly_operator import names
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.steps import Step
from anomaly_operator.decide.volumes import pod_volumes
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import Manifest

USER = 65532
"""UID and GID that the images run as (nonroot, as in distroless)."""
GRACE_SECONDS = 60
"""Seconds between SIGTERM and SIGKILL, in which the runner saves its state and writes its summary."""


def pod_template(key: RunKey, step: Step, settings: PodSettings) -> Manifest:
    """Make the Job's pod template. What the operator sets wins over the resource's own labels and annotations."""
    overlay = step.scheduling.pod_template or PodTemplate()
    return {
        "metadata": {
            "labels": (overlay.labels or {}) | names.labels(key, step.config.run.number, step.label),
            "annotations": (overlay.annotations or {}) | {names.CONFIG_ANNOTATION: config_json(step.config)},
        },
        "spec": _pod_spec(key, step.config, step.scheduling, overlay, settings),
    }


def config_json(config: RunConfig) -> str:
    """Serialize the RunConfig as the pod reads it."""
    return config.model_dump_json(by_alias=True, exclude_none=True)


def _pod_spec(
    key: RunKey, config: RunConfig, scheduling: Scheduling, overlay: PodTemplate, settings: PodSettings
) -> Manifest:
    volumes = pod_volumes(config, key.namespace, settings)
    mounts = [mount for volume in volumes for mount in volume.mounts]
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(config, scheduling, overlay, settings) | {"volumeMounts": mounts}],
        "volumes": [volume.source for volume in volumes],
        "serviceAccountName": scheduling.service_account_name,
        "nodeSelector": scheduling.node_selector,
        "tolerations": [toleration.to_json_object() for toleration in scheduling.tolerations or ()],
        "affinity": scheduling.affinity,
        "priorityClassName": scheduling.priority_class_name,
        "runtimeClassName": scheduling.runtime_class_name,
        "resourceClaims": [claim.to_json_object() for claim in scheduling.resource_claims or ()],
        "imagePullSecrets": [{"name": name} for name in overlay.image_pull_secrets or ()],
    }
    return {field: value for field, value in spec.items() if value is not None and value != []}


def _container(config: RunConfig, scheduling: Scheduling, overlay: PodTemplate, settings: PodSettings) -> Manifest:
    return {
        "name": names.CONTAINER,
        "image": scheduling.image or _default_image(config, settings),
        "imagePullPolicy": settings.image_pull_policy,
        "args": ["pod"],
        "env": _environment(config, overlay, settings),
        "resources": _resources(scheduling),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "File",
    }


def _default_image(config: RunConfig, settings: PodSettings) -> str:
    """Return the operator's image for the run: inference with ONNX uses the one without torch."""
    onnx = isinstance(config.spec, InferenceSpec) and config.spec.runtime == "onnx"
    return settings.inference_image if onnx else settings.runner_image


def _resources(scheduling: Scheduling) -> Manifest:
    requests = dict(scheduling.resources.requests or {})
    limits = dict(scheduling.resources.limits or {})
    if scheduling.gpus.count:
        limits[scheduling.gpus.resource_name] = str(scheduling.gpus.count)
    resources: Manifest = {"requests": requests, "limits": limits}
    resources["claims"] = [{"name": claim.name} for claim in scheduling.resource_claims or ()]
    return {field: value for field, value in resources.items() if value}


def _environment(config: RunConfig, overlay: PodTemplate, settings: PodSettings) -> list[Manifest]:
    variables = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108 - the pod's own emptyDir
    if settings.service_url:
        variables.append({"name": PROGRESS_URL_ENV, "value": settings.service_url.rstrip("/") + PROGRESS_PATH})
    variables += _credentials(config)
    # The resource may add variables, not replace the operator's.
    taken = {variable["name"] for variable in variables}
    added = [{"name": extra.name, "value": extra.value} for extra in overlay.env or () if extra.name not in taken]
    return variables + added


def _credentials(config: RunConfig) -> list[Manifest]:
    """Return environment variables from Secrets: one set per location, because accounts may differ."""
    variables = []
    for role, location in config.locations().items():
        secret = location.s3.credentials_secret if location.s3 else None
        if secret:
            variables += [
                _from_secret(s3_env(role, key), secret, key, optional=not required)
                for key, required in S3_SECRET_KEYS.items()
            ]
    return [*variables, *_mlflow_credentials(config)]


def _mlflow_credentials(config: RunConfig) -> Iterator[Manifest]:
    """Yield the tracking server's credentials under MLflow's own names, the model registry's under ``registry_env``."""
    tracking = config.spec.tracking.mlflow
    registered = config.spec.model.mlflow if isinstance(config.spec, InferenceSpec) else None
    for key in MLFLOW_SECRET_KEYS:
        if tracking and tracking.credentials_secret:
            yield _from_secret(key, tracking.credentials_secret, key, optional=True)
    for key in MLFLOW_SECRET_KEYS:
        if registered and registered.credentials_secret:
            yield _from_secret(registry_env(key), registered.credentials_secret, key, optional=True)


def _from_secret(variable: str, secret: str, key: str, *, optional: bool) -> Manifest:
    reference: Manifest = {"name": secret, "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}
