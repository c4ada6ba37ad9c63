"""The desired state of a run: the Job of the step at work, or why there cannot be one yet.

Depends only on the resource, on what its status records of earlier steps, and on the experiment that an inference
names; never on the Job that exists.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from pydantic import ValidationError

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.reasons import Reason
from anomaly_api.resource import describe_invalid
from anomaly_api.run import RunConfig, RunIdentity, SweepResult
from anomaly_api.scheduling import RunPolicy
from anomaly_api.status import PastRun, Phase, RunStatus, StepName, TrainedBy
from anomaly_api.storage import Location, S3Location
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_check import check_sweep, describe_faults
from anomaly_operator import names
from anomaly_operator.decide.job import config_digest, make_job
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.runs import (
    complete_run,
    is_finished,
    last_complete,
    limits_digest,
    recorded_search,
    search_of,
)
from anomaly_operator.decide.specs import experiment_spec
from anomaly_operator.decide.steps import make_step, next_step, run_number, run_steps, search_failure, seconds_left
from anomaly_operator.decide.sweep_end import sweep_end
from anomaly_operator.resources import Manifest
from anomaly_operator.views import RunView

NO_JOB = ""
"""Name of the Job of a step that has none."""


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
    """Whether a person has to act (kstatus: Stalled); otherwise the run continues without help, unless it is final."""
    policy: RunPolicy | None = None
    """The run policy, for a Job that exists nevertheless; None if the spec is not valid."""
    final: bool = False
    """Whether nobody can help, so that the run has failed."""


@dataclass(frozen=True, kw_only=True)
class DesiredSearch:
    """The trials of a sweep should be at work; which ones, the search says."""

    spec: ExperimentSpec
    """The experiment, with its sweep."""
    search: str
    """Which search it is: trials of another one do not count."""
    limits: str
    """Digest of the limits as they are now."""
    earlier: tuple[dict[str, Any], ...] = ()
    """Points of an earlier sweep that are tried first."""

    @property
    def policy(self) -> RunPolicy:
        """The run policy."""
        return self.spec.run_policy

    @property
    def sweep(self) -> Sweep:
        """The sweep of the spec, which always has one."""
        assert self.spec.sweep is not None
        return self.spec.sweep


DesiredState = DesiredJob | DesiredSearch | Blocked


def desired_state(run: RunView, status: RunStatus, experiment: RunView | None, settings: PodSettings) -> DesiredState:
    """Decide what should exist for a run.

    Args:
        run: the resource.
        status: what is recorded of this run.
        experiment: the experiment whose model the run uses, or with whose best points its sweep begins; None if it
            names none, or one that does not exist.
        settings: what the operator itself adds to every pod.
    """
    try:
        if run.key.kind == "AnomalyExperiment":
            return _experiment_job(run, status, experiment, settings)
        return _inference_job(run, status, experiment, settings)
    except ValidationError as error:
        return Blocked(Reason.SPEC_INVALID, describe_invalid(error), stalled=True)


def desired_name(run: RunView, status: RunStatus, desired: DesiredState) -> str:
    """Return the name of the Job at work, which may exist although there should be none now."""
    if isinstance(desired, DesiredJob):
        return desired.name
    if isinstance(desired, DesiredSearch):
        return NO_JOB
    return status.job_name or names.job(run.key, run_number(status))


def _experiment_job(run: RunView, status: RunStatus, earlier: RunView | None, settings: PodSettings) -> DesiredState:
    spec = experiment_spec(run.spec)
    if spec.trial and spec.trial.problem:
        return Blocked(Reason.INVALID_CONFIG, spec.trial.problem, final=True)
    step = next_step(run_steps(spec, status), run.key, status)
    if spec.sweep is None:
        config = _config(run, status, experiment=spec)
        return _desired_job(run, status, step, config, policy=spec.run_policy, settings=settings)
    if blocked := _blocked_sweep(run, status, spec):
        return blocked
    if step == "search":
        return _search(run, status, spec, spec.sweep, earlier)
    config = _config(run, status, experiment=sweep_end(spec, status))
    if step != "check" and status.sweep:
        result = SweepResult(spec=spec.sweep, status=status.sweep, failure=search_failure(status))
        config = config.model_copy(update={"sweep": result})
    return _desired_job(run, status, step, config, policy=_policy_of_end(spec, status), settings=settings)


def _policy_of_end(spec: ExperimentSpec, status: RunStatus) -> RunPolicy:
    """Return how the Job after a search is run: what tells of a failure is not suspended, as the run would not end."""
    if search_failure(status) is None:
        return spec.run_policy
    return spec.run_policy.model_copy(update={"suspend": False})


def _search(
    run: RunView, status: RunStatus, spec: ExperimentSpec, sweep: Sweep, earlier: RunView | None
) -> DesiredSearch | Blocked:
    """Return the search, once the points of an earlier sweep are known that it begins with.

    Those that it began with are recorded, and none are looked for again.
    """
    points: tuple[dict[str, Any], ...] = ()
    search = search_of(run, status)
    known = recorded_search(status, search)
    has_begun = known is not None and known.earlier is not None
    if not has_begun and sweep.start and (source := sweep.start.from_experiment):
        try:
            found = RunStatus.model_validate_json(earlier.status) if earlier else None
        except ValidationError as error:
            return _unreadable(source.name, "status", error, spec.run_policy)
        if found is None or found.sweep is None or not is_finished(found):
            why = f"the sweep of AnomalyExperiment {source.name} is not over, or there is none; the search waits for it"
            return Blocked(Reason.WAITING_FOR_EXPERIMENT, why, policy=spec.run_policy)
        points = tuple(dict(best.values) for best in found.sweep.best[: source.top] if best.values)
    return DesiredSearch(spec=spec, search=search, limits=limits_digest(sweep), earlier=points)


def _blocked_sweep(run: RunView, status: RunStatus, spec: ExperimentSpec) -> Blocked | None:
    """Return why the sweep cannot begin, or go on; None if nothing is in the way."""
    if problem := sweep_problem(run.spec):
        return Blocked(Reason.SPEC_INVALID, problem, stalled=True)
    begun = status.sweep.search if status.sweep and status.sweep.asked else None
    if begun and begun != search_of(run, status) and not is_finished(status):
        message = (
            "spec.sweep was changed while the search is at work: put it back, or suspend the run, which starts it over "
            "when it is resumed; trials, budget and targets may change at any time"
        )
        return Blocked(Reason.SPEC_INVALID, message, stalled=True, policy=spec.run_policy)
    return None


@lru_cache(maxsize=256)
def sweep_problem(spec: bytes) -> str | None:
    """Return what cannot work in a spec's sweep, whatever the search does; looked at once for each spec."""
    try:
        faults = check_sweep(experiment_spec(spec))
    except ValidationError as error:
        return describe_invalid(error)
    return describe_faults(faults) if faults else None


