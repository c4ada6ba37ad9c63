"""The desired state of a run: the Job that should exist for it, or why there cannot be one yet.

Depends only on the resource and on the experiment that an inference names; never on the Job that exists.
"""

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
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.resources import Manifest
from anomaly_operator.views import RunView


@dataclass(frozen=True)
class DesiredJob:
    """The Job that should exist for the run."""

    policy: RunPolicy
    config_digest: str
    """Digest of the RunConfig; a Job with another digest was made from another spec."""
    installation: str
    """The operator's own installation, which a Job names that it made."""
    make: Callable[[], Manifest]
    """Makes the Job's manifest. Most reconciles find the Job in place and never call it."""


@dataclass(frozen=True)
class Blocked:
    """There cannot be a Job yet."""

    reason: Reason
    message: str
    stalled: bool = False
    """Whether a person has to act (kstatus: Stalled); otherwise the run continues without help."""
    policy: RunPolicy | None = None
    """The run policy, for a Job that exists nevertheless; None if the spec is not valid."""


DesiredState = DesiredJob | Blocked


def desired_state(run: RunView, experiment: RunView | None, settings: PodSettings) -> DesiredState:
    """Decide what should exist for a run.

    Args:
        run: the resource.
        experiment: the experiment whose model the run uses; None if it names none, or one that does not exist.
        settings: what the operator itself adds to every pod.
    """
    try:
        if run.key.kind == "AnomalyExperiment":
            return _experiment_job(run, settings)
        return _inference_job(run, experiment, settings)
    except ValidationError as error:
        return Blocked(Reason.SPEC_INVALID, describe_invalid(error), stalled=True)


def _experiment_job(run: RunView, settings: PodSettings) -> DesiredJob:
    spec = ExperimentSpec.model_validate_json(run.spec)
    # The run policy may change while the run is at work, so the pod's configuration leaves it out.
    config = RunConfig(run=_identity(run), experiment=spec.model_copy(update={"run_policy": RunPolicy()}))
    return _desired_job(run, config, spec.run_policy, settings)


def _inference_job(run: RunView, experiment: RunView | None, settings: PodSettings) -> DesiredState:
    spec = InferenceSpec.model_validate_json(run.spec)
    model = spec.model
    # A pod cannot read other resources: a reference to an experiment becomes the location of its model.
    if model.experiment is not None:
        location = _trained_model(model.experiment, experiment, spec.run_policy)
        if isinstance(location, Blocked):
            return location
        model = model.model_copy(update={"experiment": None, "location": location})
    resolved = spec.model_copy(update={"model": model, "run_policy": RunPolicy()})
    return _desired_job(run, RunConfig(run=_identity(run), inference=resolved), spec.run_policy, settings)


def _desired_job(run: RunView, config: RunConfig, policy: RunPolicy, settings: PodSettings) -> DesiredJob:
    make = partial(make_job, run.key, config, policy, settings)
    return DesiredJob(policy, config_digest(config), settings.installation, make)


def _trained_model(name: str, experiment: RunView | None, policy: RunPolicy) -> Location | Blocked:
    """Return where the experiment's model is, or why there is none yet."""
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
    """Return the folder of an experiment's model, read with the credentials that its output was written with.

    Args:
        experiment: a complete experiment.
        root: status.artifacts.root of it.

    Raises:
        ValidationError: the experiment's spec is not valid.
    """
    place = ExperimentSpec.model_validate_json(experiment.spec).output.place
    if isinstance(place, S3Location):
        return Location(s3=S3Location(**(dict(place) | {"uri": root})))
    folder = _identity(experiment).folder
    path = f"{place.path}/{folder}" if place.path else folder
    return Location(persistent_volume_claim=place.model_copy(update={"path": path}))


def _identity(run: RunView) -> RunIdentity:
    return RunIdentity(kind=run.key.kind, namespace=run.key.namespace, name=run.key.name, uid=run.uid)
