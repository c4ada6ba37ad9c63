"""From a resource to the Job that it wants, or to why there can be none yet. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.reasons import Reason
from anomaly_api.resource import describe_invalid
from anomaly_api.run import RunConfig, RunIdentity
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import Phase, RunStatus
from anomaly_api.storage import Location, S3Location
from anomaly_operator.decide.job import config_digest, make_job
from anomaly_operator.decide.pod import Manifest
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.views import RunView


@dataclass(frozen=True)
class Wanted:
    """The run can go: its Job."""

    policy: RunPolicy
    digest: str
    """Of what the run does; another one than the Job's means another Job."""
    job: Callable[[], Manifest]
    """Makes the Job. Most reconciles find theirs and need no new one."""


@dataclass(frozen=True)
class Blocked:
    """The run cannot go yet."""

    reason: Reason
    message: str
    stalled: bool = False
    """Whether somebody has to do something (kstatus: Stalled)."""
    policy: RunPolicy | None = None


Desired = Wanted | Blocked


def desired(run: RunView, experiment: RunView | None, settings: PodSettings) -> Desired:
    """What should exist for ``run``; ``experiment`` is the one that it names, if it names one that exists."""
    try:
        if run.key.kind == "AnomalyExperiment":
            return _experiment(run, settings)
        return _inference(run, experiment, settings)
    except ValidationError as error:
        return Blocked(Reason.SPEC_INVALID, describe_invalid(error)[:1024], stalled=True)


def _experiment(run: RunView, settings: PodSettings) -> Desired:
    spec = ExperimentSpec.model_validate_json(run.spec)
    config = RunConfig(run=_identity(run), experiment=spec.model_copy(update={"run_policy": RunPolicy()}))
    return _wanted(run, config, spec.run_policy, settings)


def _inference(run: RunView, experiment: RunView | None, settings: PodSettings) -> Desired:
    spec = InferenceSpec.model_validate_json(run.spec)
    name = spec.model.experiment
    if name is None:
        model = spec.model
    else:
        found = _trained_model(name, experiment, spec.run_policy)
        if isinstance(found, Blocked):
            return found
        model = spec.model.model_copy(update={"experiment": None, "location": found})
    resolved = spec.model_copy(update={"model": model, "run_policy": RunPolicy()})
    return _wanted(run, RunConfig(run=_identity(run), inference=resolved), spec.run_policy, settings)


def _wanted(run: RunView, config: RunConfig, policy: RunPolicy, settings: PodSettings) -> Wanted:
    return Wanted(policy, config_digest(config), partial(make_job, run.key, config, policy, settings))


def _trained_model(name: str, experiment: RunView | None, policy: RunPolicy) -> Location | Blocked:
    if experiment is None:
        message = f"there is no AnomalyExperiment {name} in this namespace; the run starts once it is Complete"
        return Blocked(Reason.EXPERIMENT_NOT_FOUND, message, policy=policy)
    status = RunStatus.model_validate_json(experiment.status)
    if status.phase is Phase.FAILED:
        message = f"AnomalyExperiment {name} failed; delete it and apply it again, the run starts once it is Complete"
        return Blocked(Reason.EXPERIMENT_FAILED, message, stalled=True, policy=policy)
    if status.phase is not Phase.COMPLETE or status.artifacts is None or status.artifacts.root is None:
        message = f"AnomalyExperiment {name} is {status.phase}; the run starts once it is Complete"
        return Blocked(Reason.WAITING_FOR_EXPERIMENT, message, policy=policy)
    return model_location(experiment, status.artifacts.root)


def model_location(experiment: RunView, root: str) -> Location:
    """Folder of an experiment's model: where its artifacts are, read as its output was written."""
    place = ExperimentSpec.model_validate_json(experiment.spec).output.place
    if isinstance(place, S3Location):
        return Location(s3=S3Location(**(dict(place) | {"uri": root})))
    folder = _identity(experiment).folder
    path = f"{place.path}/{folder}" if place.path else folder
    return Location(persistent_volume_claim=place.model_copy(update={"path": path}))


def _identity(run: RunView) -> RunIdentity:
    return RunIdentity(kind=run.key.kind, namespace=run.key.namespace, name=run.key.name, uid=run.uid)
