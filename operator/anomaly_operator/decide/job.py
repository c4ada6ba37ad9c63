"""The Job of a run's step: owned by the run's resource, retried only where a second try can help.

Makes manifests; whether a Job is created, changed or deleted is decided by ``plan``.
"""

from anomaly_api import API_VERSION
from anomaly_api.reasons import FINAL_EXIT_CODES, ExitCode
from anomaly_api.run import RunConfig
from anomaly_api.scheduling import RunPolicy
from anomaly_operator import names
from anomaly_operator.decide.pod import config_json, pod_template
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.steps import Step
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import Manifest


def make_job(key: RunKey, step: Step, policy: RunPolicy, deadline: int | None, settings: PodSettings) -> Manifest:
    """Make the manifest with which the Job is created.

    It leaves ttlSecondsAfterFinished out: that is set once the result has been recorded in the resource's status, so
    that no Job is deleted before its result was read, even while the operator is down.

    Args:
        key: the run.
        step: what the Job does.
        policy: how the Job is retried and suspended.
        deadline: how long it may take, seconds; None for no limit.
        settings: what the operator itself adds to every pod.
    """
    config, queue = step.config, step.scheduling.queue_name
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job(key, config.run.number, step.label),
            "namespace": key.namespace,
            "labels": names.labels(key, config.run.number, step.label) | ({names.QUEUE_LABEL: queue} if queue else {}),
            "annotations": {
                names.CONFIG_DIGEST_ANNOTATION: config_digest(config),
                names.INSTALLATION_ANNOTATION: settings.installation,
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": key.kind,
                    "name": key.name,
                    "uid": config.run.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            "backoffLimit": policy.backoff_limit,
            "suspend": policy.suspend or queue is not None,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": failure_policy(),
            "template": pod_template(key, step, settings),
        }
        | ({} if deadline is None else {"activeDeadlineSeconds": deadline}),
    }


def config_digest(config: RunConfig) -> str:
    """Return a digest that changes when, and only when, the run would do something else."""
    return names.digest(config_json(config))


def failure_policy() -> Manifest:
    """Return the podFailurePolicy, whose first matching rule applies.

    Preemption and a requested stop are no failures of the run; an exit code that a retry cannot fix ends the run;
    every other failure counts towards the backoff limit.
    """
    final_codes = sorted(int(code) for code in FINAL_EXIT_CODES)
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": _exit_codes(*final_codes)},
            {"action": "Ignore", "onExitCodes": _exit_codes(int(ExitCode.STOPPED))},
        ]
    }


def _exit_codes(*codes: int) -> Manifest:
    return {"containerName": names.CONTAINER, "operator": "In", "values": list(codes)}
