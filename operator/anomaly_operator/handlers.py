"""kopf handlers: they store each watched object in the cache and enqueue the runs that it affects.

kopf only watches here. Its change detection, finalizers, annotations and peering are off: state is in spec and status
alone. No handler decides or writes anything.
"""

from collections.abc import Callable
from typing import Any

import kopf

from anomaly_api import GROUP, VERSION
from anomaly_operator import names
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.credentials import login
from anomaly_operator.keys import KINDS, Kind, RunKey
from anomaly_operator.manager import Manager
from anomaly_operator.resources import RUN_RESOURCES
from anomaly_operator.settings import Settings
from anomaly_operator.views import Raw, job_view, pod_view, run_view
from anomaly_operator.work_queue import Priority

CacheUpdate = Callable[[Cache, bool, Raw], set[RunKey]]
"""Puts an object, or its deletion, into the cache; returns the runs to reconcile."""


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
    for kind in KINDS:
        _watch(registry, (GROUP, VERSION, RUN_RESOURCES[kind].plural), _update_run(kind), Priority.URGENT)
    _watch(registry, ("batch", "v1", "jobs"), _update_job)
    _watch(registry, ("", "v1", "pods"), _update_pod)


def _watch(
    registry: kopf.OperatorRegistry,
    resource: tuple[str, str, str],
    update: CacheUpdate,
    priority: Priority = Priority.NORMAL,
) -> None:
    """Watch a resource (group, version, plural); those that users change are urgent."""

    @kopf.on.event(*resource, id=f"{resource[2]}-event", registry=registry)
    async def on_event(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
        manager: Manager = memo.manager
        for key in update(manager.cache, event["type"] == "DELETED", event["object"]):
            manager.queue.add(key, priority)


def _update_run(kind: Kind) -> CacheUpdate:
    def update(cache: Cache, deleted: bool, raw: Raw) -> set[RunKey]:
        run = run_view(kind, raw)
        return cache.remove_run(run) if deleted else cache.put_run(run)

    return update


def _update_job(cache: Cache, deleted: bool, raw: Raw) -> set[RunKey]:
    job = job_view(raw)
    return cache.remove_job(job) if deleted else cache.put_job(job)


def _update_pod(cache: Cache, deleted: bool, raw: Raw) -> set[RunKey]:
    pod = pod_view(raw)
    return cache.remove_pod(pod) if deleted else cache.put_pod(pod)
