"""What an answer of the API server to a planned action means: done, refused, to be tried later, or a failure."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from anomaly_operator import names
from anomaly_operator.cluster.apply import apply, pods_selector
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.decide.observed import Refusal
from anomaly_operator.decide.plan import Action, CreateJob, DeleteJob, DeletePods, PatchJob, Requeue
from anomaly_operator.errors import Forbidden, Invalid, RequeueRequested
from anomaly_operator.resources import Manifest
from anomaly_operator.views import JobView, job_view
from support.objects import KEY, UID, make_job, raw_job, raw_pod
from support.played_api import PlayedApi, PlayedClient, Refused
from support.played_loop import PlayedLoop

JOB = "screws-experiment"


class World:
    """An API server, and a cache that watches nothing."""

    def __init__(self) -> None:
        self.loop = PlayedLoop()
        self.api = PlayedApi(self.loop.time)
        self.cache = Cache()

    def apply(self, action: Action) -> Refusal | None:
        return self.loop.run_until_complete(apply(PlayedClient(self.api), self.cache, "vision", action))

    def cached(self) -> JobView | None:
        return self.cache.jobs.get(("vision", JOB))

    def has(self, **metadata: Any) -> Manifest:
        """Put a Job on the server."""
        raw = manifest()
        return self.api.add("jobs", raw | {"metadata": raw["metadata"] | metadata})


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.loop.close()


def manifest() -> Manifest:
    raw = raw_job()
    return {"metadata": {key: value for key, value in raw["metadata"].items() if key != "uid"}, "spec": raw["spec"]}


def owner(kind: str = "AnomalyExperiment", name: str = "screws", uid: str = "another") -> list[Manifest]:
    return [{"kind": kind, "name": name, "uid": uid, "controller": True}]


def test_a_created_job_is_known_at_once(world: World) -> None:
    assert world.apply(CreateJob(manifest())) is None
    assert world.cached() == job_view(world.api.objects["jobs", JOB])


def test_a_job_of_this_run_is_adopted(world: World) -> None:
    existing = world.has()
    assert world.apply(CreateJob(manifest())) is None
    assert world.cached() == job_view(existing)
    assert world.api.writes == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"deletionTimestamp": "2026-01-02T03:04:05Z"},
        {"ownerReferences": owner()},
        {"ownerReferences": owner(), "deletionTimestamp": "2026-01-02T03:04:05Z"},
        {"ownerReferences": owner("Deployment", "x"), "deletionTimestamp": "2026-01-02T03:04:05Z"},
        {"ownerReferences": [], "deletionTimestamp": "2026-01-02T03:04:05Z"},
    ],
)
def test_a_job_that_goes_away_is_waited_for(world: World, metadata: dict[str, Any]) -> None:
    world.has(**metadata)
    with pytest.raises(RequeueRequested):
        world.apply(CreateJob(manifest()))
    assert world.cached() is None


@pytest.mark.parametrize(
    "owners", [[], owner("AnomalyInference"), owner(name="nails"), owner("Deployment", "screws", UID[::-1])]
)
def test_a_job_of_somebody_else_is_a_refusal(world: World, owners: list[Manifest]) -> None:
    world.has(ownerReferences=owners)
    assert world.apply(CreateJob(manifest())) == Refusal(
        f"a Job named {JOB} exists that does not belong to this run; delete it or rename the run"
    )
    assert world.cached() is None


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_refused_job_is_a_refusal_in_the_servers_words(world: World, status: int) -> None:
    world.api.refusal = Refused(status, "exceeded quota")
    assert world.apply(CreateJob(manifest())) == Refusal("exceeded quota")


def test_a_namespace_that_is_being_deleted_refuses_nothing(world: World) -> None:
    world.api.refusal = Refused(403, "forbidden: unable to create: because it is being terminated")
    with pytest.raises(RequeueRequested):
        world.apply(CreateJob(manifest()))


def test_a_job_that_vanishes_between_two_answers_is_tried_again(world: World) -> None:
    world.api.refusal = Refused(409, "already exists")
    with pytest.raises(RequeueRequested):
        world.apply(CreateJob(manifest()))


def test_a_patched_job_is_known_at_once(world: World) -> None:
    world.cache.put_job(job_view(world.has()))
    assert world.apply(PatchJob(JOB, {"suspend": True, "activeDeadlineSeconds": 60})) is None
    known = world.cached()
    assert known is not None
    assert (known.suspend, known.active_deadline_seconds, known.backoff_limit) == (True, 60, 3)
    assert world.api.objects["jobs", JOB]["spec"]["suspend"] is True


def test_a_job_that_is_gone_makes_the_plan_outdated(world: World) -> None:
    for action in (PatchJob(JOB, {"suspend": True}), DeleteJob(JOB, "uid-1")):
        with pytest.raises(RequeueRequested):
            world.apply(action)


def test_a_deleted_job_is_not_known_any_more(world: World) -> None:
    job = job_view(world.has())
    world.cache.put_job(job)
    assert world.apply(DeleteJob(JOB, job.uid)) is None
    assert (world.cached(), ("jobs", JOB) in world.api.objects) == (None, False)


def test_another_job_of_the_name_is_not_deleted(world: World) -> None:
    world.cache.put_job(job_view(world.has()))
    with pytest.raises(RequeueRequested):
        world.apply(DeleteJob(JOB, "of-an-earlier-one"))
    assert ("jobs", JOB) in world.api.objects
    assert world.cached() is not None


def test_a_newer_job_of_the_name_stays_known(world: World) -> None:
    old = world.has()
    world.cache.put_job(make_job())
    assert world.apply(DeleteJob(JOB, old["metadata"]["uid"])) is None
    assert world.cached() == make_job()


def test_each_pod_is_deleted_also_if_another_is_gone(world: World) -> None:
    for number in (1, 3):
        world.api.add("pods", raw_pod(number))
    assert world.apply(DeletePods(tuple(f"{JOB}-{number}" for number in (1, 2, 3)))) is None
    assert list(world.api.all("pods")) == []


def test_coming_back_is_the_reconcilers_part(world: World) -> None:
    assert world.apply(Requeue()) is None
    assert world.api.requests == []


@pytest.mark.parametrize(("status", "error"), [(403, Forbidden), (422, Invalid)])
def test_a_patch_that_is_refused_is_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, status: int, error: type[Exception]
) -> None:
    world.has()

    def refuse(*_: object) -> Manifest:
        raise Refused(status, "not yours")

    monkeypatch.setattr(world.api, "_write", refuse)
    with pytest.raises(error, match=re.escape(f"{status}: not yours")):
        world.apply(PatchJob(JOB, {"suspend": True}))


def test_pods_are_found_by_the_label_of_the_job_controller() -> None:
    assert pods_selector(make_job()) == "batch.kubernetes.io/job-name=screws-experiment"
    assert names.job(KEY) == JOB
