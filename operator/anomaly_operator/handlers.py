"""kopf handlers: they hand each watched object to the manager, which queues the runs that it affects.

kopf only watches here. Its change detection, finalizers, annotations and peering are off: state is in spec and status
alone. No handler decides or writes anything.
"""

from typing import Any

import kopf

from anomaly_operator import names
from anomaly_operator.cluster.credentials import login
from anomaly_operator.manager import Manager
from anomaly_operator.resources import JOBS, PODS, RUN_RESOURCES, Resource
from anomaly_operator.settings import Settings

EXIT_SECONDS = 20.0
"""Seconds after which a process that is to end is killed.

A watch of kopf's that is told to stop while it starts anew can miss that, and then goes on for ever. This is shorter
than the grace period of the operator's pods, and longer than a normal end takes.
"""


class _NoDiffBase(kopf.DiffBaseStorage):
    """Stores no last-seen state: to compare with it, kopf would copy every object three times."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


class _NoProgress(kopf.ProgressStorage):
    """Stores no handler progress: kopf never retries these handlers."""

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept."""

    def purge(self, **_: Any) -> None:
        """Nothing is kept."""

    def touch(self, **_: Any) -> None:
        """Nothing is kept."""

    def clear(self, *, essence: Any) -> Any:
        return essence


def kopf_settings() -> kopf.OperatorSettings:
    """Return settings that make kopf a watcher and nothing else."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.initial_streaming = True
    settings.watching.label_selectors["batch", "v1", "jobs"] = names.SELECTOR
    settings.watching.label_selectors["", "v1", "pods"] = names.SELECTOR
    settings.queueing.idle_timeout = 0.1  # seconds for which a kopf worker keeps its object's last body
    settings.process.ultimate_exiting_timeout = EXIT_SECONDS
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    return settings


def register(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    """Register the handlers, which all work for one Manager: it is started with kopf and stopped with it."""

    @kopf.on.login(registry=registry)
    def log_in(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo:
        return login(settings)

    @kopf.on.startup(registry=registry)
    async def start(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:
        memo.manager = Manager(operator_settings, settings)
        await memo.manager.start()

    @kopf.on.cleanup(registry=registry)
    async def stop(memo: kopf.Memo, **_: Any) -> None:
        await memo.manager.stop()

    operator_settings = settings
    for resource in (*RUN_RESOURCES.values(), JOBS, PODS):
        _watch(registry, resource)


def _watch(registry: kopf.OperatorRegistry, resource: Resource) -> None:
    which = (resource.group, resource.version, resource.plural)

    @kopf.on.event(*which, id=f"{resource.plural}-event", registry=registry)
    async def on_event(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
        memo.manager.hear(resource.plural, event["object"], deleted=event["type"] == "DELETED")
