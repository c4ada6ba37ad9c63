"""Every Job and every status that the operator renders, as files under tests/golden."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from anomaly_api.run import ProgressUpdate, RunSummary
from anomaly_api.status import RunStatus
from anomaly_operator.decide.desired import Blocked, DesiredJob, DesiredState, desired_state
from anomaly_operator.decide.observed import ObservedState, Refusal
from anomaly_operator.decide.pod_settings import PodSettings
from anomaly_operator.decide.runs import current_run
from anomaly_operator.decide.status import compute_status
from anomaly_operator.resources import Manifest
from anomaly_operator.views import RunView, event_view, job_view, pod_view
from support import golden, objects
from support.real_jobs import impossible_of_job, impossible_of_pods

SETTINGS = PodSettings(
    runner_image="registry/runner:1",
    inference_image="registry/inference:1",
    service_url="http://anomaly-operator.anomaly-system.svc:8080",
    node_cache="/var/cache/anomaly",
)
UNCHECKED = objects.with_spec(objects.EXPERIMENT, runPolicy={"preflight": "Never"})
JOBS = sorted((golden.ROOT / "jobs").glob("*.input.yaml"))
STATUSES = sorted((golden.ROOT / "statuses").glob("*.input.yaml"))
SAMPLES = sorted((golden.ROOT.parents[1] / "manifests" / "samples").glob("mnist-padim.yaml"))


def case_name(path: Path) -> str:
    return path.name.removesuffix(".input.yaml")


def load(path: Path) -> Manifest:
    loaded: Manifest = yaml.safe_load(path.read_text())
    return loaded


@pytest.mark.parametrize("path", JOBS, ids=case_name)
def test_job(path: Path, request: pytest.FixtureRequest) -> None:
    given = load(path)
    run = objects.make_run(given["resource"], generation=given.get("generation", 1))
    status = current_run(run, RunStatus.model_validate(given.get("recorded", {})))
    desired = desired_state(run, status, trained_experiment(given), SETTINGS)
    expected = path.with_name(f"{case_name(path)}.job.yaml")
    golden.check(expected, rendered(desired), update=request.config.getoption("--update-golden"))


def rendered(desired: DesiredState) -> Manifest:
    """Return the Job that is desired, or why there is none."""
    if isinstance(desired, DesiredJob):
        return desired.make()
    assert isinstance(desired, Blocked)
    return {"blocked": desired.reason.value, "message": desired.message, "stalled": desired.stalled}


@pytest.mark.parametrize("path", STATUSES, ids=case_name)
def test_status(path: Path, request: pytest.FixtureRequest) -> None:
    given = load(path)
    resource = given.get("resource", UNCHECKED)
    run = objects.make_run(resource, generation=given.get("generation", 1))
    recorded = current_run(run, RunStatus.model_validate(given.get("recorded", {})))
    desired = desired_state(run, recorded, trained_experiment(given), SETTINGS)
    job = raw_job(given["job"], desired) if "job" in given else None
    pods = raw_pods(given)
    if job:
        assert impossible_of_job(job) + impossible_of_pods(job, pods) == []
    observed = observed_state(given, job, pods)
    made = compute_status(run, recorded, desired, observed, datetime(2026, 1, 2, 3, 15, tzinfo=UTC))
    expected = path.with_name(f"{case_name(path)}.status.yaml")
    golden.check(expected, made.to_json_object(), update=request.config.getoption("--update-golden"))
    again = compute_status(run, made, desired, observed, datetime(2026, 1, 2, 4, 0, tzinfo=UTC))
    assert again == made, "nothing changed, so nothing may be written"


def observed_state(given: Manifest, job: Manifest | None, pods: list[Manifest]) -> ObservedState:
    return ObservedState(
        job=job_view(job) if job else None,
        experiment=trained_experiment(given),
        pods=tuple(map(pod_view, pods)),
        progress=ProgressUpdate.model_validate(given["progress"]) if "progress" in given else None,
        refusal=Refusal(given["refusal"]) if "refusal" in given else None,
        explanation=event_view(given["explanation"]) if "explanation" in given else None,
    )


def raw_job(given: Manifest, desired: DesiredState) -> Manifest:
    """Make the run's Job of a golden input: what the operator made of the resource, and what others changed since."""
    which = (given.get("run"), given.get("step"))
    raw = objects.raw_job(which=which, **given.get("status", {}))
    if isinstance(desired, DesiredJob):
        made = desired.make()
        assert raw["metadata"]["name"] == made["metadata"]["name"], "it is the Job at work"
        raw |= {"metadata": raw["metadata"] | made["metadata"], "spec": made["spec"]}
    return raw | {"spec": raw["spec"] | given.get("spec", {})}


def raw_pods(given: Manifest) -> list[Manifest]:
    pods = map(with_termination_message, given.get("pods", []))
    return [objects.raw_pod(number, **pod) for number, pod in enumerate(pods, 1)]


def trained_experiment(given: Manifest) -> RunView | None:
    """Make the experiment of a golden input, which its inference names."""
    experiment = given.get("experiment")
    return objects.make_run(experiment, experiment.get("status"), uid="trained-uid") if experiment else None


def with_termination_message(pod: Manifest) -> Manifest:
    """Return the pod with ``summary``, an abbreviation of golden inputs, replaced by its termination message."""
    if "summary" not in pod:
        return pod
    summary = RunSummary.model_validate(pod["summary"])
    state = objects.terminated_with(summary, pod.get("exitCode", 0))
    return {"phase": pod.get("phase", "Succeeded"), "state": state}


def test_a_blocked_run_has_no_job() -> None:
    assert isinstance(desired_state(objects.make_run(objects.INFERENCE), objects.NO_STATUS, None, SETTINGS), Blocked)
