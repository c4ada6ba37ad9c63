"""The status of a run, written once a reconcile if it changed; and the Events that follow a write."""

import json
from collections.abc import Callable
from datetime import datetime

import structlog
from pydantic import ValidationError

from anomaly_api import API_VERSION
from anomaly_api.reasons import Reason
from anomaly_api.status import Phase, RunStatus
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.event_recorder import record_event
from anomaly_operator.decide.runs import is_finished
from anomaly_operator.decide.transition_events import Event, transition_events
from anomaly_operator.errors import NotFound, StatusUnreadable
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import RUN_RESOURCES, Manifest
from anomaly_operator.views import RunView, run_view
from anomaly_operator.work_queue import Priority, WorkQueue

log = structlog.get_logger()


class StatusWriter:
    """Writes statuses.

    Args:
        client: the API server.
        cache: where a written status goes at once.
        queue: where the runs are added that a written status concerns.
        identity: this replica, for Events.
        clock: the current time.
    """

    def __init__(
        self,
        client: ApiClient,
        cache: Cache,
        queue: WorkQueue[RunKey],
        identity: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._cache = cache
        self._queue = queue
        self._identity = identity
        self._clock = clock

    async def write(self, run: RunView, old: RunStatus, new: RunStatus) -> None:
        """Write the status if it changed; then enqueue the runs that depend on it and post the Events of the change."""
        if new.to_json_object() == json.loads(run.status) or _is_not_worth_a_write(run, old, new):
            return
        resource = RUN_RESOURCES[run.key.kind]
        try:
            written = await self._client.replace_status(
                resource, run.key.namespace, run.key.name, _status_body(run, new)
            )
        except NotFound:
            return  # deleted meanwhile
        # A sweep whose trial is over, or an inference whose model is trained, is about to make Jobs.
        for key in self._cache.put_run(run_view(run.key.kind, written)) - {run.key}:
            self._queue.add(key, Priority.URGENT)
        # What comes next is clean-up, or the next step.
        if is_finished(new) or new.steps != old.steps:
            self._queue.add(run.key)
        for event in transition_events(old, new) if run.sweep_key is None else ():
            log.info("run changed", run=str(run.key), reason=event.reason, message=event.message)
            await self.post(run, event)

    async def post(self, run: RunView, event: Event) -> None:
        """Post an Event about a run. One that cannot be posted is logged."""
        await record_event(self._client, run, event, self._identity, self._clock())


def _is_not_worth_a_write(run: RunView, old: RunStatus, new: RunStatus) -> bool:
    """Whether the status of a trial says no more than that it waits for its turn: a sweep may have thousands."""
    if run.sweep_key is None or new.phase is not Phase.PENDING or run.phase not in (None, Phase.PENDING):
        return False
    # What was told of a trial, such as that its Job was refused, is taken back.
    return all(condition.reason in _USUAL for condition in (*old.conditions, *new.conditions))


_USUAL = frozenset({Reason.PENDING, Reason.STARTING})


def recorded_status(run: RunView) -> RunStatus:
    """Parse the recorded status.

    Raises:
        StatusUnreadable: this version of the operator cannot parse it.
    """
    try:
        return RunStatus.model_validate_json(run.status)
    except ValidationError as error:
        raise StatusUnreadable(f"{run.key}: {error}") from error


def _status_body(run: RunView, status: RunStatus) -> Manifest:
    """Return the body of a status update; its uid and resourceVersion make an outdated one a Conflict."""
    return {
        "apiVersion": API_VERSION,
        "kind": run.key.kind,
        "metadata": {
            "name": run.key.name,
            "namespace": run.key.namespace,
            "uid": run.uid,
            "resourceVersion": str(run.resource_version),
        },
        "status": status.to_json_object(),
    }
