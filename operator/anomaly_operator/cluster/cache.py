"""The newest known view of every object in the cluster that concerns runs.

Views come from three sources (watch events, LISTs, answers to the operator's own writes), in any order: of two views of
one object the one with the greater resourceVersion is kept, and a deleted object is not added again by an older view.

The cache does no I/O, and it decides nothing about runs except which of them a change affects.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from anomaly_operator.keys import RunKey
from anomaly_operator.views import JobView, PodView, RunView

ObjectKey = tuple[str, str]
"""Namespace and name of a Job or pod."""


class _Versioned(Protocol):
    @property
    def uid(self) -> str: ...

    @property
    def resource_version(self) -> int: ...


V = TypeVar("V", bound=_Versioned)
K = TypeVar("K")


class ViewStore(Generic[K, V]):
    """The newest view of each object of one kind, by its key."""

    def __init__(self, key_of: Callable[[V], K]) -> None:
        self._key_of = key_of
        self._views: dict[K, V] = {}
        self._deleted_uids: set[str] = set()

    def get(self, key: K) -> V | None:
        """Return the view of this key."""
        return self._views.get(key)

    def put(self, view: V) -> bool:
        """Keep the view unless a newer one is known, and return whether it was kept."""
        key = self._key_of(view)
        known = self._views.get(key)
        is_stale = known is not None and known.resource_version >= view.resource_version
        if view.uid in self._deleted_uids or is_stale:
            return False
        self._views[key] = view
        return True

    def remove(self, view: V) -> bool:
        """Forget a deleted object, and return whether it was known."""
        self._deleted_uids.add(view.uid)
        key = self._key_of(view)
        known = self._views.get(key)
        if known is None or known.uid != view.uid:
            return False
        del self._views[key]
        return True

    def start_listing(self) -> None:
        """Begin a LIST: deletions are remembered from now until the next LIST begins."""
        self._deleted_uids.clear()

    def missing(self, listed: Iterable[K], resource_version: int) -> list[V]:
        """Return the objects whose deletion was missed: known at the time of a LIST, but not in it.

        Args:
            listed: keys of the objects in the LIST.
            resource_version: resourceVersion of the LIST; a newer object is not missing from it.
        """
        present = set(listed)
        return [
            view
            for key, view in self._views.items()
            if key not in present and view.resource_version <= resource_version
        ]

    def key_of(self, view: V) -> K:
        """Return the key of a view."""
        return self._key_of(view)

    def __iter__(self) -> Iterator[V]:
        return iter(list(self._views.values()))

    def __len__(self) -> int:
        return len(self._views)


class Cache:
    """Runs, Jobs and pods; every change returns the runs that it affects.

    A pod that had finished before it was deleted is kept, as deleted, for as long as its Job exists: the API server
    sends its termination message only once, and the pod may be the one that the Job counts as succeeded, deleted at
    once because its node was drained.
    """

    def __init__(self) -> None:
        self.runs: ViewStore[RunKey, RunView] = ViewStore(lambda run: run.key)
        self.jobs: ViewStore[ObjectKey, JobView] = ViewStore(lambda job: (job.namespace, job.name))
        self.pods: ViewStore[ObjectKey, PodView] = ViewStore(lambda pod: (pod.namespace, pod.name))
        self._job_keys: defaultdict[RunKey, set[ObjectKey]] = defaultdict(set)  # run -> its Jobs
        self._pod_keys: defaultdict[ObjectKey, set[ObjectKey]] = defaultdict(set)  # Job -> its pods
        self._deleted_pods: defaultdict[str, dict[str, PodView]] = defaultdict(dict)  # UID of Job -> UID of pod -> pod
        self._removed_trials: defaultdict[RunKey, list[RunView]] = defaultdict(list)  # sweep -> its trials now gone
        self._trials: defaultdict[RunKey, dict[str, RunView]] = defaultdict(dict)  # sweep -> its trials by name
        self._dependents: defaultdict[RunKey, set[RunKey]] = defaultdict(set)  # experiment -> inferences that name it

    def put_run(self, run: RunView) -> set[RunKey]:
        """Keep a run, and return the runs to reconcile."""
        known = self.runs.get(run.key)
        if not self.runs.put(run):
            return set()
        if known:
            self._forget_dependent(known)
            if known.sweep_key != run.sweep_key:
                self._forget_trial(known)
        if experiment := _experiment_key(run):
            self._dependents[experiment].add(run.key)
        affected = {run.key} | self._dependents.get(run.key, set())
        if sweep := run.sweep_key:
            self._trials[sweep][run.key.name] = run
            # A sweep looks at a trial when it is over.
            affected |= {sweep} if run.is_over and not (known and known.is_over) else set()
        return affected

    def remove_run(self, run: RunView) -> set[RunKey]:
        """Forget a run, and return the runs to reconcile."""
        affected = {run.key} | self._dependents.get(run.key, set())
        known = self.runs.get(run.key)
        if not self.runs.remove(run) or known is None:
            return affected
        self._forget_dependent(known)
        self._forget_trial(known)
        if sweep := run.sweep_key:
            self._removed_trials[sweep].append(run)
            affected.add(sweep)
        return affected

    def put_job(self, job: JobView) -> set[RunKey]:
        """Keep a Job, and return the runs to reconcile."""
        if not self.jobs.put(job):
            return set()
        if job.run_key:
            self._job_keys[job.run_key].add((job.namespace, job.name))
        return _run_keys(job)

    def remove_job(self, job: JobView) -> set[RunKey]:
        """Forget a Job and its deleted pods, and return the runs to reconcile."""
        self._deleted_pods.pop(job.uid, None)
        if not self.jobs.remove(job):
            return set()
        if job.run_key and (job_keys := self._job_keys.get(job.run_key)):
            job_keys.discard((job.namespace, job.name))
            if not job_keys:
                del self._job_keys[job.run_key]
        return _run_keys(job)

    def put_pod(self, pod: PodView) -> set[RunKey]:
        """Keep a pod, and return the runs to reconcile."""
        if not self.pods.put(pod):
            return set()
        if pod.owner:
            self._pod_keys[(pod.namespace, pod.owner.name)].add((pod.namespace, pod.name))
        return _run_keys(self._job_of_pod(pod))

    def remove_pod(self, pod: PodView) -> set[RunKey]:
        """Forget a pod, unless it has finished and its Job exists, and return the runs to reconcile."""
        job = self._job_of_pod(pod)
        if pod.finished and job and pod.owner and pod.owner.uid == job.uid:
            self._deleted_pods[job.uid][pod.uid] = replace(pod, deleting=True)
        if not self.pods.remove(pod):
            return set()
        if pod.owner:
            pod_keys = self._pod_keys[(pod.namespace, pod.owner.name)]
            pod_keys.discard((pod.namespace, pod.name))
            if not pod_keys:
                del self._pod_keys[(pod.namespace, pod.owner.name)]
        return _run_keys(job)

    def jobs_of(self, run: RunKey, uid: str) -> tuple[JobView, ...]:
        """Return the Jobs of the resource of this UID, of all its steps and runs, by name."""
        keys = sorted(self._job_keys.get(run, ()))
        return tuple(job for key in keys if (job := self.jobs.get(key)) and job.is_controlled_by(uid))

    def trials_of(self, sweep: RunKey, uid: str) -> list[RunView]:
        """Return the trials of the sweep of this UID, in no order."""
        trials = self._trials.get(sweep, {})
        return [trial for trial in trials.values() if trial.owner and trial.owner.uid == uid]

    def take_removed(self, sweep: RunKey) -> list[RunView]:
        """Return the sweep's trials that were deleted since the last call, as they were then."""
        return self._removed_trials.pop(sweep, [])

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """Return the Job's pods, oldest first."""
        keys = self._pod_keys.get((job.namespace, job.name), ())
        return self.with_deleted_pods(job, (pod for key in keys if (pod := self.pods.get(key))))

    def with_deleted_pods(self, job: JobView, pods: Iterable[PodView]) -> tuple[PodView, ...]:
        """Return the Job's pods among ``pods``, and its pods that had finished before they were deleted, oldest first.

        For a pod that is both, the deleted view counts: a LIST may be older than the deletion.
        """
        by_uid = {pod.uid: pod for pod in pods if pod.owner and pod.owner.uid == job.uid}
        by_uid |= self._deleted_pods.get(job.uid, {})
        return tuple(sorted(by_uid.values(), key=lambda pod: (pod.creation_time, pod.resource_version)))

    def _job_of_pod(self, pod: PodView) -> JobView | None:
        """Return the Job that has the name of the pod's owner; it may be a later Job of the same name."""
        return self.jobs.get((pod.namespace, pod.owner.name)) if pod.owner else None

    def _forget_dependent(self, run: RunView) -> None:
        experiment = _experiment_key(run)
        if experiment and (dependents := self._dependents.get(experiment)):
            dependents.discard(run.key)
            if not dependents:
                del self._dependents[experiment]

    def _forget_trial(self, run: RunView) -> None:
        if sweep := run.sweep_key:
            del self._trials[sweep][run.key.name]
            if not self._trials[sweep]:
                del self._trials[sweep]


def _experiment_key(run: RunView) -> RunKey | None:
    if not run.experiment_name:
        return None
    return RunKey("AnomalyExperiment", run.key.namespace, run.experiment_name)


def _run_keys(job: JobView | None) -> set[RunKey]:
    run_key = job.run_key if job else None
    return {run_key} if run_key else set()
