"""Progress from pods: which pods may push, how often the status is written, which replica accepts."""

import copy
import logging
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from anomaly_api.run import PROGRESS_AUDIENCE, PROGRESS_PATH, ProgressAnswer, ProgressUpdate, RunIdentity
from anomaly_api.status import Progress, Stage
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.leader_election import LeaderElector
from anomaly_operator.errors import LoginError, Unavailable
from anomaly_operator.keys import RunKey
from anomaly_operator.metrics import REGISTRY
from anomaly_operator.resources import TOKEN_REVIEWS, Manifest, Resource
from anomaly_operator.serving import tokens
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.serving.server import BODY_LIMIT, FORWARDED, Server
from anomaly_operator.serving.tokens import PodIdentity, TokenVerifier
from anomaly_operator.views import job_view, pod_view
from anomaly_operator.work_queue import WorkQueue
from support.objects import EXPERIMENT, JOB_UID, KEY, UID, make_job, make_pod, make_run, raw_job, raw_pod
from support.played_loop import PlayedLoop

UPDATE = ProgressUpdate(
    run=RunIdentity(kind=KEY.kind, namespace=KEY.namespace, name=KEY.name, uid=UID),
    stage=Stage.TRAIN,
    progress=Progress(percent=42),
)


class FakeTokenReviews(ApiClient):
    """An API server that knows the tokens ``pod-N``, each bound to the pod of that number."""

    def __init__(self) -> None:
        self.reviews = 0
        self.trouble: Exception | None = None

    async def create(self, resource: Resource, namespace: str | None, body: Manifest) -> Manifest:
        self.reviews += 1
        if self.trouble:
            raise self.trouble
        token = body["spec"]["token"]
        if not token.startswith("pod-"):
            return {"status": {"authenticated": False}}
        number = token.removeprefix("pod-")
        return {
            "status": {
                "authenticated": True,
                "audiences": [PROGRESS_AUDIENCE],
                "user": {
                    "username": "system:serviceaccount:vision:default",
                    "extra": {
                        "authentication.kubernetes.io/pod-name": [f"screws-experiment-{number}"],
                        "authentication.kubernetes.io/pod-uid": [f"pod-{number}"],
                    },
                },
            }
        }


class FixedElector(LeaderElector):
    """An election with a fixed result."""

    def __init__(self, *, is_leader: bool, leader_address: str | None = None) -> None:
        self.is_leader = is_leader
        self.leader_address = leader_address


class Replica:
    """A replica's server with everything that it needs, on a free port; its cache has one Job and its pod 1."""

    def __init__(self, elector: LeaderElector) -> None:
        self.cache, self.api, self.queue = Cache(), FakeTokenReviews(), WorkQueue[RunKey]()
        self.now = 0.0
        self.board = ProgressBoard(self.queue, 2.0, lambda: self.now)
        self.server = Server(
            cache=self.cache,
            board=self.board,
            elector=elector,
            tokens=TokenVerifier(self.api, lambda: 0.0),
            answer=self._answer,
            health=lambda: self.problem,
            ready=lambda: self.problem is None,
            refresh_metrics=lambda: self.refreshed.append(self.now),
        )
        self.answer: ProgressAnswer | None = None
        self.problem: str | None = None
        self.refreshed: list[float] = []
        self.cache.put_job(make_job())
        self.cache.put_pod(make_pod(1))
        self.url = ""

    async def _answer(self, key: RunKey, update: ProgressUpdate) -> ProgressAnswer | None:
        assert (key, update) == (KEY, UPDATE)
        return self.answer

    async def start(self) -> None:
        await self.server.start("127.0.0.1", 0)
        assert self.server._runner
        self.url = f"http://127.0.0.1:{self.server._runner.addresses[0][1]}"


@pytest.fixture
async def leader() -> AsyncIterator[Replica]:
    replica = Replica(FixedElector(is_leader=True))
    await replica.start()
    yield replica
    await replica.server.close()