def _config(run: RunView, status: RunStatus, *, experiment: ExperimentSpec) -> RunConfig:
    # The run policy may change while the run is at work, so the pod's configuration leaves it out.
    told = experiment.model_copy(update={"run_policy": RunPolicy()})
    return RunConfig(run=_identity(run, run_number(status)), experiment=told)


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
    step = next_step(run_steps(spec, status), run.key, status)
    return replace(
        _desired_job(run, status, step, config, policy=spec.run_policy, settings=settings), trained_by=trained_by
    )


def _desired_job(
    run: RunView, status: RunStatus, step: StepName, config: RunConfig, *, policy: RunPolicy, settings: PodSettings
) -> DesiredJob:
    made = make_step(step, config, status)
    return DesiredJob(
        name=names.job(run.key, run_number(status), made.label),
        policy=policy,
        config_digest=config_digest(made.config),
        installation=settings.installation,
        make=partial(make_job, run.key, made, policy, seconds_left(policy, status), settings),
    )


def _trained_model(
    name: str, experiment: RunView | None, status: RunStatus, policy: RunPolicy
) -> tuple[Location, TrainedBy] | Blocked:
    """Return where the experiment's model is and which run trained it, or why there is none yet."""
    if experiment is None:
        message = f"there is no AnomalyExperiment {name} in this namespace; the run starts once it is Complete"
        return Blocked(Reason.EXPERIMENT_NOT_FOUND, message, policy=policy)
    try:
        trained = RunStatus.model_validate_json(experiment.status)
    except ValidationError as error:
        return _unreadable(name, "status", error, policy)
    chosen = _chosen_run(experiment, trained, status)
    if chosen and chosen.artifacts and chosen.artifacts.root:
        return _model_of(experiment, chosen.run, chosen.artifacts.root, policy)
    if trained.phase is Phase.FAILED:
        message = f"AnomalyExperiment {name} failed; repair its spec and apply it, the run starts once it is Complete"
        return Blocked(Reason.EXPERIMENT_FAILED, message, stalled=True, policy=policy)
    if trained.phase is Phase.COMPLETE:
        message = (
            f"AnomalyExperiment {name} is Complete without a model, such as a trial that was pruned: name another one"
        )
        return Blocked(Reason.WAITING_FOR_EXPERIMENT, message, stalled=True, policy=policy)
    message = f"AnomalyExperiment {name} is {trained.phase}; the run starts once it is Complete"
    return Blocked(Reason.WAITING_FOR_EXPERIMENT, message, policy=policy)


def _model_of(experiment: RunView, number: int, root: str, policy: RunPolicy) -> tuple[Location, TrainedBy] | Blocked:
    key = experiment.key
    trained_by = TrainedBy(namespace=key.namespace, name=key.name, uid=experiment.uid, run=number)
    try:
        return model_location(experiment, number, root), trained_by
    except ValidationError as error:
        return _unreadable(key.name, "spec", error, policy)


def _unreadable(name: str, part: str, error: ValidationError, policy: RunPolicy) -> Blocked:
    """Return that a run waits for an experiment which this release cannot read: nothing is wrong with the run."""
    why = describe_invalid(error, part)
    message = f"the {part} of AnomalyExperiment {name} cannot be read by this release of the operator: {why}"
    return Blocked(Reason.WAITING_FOR_EXPERIMENT, message, stalled=True, policy=policy)


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
    place = experiment_spec(experiment.spec).output.place
    if isinstance(place, S3Location):
        return Location(s3=S3Location(**(dict(place) | {"uri": root})))
    folder = _identity(experiment, number if number > 1 else None).folder
    path = f"{place.path}/{folder}" if place.path else folder
    return Location(persistent_volume_claim=place.model_copy(update={"path": path}))


def _identity(run: RunView, number: int | None) -> RunIdentity:
    return RunIdentity(kind=run.key.kind, namespace=run.key.namespace, name=run.key.name, uid=run.uid, number=number)
