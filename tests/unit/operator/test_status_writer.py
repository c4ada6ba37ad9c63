"""Statuses as they are written: once, if they changed, with what follows from them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from anomaly_api.status import RunStatus
from anomaly_operator.errors import Conflict, NotFound, StatusUnreadable
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import Manifest
from anomaly_operator.status_writer import StatusWriter, recorded_status
from anomaly_operator.views import RunView, run_view
from support.objects import EXPERIMENT, INFERENCE, KEY, make_run
from support.played_parts import PlayedParts

EXPERIMENTS = "anomalyexperiments"
PATH = "/apis/anomalyops.io/v1alpha1/namespaces/vision/anomalyexperiments/screws/status"
WHEN = "2026-01-02T03:04:05Z"
OWNER = {"kind": "AnomalyExperiment", "name": "hunt", "uid": "of-hunt", "controller": True}
HUNT = RunKey("AnomalyExperiment", "vision", "hunt")
NEW = RunStatus()


def status(phase: str = "Running", reason: str = "Running", kind: str = "Reconciling", **fields: Any) -> RunStatus:
    condition = {"type": kind, "status": "True", "reason": reason, "message": "why", "lastTransitionTime": WHEN}
    return RunStatus.model_validate({"phase": phase, "conditions": [condition], "startTime": WHEN} | fields)


class World(PlayedParts):
    """An API server with the run ``screws``, and the writer of its status."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = StatusWriter(self.client, self.cache, self.queue, "replica-1", self.api.moment)

    def add(self, recorded: RunStatus | None = None, manifest: Manifest = EXPERIMENT, **metadata: Any) -> RunView:
        known = {"status": recorded.to_json_object()} if recorded else {}
        raw = manifest | {"metadata": manifest["metadata"] | metadata} | known
        view = run_view(manifest["kind"], self.api.add(f"{manifest['kind'].lower()}s", raw))
        self.cache.put_run(view)
        return view

    def write(self, run: RunView, old: RunStatus, new: RunStatus) -> None:
        self.loop.run_until_complete(self.writer.write(run, old, new))

    def queued(self) -> list[RunKey]:
        return [self.loop.run_until_complete(self.queue.get()) for _ in range(len(self.queue))]

    @property
    def recorded(self) -> Manifest:
        found: Manifest = self.api.objects[EXPERIMENTS, "screws"]["status"]
        return found

    @property
    def events(self) -> list[str]:
        return [event["reason"] for event in self.api.all("events")]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.loop.close()


def test_a_changed_status_is_written_and_known_at_once(world: World) -> None:
    run = world.add()
    world.write(run, NEW, status())
    assert world.api.requests == [("PUT", PATH)]
    assert world.recorded == status().to_json_object()
    known = world.cache.runs.get(KEY)
    assert known
    assert json.loads(known.status) == world.recorded
    assert (world.queued(), world.events) == ([], [])


def test_what_is_sent_names_the_resource_as_it_was_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Manifest] = []

    async def gone(*request: Any) -> Manifest:
        sent.append(request[-1])
        raise NotFound(404, "gone")

    run = world.add()
    monkeypatch.setattr(world.client, "replace_status", gone)
    world.write(run, NEW, status())
    metadata = {"name": "screws", "namespace": "vision", "uid": run.uid, "resourceVersion": str(run.resource_version)}
    expected = {"apiVersion": "anomalyops.io/v1alpha1", "kind": "AnomalyExperiment", "metadata": metadata}
    assert sent == [expected | {"status": status().to_json_object()}]


def test_a_status_that_did_not_change_costs_nothing(world: World) -> None:
    world.write(world.add(status()), status(), status())
    assert world.api.requests == []


def test_a_run_that_is_gone_has_no_status_and_no_events(world: World) -> None:
    run = world.add()
    world.api.remove(EXPERIMENTS, "screws")
    world.write(run, NEW, status("Complete", "Complete", "Complete"))
    assert (world.queued(), world.events) == ([], [])


