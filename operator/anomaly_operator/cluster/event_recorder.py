"""Post Events about runs. An Event that cannot be posted is not retried: the status says the same."""

from datetime import UTC, datetime

import structlog

from anomaly_api import API_VERSION
from anomaly_operator import names
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.transition_events import Event
from anomaly_operator.errors import Conflict, OperatorError
from anomaly_operator.resources import EVENTS
from anomaly_operator.views import RunView

log = structlog.get_logger()

NOTE_BYTES = 1024
"""Longest note that the API server takes: it counts bytes, not characters."""


async def record_event(client: ApiClient, run: RunView, event: Event, identity: str, now: datetime) -> None:
    """Post an Event about a run; the same one is not posted twice. Failures are logged, never raised.

    Args:
        client: the API server.
        run: the resource that the Event is about.
        event: what happened.
        identity: this replica, as reportingInstance.
        now: when it is reported.
    """
    name = names.event(run.uid, event.reason, event.since, name=run.key.name)
    body = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": run.key.namespace},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "anomalyops.io/operator",
        "reportingInstance": identity[:128],
        "action": "Reconcile",
        "reason": event.reason.value,
        "type": event.type,
        "note": event.message.encode()[:NOTE_BYTES].decode(errors="ignore"),
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": run.key.kind,
            "namespace": run.key.namespace,
            "name": run.key.name,
            "uid": run.uid,
        },
    }
    try:
        await client.create(EVENTS, run.key.namespace, body)
    except Conflict:
        return  # posted already
    except OperatorError as error:
        log.warning("event not posted", run=str(run.key), reason=event.reason, message=str(error))
