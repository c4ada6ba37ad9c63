"""Posting Events. One that cannot be posted is not worth a retry: the status says the same."""

from datetime import UTC, datetime

import structlog

from anomaly_api import API_VERSION
from anomaly_operator import names
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.notes import Note
from anomaly_operator.errors import ApiError, Conflict
from anomaly_operator.resources import EVENTS
from anomaly_operator.views import RunView

log = structlog.get_logger()


async def post(client: ApiClient, run: RunView, note: Note, identity: str, now: datetime) -> None:
    """Post an Event about a run; the same one again is not posted twice."""
    name = names.event(run.uid, note.reason, note.since, name=run.key.name)
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": run.key.namespace},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "anomalyops.io/operator",
        "reportingInstance": identity[:128],
        "action": "Reconcile",
        "reason": note.reason.value,
        "type": note.type,
        "note": note.message[:1024],
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": run.key.kind,
            "namespace": run.key.namespace,
            "name": run.key.name,
            "uid": run.uid,
        },
    }
    try:
        await client.create(EVENTS, run.key.namespace, event)
    except Conflict:
        return
    except ApiError as error:
        log.warning("event not posted", run=str(run.key), reason=note.reason, message=str(error))
