"""What kopf is told to watch, and what becomes of an event."""

from types import SimpleNamespace
from typing import Any

import kopf
import pytest

from anomaly_operator import handlers
from anomaly_operator.cluster.credentials import login
from support.played_operator import SETTINGS

MANAGED = "app.kubernetes.io/managed-by=anomaly-operator"


def test_kopf_watches_and_does_nothing_else() -> None:
    found = handlers.kopf_settings()
    assert found.peering.standalone
    assert not found.posting.enabled
    assert found.scanning.disabled
    selectors = {
        place: found.watching.label_selectors[place] for place in (("batch", "v1", "jobs"), ("", "v1", "pods"))
    }
    assert set(selectors.values()) == {MANAGED}
    body = kopf.Body({"metadata": {"name": "screws"}, "spec": {}})
    assert found.persistence.diffbase_storage.fetch(body=body) is None
    assert found.persistence.progress_storage.fetch(key=kopf.HandlerId("any"), body=body) is None
    patch = kopf.Patch()
    found.persistence.diffbase_storage.store(body=body, patch=patch, essence=kopf.BodyEssence({"spec": {}}))
    assert patch == {}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """The handlers by what they are called for: an event's resource, or the name of the hook."""
    found: dict[Any, Any] = {}

    def taking(hook: str) -> Any:
        def register(*which: str, **_: Any) -> Any:
            return lambda handler: found.setdefault(which or hook, handler)

        return register

    for hook in ("login", "startup", "cleanup", "event"):
        monkeypatch.setattr(kopf.on, hook, taking(hook))
    handlers.register(kopf.OperatorRegistry(), SETTINGS)
    return found


def test_runs_jobs_and_pods_are_watched(registered: dict[Any, Any]) -> None:
    assert {which for which in registered if isinstance(which, tuple)} == {
        ("anomalyops.io", "v1alpha1", "anomalyexperiments"),
        ("anomalyops.io", "v1alpha1", "anomalyinferences"),
        ("batch", "v1", "jobs"),
        ("", "v1", "pods"),
    }


@pytest.mark.parametrize(("kind", "deleted"), [(None, False), ("ADDED", False), ("MODIFIED", False), ("DELETED", True)])
async def test_an_event_is_handed_to_the_manager(registered: dict[Any, Any], kind: Any, deleted: bool) -> None:
    heard: list[Any] = []
    memo = SimpleNamespace(
        manager=SimpleNamespace(hear=lambda plural, found, *, deleted: heard.append((plural, found, deleted)))
    )
    job = {"metadata": {"name": "screws"}}
    await registered["batch", "v1", "jobs"](event={"type": kind, "object": job}, memo=memo)
    await registered["", "v1", "pods"](event={"type": kind, "object": job}, memo=memo)
    assert heard == [("jobs", job, deleted), ("pods", job, deleted)]


async def test_the_manager_lives_as_long_as_kopf(registered: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    class Manager:
        def __init__(self, *given: Any) -> None:
            done.append(given)

        async def start(self) -> None:
            done.append("started")

        async def stop(self) -> None:
            done.append("stopped")

    monkeypatch.setattr(handlers, "Manager", Manager)
    memo, settings = SimpleNamespace(), kopf.OperatorSettings()
    await registered["startup"](memo=memo, settings=settings)
    await registered["cleanup"](memo=memo)
    assert done == [(SETTINGS, settings), "started", "stopped"]


def test_kopf_logs_in_as_the_client_does(registered: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(handlers)["login"] is login
    monkeypatch.setattr(handlers, "login", lambda given: ("logged in", given))
    settings = kopf.OperatorSettings()
    assert registered["login"](settings=settings) == ("logged in", settings)
