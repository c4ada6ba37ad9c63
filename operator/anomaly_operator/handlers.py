"""kopf's side: it watches; every handler puts what it saw into the cache and has the runs concerned looked at.

No change detection, finalizers, annotations or peering of kopf's are used: state is in spec and status alone.
"""

from collections.abc import Callable
from typing import Any

import kopf

from anomaly_api import GROUP, VERSION
from anomaly_operator import names
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.credentials import login
from anomaly_operator.keys import KINDS, Kind, RunKey
from anomaly_operator.process import Process
from anomaly_operator.resources import RUNS
from anomaly_operator.settings import Settings
from anomaly_operator.views import Raw, job_view, pod_view, run_view

Changed = Callable[[Cache, bool, Raw], set[RunKey]]


class _NoDiffBase(kopf.DiffBaseStorage):
    """kopf would copy every object it sees three times over to compare it with a last state that nobody keeps."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


class _NoProgress(kopf.ProgressStorage):
    """Handlers that are never retried have no progress to keep."""

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
    """kopf as a watcher and nothing else."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.initial_streaming = True
    settings.watching.label_selectors["batch", "v1", "jobs"] = names.SELECTOR
    settings.watching.label_selectors["", "v1", "pods"] = names.SELECTOR
    settings.queueing.idle_timeout = 0.1  # a kopf worker keeps its object's last body for as long
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    return settings


def register(registry: kopf.OperatorRegistry, settings: Settings) -> None:
    """Tie kopf's events to one Process."""

    @kopf.on.login(registry=registry)
    def log_in(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo:
        return login(settings)

    @kopf.on.startup(registry=registry)
    async def start(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:
        memo.process = Process(operator_settings, settings)
        await memo.process.start()

    @kopf.on.cleanup(registry=registry)
    async def stop(memo: kopf.Memo, **_: Any) -> None:
        await memo.process.stop()

    operator_settings = settings
    for kind in KINDS:
        _watch(registry, (GROUP, VERSION, RUNS[kind].plural), _run_changed(kind), urgent=True)
    _watch(registry, ("batch", "v1", "jobs"), _job_changed)
    _watch(registry, ("", "v1", "pods"), _pod_changed)


def _watch(
    registry: kopf.OperatorRegistry, resource: tuple[str, str, str], changed: Changed, *, urgent: bool = False
) -> None:
    @kopf.on.event(*resource, id=f"{resource[2]}-event", registry=registry)
    async def on_event(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
        process: Process = memo.process
        for key in changed(process.cache, event["type"] == "DELETED", event["object"]):
            process.queue.add(key, urgent=urgent)


def _run_changed(kind: Kind) -> Changed:
    def changed(cache: Cache, deleted: bool, raw: Raw) -> set[RunKey]:
        run = run_view(kind, raw)
        return cache.remove_run(run) if deleted else cache.put_run(run)

    return changed


def _job_changed(cache: Cache, deleted: bool, raw: Raw) -> set[RunKey]:
    job = job_view(raw)
    return cache.remove_job(job) if deleted else cache.put_job(job)


def _pod_changed(cache: Cache, deleted: bool, raw: Raw) -> set[RunKey]:
    pod = pod_view(raw)
    return cache.remove_pod(pod) if deleted else cache.put_pod(pod)
