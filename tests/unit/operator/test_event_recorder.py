"""Events as they are posted: by the API server's limits, once each, and no failure of a reconcile."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from structlog.testing import capture_logs

from anomaly_api.reasons import Reason
from anomaly_operator.cluster.event_recorder import record_event
from anomaly_operator.decide.transition_events import Event
from anomaly_operator.resources import Manifest
from support.objects import EXPERIMENT, UID, make_run
from support.played_api import PlayedApi, PlayedClient, Refused
from support.played_loop import PlayedLoop

NOW = datetime(2026, 1, 2, 5, 4, 5, 678_000, tzinfo=timezone(timedelta(hours=2)))
EVENT = Event("Warning", Reason.DATA_INVALID, "no image can be read", "2026-01-02T03:04:05Z")


class World:
    """An API server that a replica tells of the run ``screws``."""

    def __init__(self) -> None:
        self.loop = PlayedLoop()
        self.api = PlayedApi(self.loop.time)

    def post(self, event: Event = EVENT, identity: str = "replica-1", uid: str = UID) -> None:
        run = make_run(EXPERIMENT, uid=uid)
        self.loop.run_until_complete(record_event(PlayedClient(self.api), run, event, identity, NOW))

    @property
    def posted(self) -> list[Manifest]:
        return list(self.api.all("events"))


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.loop.close()


@pytest.mark.usefixtures("far_from_greenwich")
def test_an_event_names_what_it_is_about_and_who_says_it(world: World) -> None:
    world.post()
    [event] = world.posted
    assert event.pop("metadata").items() >= {"namespace": "vision"}.items()
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": "2026-01-02T03:04:05.678000Z",
        "reportingController": "anomalyops.io/operator",
        "reportingInstance": "replica-1",
        "action": "Reconcile",
        "reason": "DataInvalid",
        "type": "Warning",
        "note": "no image can be read",
        "regarding": {
            "apiVersion": "anomalyops.io/v1alpha1",
            "kind": "AnomalyExperiment",
            "namespace": "vision",
            "name": "screws",
            "uid": UID,
        },
    }


@pytest.mark.parametrize(
    ("other", "events"),
    [
        ({}, 1),
        ({"message": "the same, said otherwise"}, 1),
        ({"since": "2026-01-02T03:04:06Z"}, 2),
        ({"reason": Reason.OUT_OF_MEMORY}, 2),
    ],
)
def test_an_occurrence_is_posted_once(world: World, other: dict[str, Any], events: int) -> None:
    with capture_logs() as logs:
        world.post()
        world.post(replace(EVENT, **other))
    assert len(world.posted) == events
    assert logs == []
    assert set(world.api.requests) == {("POST", "/apis/events.k8s.io/v1/namespaces/vision/events")}


def test_the_same_of_a_later_resource_of_the_name_is_posted(world: World) -> None:
    world.post()
    world.post(uid="another")
    assert [event["regarding"]["uid"] for event in world.posted] in ([UID, "another"], ["another", UID])


@pytest.mark.parametrize(
    ("message", "note"),
    [
        ("x" * 1025, "x" * 1024),
        # The API server counts bytes: three each, and no half of one.
        ("\u5c42" * 1000, "\u5c42" * 341),
        ("\u5c42" * 341 + "x", "\u5c42" * 341 + "x"),
    ],
    ids=["ASCII", "too long", "as long as may be"],
)
def test_a_note_has_at_most_1024_bytes(world: World, message: str, note: str) -> None:
    world.post(replace(EVENT, message=message), identity="i" * 200)
    [event] = world.posted
    assert event["note"] == note
    assert event["reportingInstance"] == "i" * 128


def test_an_event_that_cannot_be_posted_is_logged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Manifest:
        raise Refused(403, "not yours")

    monkeypatch.setattr(world.api, "_create", refuse)
    with capture_logs() as logs:
        world.post()
    assert [(entry["event"], entry["run"], entry["reason"]) for entry in logs] == [
        ("event not posted", "AnomalyExperiment vision/screws", "DataInvalid")
    ]
    assert "403: not yours" in logs[0]["message"]
