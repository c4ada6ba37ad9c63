"""What exists for a run, gathered from the cache, and from the API server where the cache may lack something."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from anomaly_operator.cluster.apply import pods_selector
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.observed import ObservedState, PastJob
from anomaly_operator.decide.outlived import outlived_pod, seconds_until_outlived
from anomaly_operator.decide.waiting import (
    newest_explanation,
    seconds_until_look,
    seconds_until_next_look,
    unexplained_wait,
)
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import CORE_EVENTS, PODS
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.views import EventView, JobView, PodView, RunView, event_view, pod_view
from anomaly_operator.work_queue import WorkQueue


class Observer:
    """Gathers what a reconcile decides from.

    Args:
        client: the API server.
        cache: what is known of the cluster.
        queue: where a run is added that has to be looked at again later.
        board: progress that pods pushed.
        clock: the current time.
    """

    def __init__(
        self,
        client: ApiClient,
        cache: Cache,
        queue: WorkQueue[RunKey],
        board: ProgressBoard,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._cache = cache
        self._queue = queue
        self._board = board
        self._clock = clock

    def experiment_of(self, run: RunView) -> RunView | None:
        """Return the experiment whose model the run uses, if it names one that exists."""
        if run.experiment_name is None:
            return None
        return self._cache.runs.get(RunKey("AnomalyExperiment", run.key.namespace, run.experiment_name))

    async def observe(self, run: RunView, job_name: str) -> ObservedState:
        """Gather what exists for the run. A Job that is not the run's own is reported without its pods."""
        job = self._cache.jobs.get((run.key.namespace, job_name))
        pods = await self._pods_of(job) if job and job.is_controlled_by(run.uid) else ()
        past = tuple(
            PastJob(other, self._cache.pods_of(other))
            for other in self._cache.jobs_of(run.key, run.uid)
            if other.name != job_name
        )
        progress = self._board.latest(run.key, job.uid) if job else None
        observed = ObservedState(job=job, pods=pods, past=past, progress=progress, experiment=self.experiment_of(run))
        if early := seconds_until_outlived(observed, self._clock()):
            self._queue.add_after(run.key, early)
        return replace(observed, outlived=outlived_pod(observed, self._clock()))

    async def explain(self, run: RunView, observed: ObservedState) -> EventView | None:
        """Return the Event that tells why the run waits, if nothing else does; the run comes back for the next look."""
        wait, now = unexplained_wait(observed), self._clock()
        if wait is None or not observed.job or not observed.job.is_controlled_by(run.uid):
            return None
        if early := seconds_until_look(wait, now):
            self._queue.add_after(run.key, early)
            return None
        self._queue.add_after(run.key, seconds_until_next_look(wait, now))
        events: list[EventView] = []
        about = f"involvedObject.uid={wait.uid}"
        async for items, _ in self._client.list(CORE_EVENTS, run.key.namespace, fields=about):
            events += [event_view(item) for item in items]
        return newest_explanation(wait, events)

    async def _pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """Return the Job's pods from the cache, or from a LIST while the cache lacks pods of a finished Job."""
        pods = self._cache.pods_of(job)
        finished = sum(pod.finished for pod in pods)
        if job.finished_condition is None or finished >= job.failed + job.succeeded:
            return pods
        listed: list[PodView] = []
        async for items, _ in self._client.list(PODS, job.namespace, pods_selector(job)):
            listed += [pod_view(item) for item in items]
        return self._cache.with_deleted_pods(job, listed)
