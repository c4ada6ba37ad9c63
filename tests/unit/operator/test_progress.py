"""Progress from pods: which pods may push, how often the status is written, which replica accepts."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from anomaly_api.run import PROGRESS_AUDIENCE, PROGRESS_PATH, ProgressAnswer, ProgressUpdate, RunIdentity
from anomaly_api.status import Progress, Stage
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.leader_election import LeaderElector
from anomaly_operator.keys import RunKey
from anomaly_operator.resources import Manifest, Resource
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.serving.server import BODY_LIMIT, Server
from anomaly_operator.serving.tokens import TokenVerifier
from anomaly_operator.work_queue import WorkQueue
from support.objects import JOB_UID, KEY, UID, make_job, make_pod

UPDATE = ProgressUpdate(
    run=RunIdentity(kind=KEY.kind, namespace=KEY.namespace, name=KEY.name, uid=UID),
    stage=Stage.TRAIN,
    progress=Progress(percent=42),
)


class FakeTokenReviews(ApiClient):
    """An API server that knows the tokens ``pod-N``, each bound to the pod of that number."""

    def __init__(self) -> None:
        self.reviews = 0

    async def create(self, resource: Resource, namespace: str | None, body: Manifest) -> Manifest:
        self.reviews += 1
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
        self.board = ProgressBoard(self.queue, 2.0, lambda: 0.0)
        self.server = Server(
            cache=self.cache,
            board=self.board,
            elector=elector,
            tokens=TokenVerifier(self.api, lambda: 0.0),
            answer=self._answer,
            health=lambda: None,
            ready=lambda: True,
            refresh_metrics=lambda: None,
        )
        self.answer: ProgressAnswer | None = None
        self.cache.put_job(make_job())
        self.cache.put_pod(make_pod(1))
        self.url = ""

    async def _answer(self, key: RunKey, update: ProgressUpdate) -> ProgressAnswer | None:
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
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = body if body is not None else UPDATE.model_dump_json(by_alias=True)
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + PROGRESS_PATH, data=data, headers=headers) as answer,
    ):
        return answer.status


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
    assert await push(follower.url, "pod-1") == 503
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
