"""The desired state of a run: the Job of the step at work, or why there cannot be one yet.

Depends only on the resource, on what its status records of earlier steps, and on the experiment that an inference
names; never on the Job that exists.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from pydantic import ValidationError

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.reasons import Reason
from anomaly_api.resource import describe_invalid
from anomaly_api.run import RunConfig, RunIdentity
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import PastRun, Phase, RunStatus, TrainedBy
from anomaly_api.storage import Location, S3Location
from anomaly_operator import names
from anomaly_operator.decide.job import config_digest, make_job
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.runs import complete_run, last_complete
from anomaly_operator.decide.steps import make_step, next_step, run_number, run_steps, seconds_left
from anomaly_operator.resources import Manifest
from anomaly_operator.views import RunView


@dataclass(frozen=True, kw_only=True)
class DesiredJob:
    """The Job that should exist for the run."""

    name: str
    """Its name."""
    policy: RunPolicy
    config_digest: str
    """Digest of the RunConfig; a Job with another digest was made from another spec."""
    installation: str
    """The operator's own installation, which a Job names that it made."""
    make: Callable[[], Manifest]
    """Makes the Job's manifest. Most reconciles find the Job in place and never call it."""
    trained_by: TrainedBy | None = None
    """The run of an experiment whose model it uses, if the resource names one."""


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


def desired_state(run: RunView, status: RunStatus, experiment: RunView | None, settings: PodSettings) -> DesiredState:
    """Decide what should exist for a run.

    Args:
        run: the resource.
        status: what is recorded of this run.
        experiment: the experiment whose model the run uses; None if it names none, or one that does not exist.
        settings: what the operator itself adds to every pod.
    """
    try:
        if run.key.kind == "AnomalyExperiment":
            return _experiment_job(run, status, settings)
        return _inference_job(run, status, experiment, settings)
    except ValidationError as error:
        return Blocked(Reason.SPEC_INVALID, describe_invalid(error), stalled=True)


def desired_name(run: RunView, status: RunStatus, desired: DesiredState) -> str:
    """Return the name of the Job at work, which may exist although there should be none now."""
    if isinstance(desired, DesiredJob):
        return desired.name
    return status.job_name or names.job(run.key, run_number(status))


def _experiment_job(run: RunView, status: RunStatus, settings: PodSettings) -> DesiredJob:
    spec = ExperimentSpec.model_validate_json(run.spec)
    # The run policy may change while the run is at work, so the pod's configuration leaves it out.
    config = RunConfig(
        run=_identity(run, run_number(status)), experiment=spec.model_copy(update={"run_policy": RunPolicy()})
    )
    return _desired_job(run, status, config, spec.run_policy, settings)


def _inference_job(run: RunView, status: RunStatus, experiment: RunView | None, settings: PodSettings) -> DesiredState:
    spec = InferenceSpec.model_validate_json(run.spec)
    model, trained_by = spec.model, None
    # A pod cannot read other resources: a reference to an experiment becomes the location of its model.
    if model.experiment is not None:
        found = _trained_model(model.experiment, experiment, status, spec.run_policy)
        if isinstance(found, Blocked):
            return found
        location, trained_by = found
        model = model.model_copy(update={"experiment": None, "location": location})
    resolved = spec.model_copy(update={"model": model, "run_policy": RunPolicy()})
    config = RunConfig(run=_identity(run, run_number(status)), inference=resolved)
    return replace(_desired_job(run, status, config, spec.run_policy, settings), trained_by=trained_by)


def _desired_job(
    run: RunView,
    status: RunStatus,
    config: RunConfig,
    policy: RunPolicy,
    settings: PodSettings,
) -> DesiredJob:
    steps = run_steps(config, policy)
    step = make_step(next_step(steps, run.key, status), steps, config, status)
    return DesiredJob(
        name=names.job(run.key, run_number(status), step.label),
        policy=policy,
        config_digest=config_digest(step.config),
        installation=settings.installation,
        make=partial(make_job, run.key, step, policy, seconds_left(policy, status), settings),
    )


def _trained_model(
    name: str, experiment: RunView | None, status: RunStatus, policy: RunPolicy
) -> tuple[Location, TrainedBy] | Blocked:
    """Return where the experiment's model is and which run trained it, or why there is none yet."""
    if experiment is None:
        message = f"there is no AnomalyExperiment {name} in this namespace; the run starts once it is Complete"
        return Blocked(Reason.EXPERIMENT_NOT_FOUND, message, policy=policy)
    trained = RunStatus.model_validate_json(experiment.status)
    chosen = _chosen_run(experiment, trained, status)
    if chosen and chosen.artifacts and chosen.artifacts.root:
        key = experiment.key
        trained_by = TrainedBy(namespace=key.namespace, name=key.name, uid=experiment.uid, run=chosen.run)
        return model_location(experiment, chosen.run, chosen.artifacts.root), trained_by
    if trained.phase is Phase.FAILED:
        message = f"AnomalyExperiment {name} failed; repair its spec and apply it, the run starts once it is Complete"
        return Blocked(Reason.EXPERIMENT_FAILED, message, stalled=True, policy=policy)
    message = f"AnomalyExperiment {name} is {trained.phase}; the run starts once it is Complete"
    return Blocked(Reason.WAITING_FOR_EXPERIMENT, message, policy=policy)


def _chosen_run(experiment: RunView, trained: RunStatus, status: RunStatus) -> PastRun | None:
    """Return the run of the experiment whose model is used: once a pod has begun with one, that one."""
    begun = status.trained_by if status.start_time else None
    if begun and begun.uid == experiment.uid and (kept := complete_run(trained, begun.run or 1)):
        return kept
    return last_complete(trained)


def model_location(experiment: RunView, number: int, root: str) -> Location:
    """Return the folder of an experiment's model, read with the credentials that its output was written with.

    Args:
        experiment: the experiment.
        number: which of its runs trained the model.
        root: the artifacts' root of that run.

    Raises:
        ValidationError: the experiment's spec is not valid.
    """
    place = ExperimentSpec.model_validate_json(experiment.spec).output.place
    if isinstance(place, S3Location):
        return Location(s3=S3Location(**(dict(place) | {"uri": root})))
    folder = _identity(experiment, number if number > 1 else None).folder
    path = f"{place.path}/{folder}" if place.path else folder
    return Location(persistent_volume_claim=place.model_copy(update={"path": path}))


def _identity(run: RunView, number: int | None) -> RunIdentity:
    return RunIdentity(kind=run.key.kind, namespace=run.key.namespace, name=run.key.name, uid=run.uid, number=number)