async def test_a_pod_is_told_to_stop_also_through_a_follower(leader: Replica) -> None:
    leader.answer = ProgressAnswer(stop="Pruned", message="behind the median")
    follower = Replica(FixedElector(is_leader=False, leader_address=leader.url))
    await follower.start()
    headers = {"Authorization": "Bearer pod-1"}
    async with aiohttp.ClientSession() as session:
        for url in (leader.url, follower.url):
            data = UPDATE.model_dump_json(by_alias=True)
            async with session.post(url + PROGRESS_PATH, data=data, headers=headers) as answer:
                assert answer.status == 200
                assert await answer.json() == {"stop": "Pruned", "message": "behind the median"}
    await follower.server.close()


async def push(url: str, token: str | None, body: str | None = None) -> int:
    return (await answer_of(url, token, body))[0]


async def answer_of(url: str, token: str | None, body: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = body if body is not None else UPDATE.model_dump_json(by_alias=True)
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + PROGRESS_PATH, data=data, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def test_a_pod_of_the_run_may_push(leader: Replica) -> None:
    assert await push(leader.url, "pod-1") == 204
    assert leader.board.latest(KEY, JOB_UID) == UPDATE
    assert leader.board.latest(KEY, "another-job") is None
    assert len(leader.queue) == 1


@pytest.mark.parametrize(
    ("token", "body", "status"),
    [
        (None, None, 401),
        ("stolen", None, 401),
        ("pod-2", None, 403),
        ("pod-1", "{}", 400),
        ("pod-1", "not json", 400),
        ("pod-1", "x" * (BODY_LIMIT + 1), 413),
        ("pod-1", UPDATE.model_dump_json(by_alias=True).replace(UID, "other"), 403),
        ("pod-1", UPDATE.model_dump_json(by_alias=True).replace("screws", "bolts"), 403),
    ],
)
async def test_other_pushes_are_refused(leader: Replica, token: str | None, body: str | None, status: int) -> None:
    assert await push(leader.url, token, body) == status
    assert leader.board.latest(KEY, JOB_UID) is None


async def test_a_token_is_reviewed_once_a_minute(leader: Replica) -> None:
    for _ in range(5):
        await push(leader.url, "pod-1")
        await push(leader.url, "stolen")
    assert leader.api.reviews == 2


async def test_a_follower_forwards_pushes_to_the_leader(leader: Replica) -> None:
    follower = Replica(FixedElector(is_leader=False, leader_address=leader.url))
    await follower.start()
    assert await push(follower.url, "pod-1") == 204
    assert leader.board.latest(KEY, JOB_UID) == UPDATE
    assert follower.api.reviews == 0
    await follower.server.close()


async def test_without_a_leader_the_pod_is_told_to_retry() -> None:
    follower = Replica(FixedElector(is_leader=False))
    await follower.start()
    assert await answer_of(follower.url, "pod-1") == (503, "no leader")
    follower.server._elector.leader_address = "http://127.0.0.1:1"
    assert (await answer_of(follower.url, "pod-1"))[1].startswith("leader unreachable: ")
    await follower.server.close()


async def test_status_follows_progress_at_most_every_two_seconds() -> None:
    now = 0.0
    queue: WorkQueue[RunKey] = WorkQueue()
    board = ProgressBoard(queue, 2.0, lambda: now)
    board.put(KEY, JOB_UID, UPDATE)
    assert await queue.get() == KEY
    queue.done(KEY)
    for _ in range(10):
        board.put(KEY, JOB_UID, UPDATE)
    assert len(queue) == 0
    now = 5.0
    board.put(KEY, JOB_UID, UPDATE)
    assert len(queue) == 1
    queue.shut_down()


async def test_trials_are_looked_at_seldom() -> None:
    now = 0.0
    queue: WorkQueue[RunKey] = WorkQueue()
    board = ProgressBoard(queue, 2.0, lambda: now)
    board.put(KEY, JOB_UID, UPDATE, seldom=True)
    assert await queue.get() == KEY
    queue.done(KEY)
    now = 29.0
    board.put(KEY, JOB_UID, UPDATE, seldom=True)
    assert len(queue) == 0
    now = 60.0
    board.put(KEY, JOB_UID, UPDATE, seldom=True)
    assert len(queue) == 1
    queue.shut_down()


async def test_probes_and_metrics_answer(leader: Replica) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/healthz", "/readyz", "/metrics"):
            async with session.get(leader.url + path) as answer:
                assert answer.status == 200
                text = await answer.text()
    assert "anomaly_operator_progress_total" in text


async def ask(url: str, headers: dict[str, str]) -> tuple[int, str | None]:
    """Push with these headers, and return the status and when the pod may push again."""
    async with aiohttp.ClientSession() as session:
        data = UPDATE.model_dump_json(by_alias=True)
        async with session.post(url + PROGRESS_PATH, data=data, headers=headers) as answer:
            return answer.status, answer.headers.get("Retry-After")


@pytest.mark.parametrize(
    ("authorization", "status"),
    [("bearer pod-1", 204), ("Basic pod-1", 401), ("Bearer ", 401), ("pod-1", 401), ("Bearer", 401)],
)
async def test_a_token_is_a_bearer_token(leader: Replica, authorization: str, status: int) -> None:
    assert await ask(leader.url, {"Authorization": authorization}) == (status, None)
    assert leader.api.reviews == (status == 204), "who has no token is not asked about"


@pytest.mark.parametrize("trouble", [Unavailable(503, "down"), LoginError("no token")])
async def test_a_server_that_cannot_be_asked_is_no_refusal(leader: Replica, trouble: Exception) -> None:
    leader.api.trouble = trouble
    assert await push(leader.url, "pod-1") == 503
    assert leader.board.latest(KEY, JOB_UID) is None


@pytest.mark.parametrize(
    ("token", "body", "why"),
    [
        (None, None, "a bearer token is needed"),
        ("stolen", None, "the token is not one for progress"),
        ("pod-2", None, "pod screws-experiment-2 is not a pod of vision/screws/"),
        ("pod-1", "{}", "no ProgressUpdate: 3 errors"),
    ],
)
async def test_a_pod_that_is_refused_is_told_why(
    leader: Replica, token: str | None, body: str | None, why: str
) -> None:
    assert (await answer_of(leader.url, token, body))[1].startswith(why)


async def test_a_pod_is_told_what_the_api_server_said(leader: Replica) -> None:
    leader.api.trouble = Unavailable(503, "down")
    assert await answer_of(leader.url, "pod-1") == (503, "503: down")


async def test_the_server_listens_at_its_address_and_leaves_signals_and_the_log_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    caplog.set_level(logging.INFO)
    replica = Replica(FixedElector(is_leader=True))
    await replica.start()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert replica.server._runner
    assert [address[0] for address in replica.server._runner.addresses] == ["127.0.0.1"]
    assert replica.server._session
    assert replica.server._session.timeout.total == 5
    await push(replica.url, "pod-1")
    assert [record.name for record in caplog.records if record.name.startswith("aiohttp")] == []
    await replica.server.close()


async def test_a_malformed_update_is_refused_before_anything_is_asked(leader: Replica) -> None:
    assert await push(leader.url, "pod-1", "{}") == 400
    assert leader.api.reviews == 0


async def test_another_pod_of_the_name_may_not_push(leader: Replica) -> None:
    later = raw_pod(1)
    later["metadata"] |= {"uid": "a-later-one", "resourceVersion": "99"}
    leader.cache.put_pod(pod_view(later))
    assert await push(leader.url, "pod-1") == 403


async def test_a_pod_of_an_earlier_job_of_the_name_may_not_push(leader: Replica) -> None:
    later = raw_job()
    later["metadata"] |= {"uid": "a-later-one", "resourceVersion": "99"}
    leader.cache.put_job(job_view(later))
    assert await push(leader.url, "pod-1") == 403


@pytest.mark.parametrize("is_trial", [False, True])
async def test_the_pushes_of_trials_are_looked_at_seldom(leader: Replica, is_trial: bool) -> None:
    owner = {"kind": "AnomalyExperiment", "name": "hunt", "uid": "of-hunt", "controller": is_trial}
    leader.cache.put_run(make_run(EXPERIMENT | {"metadata": EXPERIMENT["metadata"] | {"ownerReferences": [owner]}}))
    for now in (0.0, 5.0):
        leader.now = now
        await push(leader.url, "pod-1")
        if now == 0.0:
            leader.queue.done(await leader.queue.get())
    assert len(leader.queue) == (0 if is_trial else 1)
    leader.queue.shut_down()


async def test_a_push_is_forwarded_once(leader: Replica) -> None:
    follower = Replica(FixedElector(is_leader=False, leader_address=leader.url))
    await follower.start()
    token = {"Authorization": "Bearer pod-1"}
    assert await ask(follower.url, token | {FORWARDED: "1"}) == (503, "2")
    assert leader.board.latest(KEY, JOB_UID) is None
    assert await ask(follower.url, {}) == (401, None), "the leader says so"
    leader.server._elector.is_leader = False
    assert await ask(follower.url, token) == (503, None), "and the leader forwards nothing that was forwarded"
    follower.server._elector.leader_address = "http://127.0.0.1:1"
    assert await ask(follower.url, token) == (503, "2")
    follower.server._elector.leader_address = None
    assert await ask(follower.url, token) == (503, "2")
    await follower.server.close()


async def test_probes_tell_what_is_wrong(leader: Replica) -> None:
    async def get(path: str) -> tuple[int, str, str]:
        async with aiohttp.ClientSession() as session, session.get(leader.url + path) as answer:
            return answer.status, await answer.text(), answer.headers["Content-Type"]

    assert (await get("/healthz"))[:2] == (200, "ok")
    assert (await get("/readyz"))[:2] == (200, "ok")
    leader.problem = "no complete LIST for 900 s"
    assert (await get("/healthz"))[:2] == (503, "no complete LIST for 900 s")
    assert (await get("/readyz"))[:2] == (503, "the cache is not filled yet")
    assert leader.refreshed == []
    status, _, content_type = await get("/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4")
    assert leader.refreshed == [0.0]


async def test_pushes_are_counted_by_their_answers(leader: Replica) -> None:
    def count(result: str) -> float:
        return REGISTRY.get_sample_value("anomaly_operator_progress_total", {"result": result}) or 0.0

    before = [count(result) for result in ("204", "401")]
    for token in ("pod-1", None, "pod-1"):
        await push(leader.url, token)
    assert [count(result) for result in ("204", "401")] == [before[0] + 2, before[1] + 1]


# Tokens ---------------------------------------------------------------------------------------------------------------

REVIEWED: Manifest = {
    "authenticated": True,
    "audiences": ["somebody-else", PROGRESS_AUDIENCE],
    "user": {
        "username": "system:serviceaccount:vision:default",
        "extra": {tokens.POD_NAME: ["screws-experiment-1"], tokens.POD_UID: ["pod-1"]},
    },
}


class Reviews(ApiClient):
    """An API server that says the same of every token, and keeps what it was asked."""

    def __init__(self, status: Manifest | None) -> None:
        self.answer: Manifest = {} if status is None else {"status": status}
        self.asked: list[tuple[Resource, str | None, Manifest]] = []

    async def create(self, resource: Resource, namespace: str | None, body: Manifest) -> Manifest:
        self.asked.append((resource, namespace, body))
        return self.answer

    @property
    def tokens(self) -> list[str]:
        return [body["spec"]["token"] for _, _, body in self.asked]


def without(*path: str, **fields: Any) -> Manifest:
    """Return the good answer without a field, or with others."""
    changed = copy.deepcopy(REVIEWED)
    place = changed
    for name in path[:-1]:
        place = place[name]
    if path:
        del place[path[-1]]
    return changed | fields


async def test_a_token_is_one_of_a_pod_for_this_audience() -> None:
    api = Reviews(REVIEWED)
    assert await TokenVerifier(api, lambda: 0.0).authenticate("t") == PodIdentity(
        "vision", "screws-experiment-1", "pod-1"
    )
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "t", "audiences": [PROGRESS_AUDIENCE]},
    }
    assert api.asked == [(TOKEN_REVIEWS, None, body)]


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        without(authenticated=False),
        without("authenticated"),
        without("audiences"),
        without(audiences=["https://kubernetes.default.svc"]),
        without("user"),
        without("user", "extra"),
        without("user", "extra", tokens.POD_NAME),
        without("user", "username"),
        without(user=REVIEWED["user"] | {"username": "system:node:worker-1"}),
    ],
)
async def test_any_other_token_is_none_of_a_pod(status: Manifest | None) -> None:
    assert await TokenVerifier(Reviews(status), lambda: 0.0).authenticate("t") is None