@pytest.mark.parametrize("changed", [{"uid": "of-an-earlier-one"}, {"resourceVersion": "1"}])
def test_a_status_of_what_has_changed_is_refused(world: World, changed: Manifest) -> None:
    run = world.add()
    raw = world.api.objects[EXPERIMENTS, "screws"]
    outdated = run_view("AnomalyExperiment", raw | {"metadata": raw["metadata"] | changed})
    with pytest.raises(Conflict):
        world.write(outdated, NEW, status())
    assert world.queued() == []
    world.write(run, NEW, status())


def test_who_waits_for_a_run_is_looked_at_first_and_itself_if_something_follows(world: World) -> None:
    inference = world.add(manifest=INFERENCE).key
    steps = [{"name": "check", "jobName": "screws-experiment-check"}]
    for new, itself in (
        (status(), False),
        (status(steps=steps), True),
        (status("Complete", "Complete", "Complete", steps=steps), True),
        (status("Failed", "DataInvalid", "Failed", steps=steps), True),
    ):
        run = world.cache.runs.get(KEY) or world.add()
        world.loop.call_soon(world.queue.add, RunKey("AnomalyExperiment", "vision", "another"))
        world.loop.run_for(0.0)
        world.write(run, recorded_status(run), new)
        first, *others = world.queued()
        assert first == inference, "before what waited already"
        assert (KEY in others) is itself
        for key in (first, *others):
            world.queue.done(key)


def test_the_events_of_a_change_follow_it_and_are_logged(world: World) -> None:
    run = world.add(status())
    with capture_logs() as logs:
        world.write(run, status(), status("Failed", "DataInvalid", "Failed"))
    assert world.events == ["DataInvalid"]
    assert [path.rpartition("/")[2] for _, path in world.api.requests] == ["status", "events"]
    assert [event["reportingInstance"] for event in world.api.all("events")] == ["replica-1"]
    expected = ("run changed", "AnomalyExperiment vision/screws", "DataInvalid", "why")
    assert [(entry["event"], entry["run"], entry["reason"], entry["message"]) for entry in logs] == [expected]


def test_a_trial_has_no_events_its_sweep_tells_of_it(world: World) -> None:
    run = world.add(status(), ownerReferences=[OWNER])
    world.write(run, status(), status("Complete", "Complete", "Complete"))
    assert (world.events, world.queued()[0]) == ([], HUNT)


PENDING = status("Pending", "Pending")


@pytest.mark.parametrize(
    ("recorded", "new", "owners", "writes"),
    [
        (None, PENDING, [OWNER], False),
        (None, status("Pending", "Starting"), [OWNER], False),
        (PENDING, status("Pending", "Starting"), [OWNER], False),
        (None, PENDING, [], True),
        (None, status("Running", "Pending"), [OWNER], True),
        (status("Running", "Pending"), PENDING, [OWNER], True),
        (None, status("Pending", "Unschedulable"), [OWNER], True),
        (status("Pending", "JobRefused"), PENDING, [OWNER], True),
    ],
)
def test_that_a_trial_waits_for_its_turn_is_not_worth_a_write(
    world: World, recorded: RunStatus | None, new: RunStatus, owners: list[Manifest], writes: bool
) -> None:
    run = world.add(recorded, ownerReferences=owners)
    world.write(run, recorded or NEW, new)
    assert (("PUT", PATH) in world.api.requests) is writes


def test_a_recorded_status_that_cannot_be_read_names_its_run() -> None:
    assert recorded_status(make_run(EXPERIMENT, {"phase": "Running"})).phase == "Running"
    with pytest.raises(StatusUnreadable, match=r"^AnomalyExperiment vision/screws: [\s\S]*phase"):
        recorded_status(make_run(EXPERIMENT, {"phase": "Melted"}))
