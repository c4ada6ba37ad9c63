"""Views of everything in the cluster that concerns runs: the newest that was seen of each object.

Views come from three sides (watch events, LISTs, answers to our own writes), in any order: of two views of one
object the one with the higher resourceVersion stays, and an object that was seen deleted never returns.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from anomaly_operator import names
from anomaly_operator.keys import RunKey
from anomaly_operator.views import JobView, PodView, RunView


class _Versioned(Protocol):
    @property
    def uid(self) -> str: ...

    @property
    def version(self) -> int: ...


V = TypeVar("V", bound=_Versioned)
K = TypeVar("K")


class Store(Generic[K, V]):
    """The newest view of each object of one kind, by name."""

    def __init__(self, key_of: Callable[[V], K]) -> None:
        self._key_of = key_of
        self._views: dict[K, V] = {}
        self._deleted: set[str] = set()

    def get(self, key: K) -> V | None:
        """The view of this name."""
        return self._views.get(key)

    def put(self, view: V) -> bool:
        """Keep the view unless a newer one is here; whether it was news."""
        key = self._key_of(view)
        known = self._views.get(key)
        if view.uid in self._deleted or (known is not None and known.version >= view.version):
            return False
        self._views[key] = view
        return True

    def remove(self, view: V) -> bool:
        """Forget a deleted object; whether it was known."""
        self._deleted.add(view.uid)
        key = self._key_of(view)
        known = self._views.get(key)
        if known is None or known.uid != view.uid:
            return False
        del self._views[key]
        return True

    def start_listing(self) -> None:
        """A LIST begins: from here on deletions are remembered until the next one."""
        self._deleted.clear()

    def missing(self, listed: Iterable[K], version: int) -> list[V]:
        """Objects known from before the LIST of this resourceVersion that are not in it."""
        present = set(listed)
        return [view for key, view in self._views.items() if key not in present and view.version <= version]

    def key_of(self, view: V) -> K:
        """Name of a view."""
        return self._key_of(view)

    def __iter__(self) -> Iterator[V]:
        return iter(list(self._views.values()))

    def __len__(self) -> int:
        return len(self._views)


class Cache:
    """Runs, Jobs and pods, and which run each of them concerns.

    A pod that had ended before it was deleted stays, as deleted, for as long as its Job: the API server tells of its
    last words once, and a Job may count a pod as succeeded that a drained node took away at once.
    """

    def __init__(self) -> None:
        self.runs: Store[RunKey, RunView] = Store(lambda run: run.key)
        self.jobs: Store[tuple[str, str], JobView] = Store(lambda job: (job.namespace, job.name))
        self.pods: Store[tuple[str, str], PodView] = Store(lambda pod: (pod.namespace, pod.name))
        self._pods_of: defaultdict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
        self._departed: defaultdict[str, dict[str, PodView]] = defaultdict(dict)  # by the UIDs of Job and pod
        self._users: defaultdict[RunKey, set[RunKey]] = defaultdict(set)

    def put_run(self, run: RunView) -> set[RunKey]:
        """Keep a run; returns the runs to look at."""
        known = self.runs.get(run.key)
        if not self.runs.put(run):
            return set()
        if known:
            self._forget_use(known)
        if experiment := _experiment(run):
            self._users[experiment].add(run.key)
        return {run.key} | self._users.get(run.key, set())

    def remove_run(self, run: RunView) -> set[RunKey]:
        """Forget a run; returns the runs to look at."""
        if self.runs.remove(run):
            self._forget_use(run)
        return {run.key} | self._users.get(run.key, set())

    def put_job(self, job: JobView) -> set[RunKey]:
        """Keep a Job; returns the runs to look at."""
        return _one(job.key) if self.jobs.put(job) else set()

    def remove_job(self, job: JobView) -> set[RunKey]:
        """Forget a Job and its pods that are gone; returns the runs to look at."""
        self._departed.pop(job.uid, None)
        return _one(job.key) if self.jobs.remove(job) else set()

    def put_pod(self, pod: PodView) -> set[RunKey]:
        """Keep a pod; returns the runs to look at."""
        if not self.pods.put(pod):
            return set()
        if pod.owner:
            self._pods_of[(pod.namespace, pod.owner.name)].add((pod.namespace, pod.name))
        return self._run_of(pod)

    def remove_pod(self, pod: PodView) -> set[RunKey]:
        """Forget a pod, unless it has ended and its Job is there; returns the runs to look at."""
        job = self._owner_of(pod)
        if pod.finished and job and pod.owner and pod.owner.uid == job.uid:
            self._departed[job.uid][pod.uid] = replace(pod, deleting=True)
        if not self.pods.remove(pod):
            return set()
        if pod.owner:
            pods = self._pods_of[(pod.namespace, pod.owner.name)]
            pods.discard((pod.namespace, pod.name))
            if not pods:
                del self._pods_of[(pod.namespace, pod.owner.name)]
        return self._run_of(pod)

    def job_of(self, key: RunKey) -> JobView | None:
        """The Job by the name that the run's Job has."""
        return self.jobs.get((key.namespace, names.job(key)))

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The Job's pods, oldest first."""
        keys = self._pods_of.get((job.namespace, job.name), ())
        return self.with_departed(job, (pod for key in keys if (pod := self.pods.get(key))))

    def with_departed(self, job: JobView, pods: Iterable[PodView]) -> tuple[PodView, ...]:
        """Those of ``pods`` that are the Job's, and those that had ended before they were deleted; oldest first."""
        ours = {pod.uid: pod for pod in pods if pod.owner and pod.owner.uid == job.uid}
        ours |= self._departed.get(job.uid, {})
        return tuple(sorted(ours.values(), key=lambda pod: (pod.created, pod.version)))

    def _run_of(self, pod: PodView) -> set[RunKey]:
        job = self._owner_of(pod)
        return _one(job.key) if job else set()

    def _owner_of(self, pod: PodView) -> JobView | None:
        """The Job by the name of the pod's owner."""
        return self.jobs.get((pod.namespace, pod.owner.name)) if pod.owner else None

    def _forget_use(self, run: RunView) -> None:
        experiment = _experiment(run)
        if experiment and (users := self._users.get(experiment)):
            users.discard(run.key)
            if not users:
                del self._users[experiment]


def _experiment(run: RunView) -> RunKey | None:
    """The experiment whose model the run uses."""
    return RunKey("AnomalyExperiment", run.key.namespace, run.experiment) if run.experiment else None


def _one(key: RunKey | None) -> set[RunKey]:
    return {key} if key else set()