async def test_an_answer_is_reused_for_less_than_a_minute() -> None:
    api, clock = Reviews(REVIEWED), [0.0]
    verifier = TokenVerifier(api, lambda: clock[0])
    for clock[0], asked in ((5.0, 1), (64.9, 1), (65.0, 2), (124.9, 2)):
        assert await verifier.authenticate("t") is not None
        assert len(api.asked) == asked
    await verifier.authenticate("another")
    assert api.tokens == ["t", "t", "another"]


async def test_the_answers_that_are_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tokens.CACHE_SIZE == 10_000
    monkeypatch.setattr(tokens, "CACHE_SIZE", 2)
    api, clock = Reviews(REVIEWED), [0.0]
    verifier = TokenVerifier(api, lambda: clock[0])
    for clock[0], token in ((0.0, "a"), (1.0, "b"), (60.5, "a"), (60.6, "c"), (60.7, "a"), (60.8, "c"), (60.9, "b")):
        await verifier.authenticate(token)
    assert api.tokens == ["a", "b", "a", "c", "b"], "a, asked anew, is younger than b"


# When a run with new progress is looked at ----------------------------------------------------------------------------


def test_progress_within_the_pause_is_looked_at_when_the_pause_is_over() -> None:
    loop = PlayedLoop()
    queue: WorkQueue[RunKey] = WorkQueue()
    board = ProgressBoard(queue, 2.0, loop.time)
    looked: list[float] = []

    async def work() -> None:
        while True:
            queue.done(await queue.get())
            looked.append(round(loop.time(), 3))

    worker = loop.create_task(work())
    for at in (0.0, 0.5, 1.0, 1.5, 2.5, 6.0, 8.0, 8.5):
        loop.call_at(at, board.put, KEY, JOB_UID, UPDATE)
    loop.call_at(8.25, board.forget, KEY)
    loop.run_for(20.0)
    # At once, after the pause, and so on; a run that was forgotten has no pause.
    assert looked == [0.0, 2.0, 4.0, 6.0, 8.0, 8.5]
    looked.clear()
    for at in (30.0, 30.0):
        loop.call_at(at, board.put, KEY, JOB_UID, UPDATE)
    loop.run_for(20.0)
    assert looked == [30.0, 32.0], "of two at once, the second is not lost"
    worker.cancel()
    loop.close()


def test_progress_that_is_forgotten_is_none() -> None:
    loop = PlayedLoop()
    board = ProgressBoard(WorkQueue(), 2.0, lambda: 0.0)

    async def put() -> None:
        board.put(KEY, JOB_UID, UPDATE)

    loop.run_until_complete(put())
    assert board.latest(KEY, JOB_UID) == UPDATE
    assert board.latest(KEY, "") is None
    board.forget(KEY)
    board.forget(KEY)
    assert board.latest(KEY, JOB_UID) is None
    loop.close()
