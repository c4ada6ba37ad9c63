"""The operator's HTTP server: progress from pods, probes, metrics.

Every replica accepts progress; one that does not lead forwards it to the leader, whose address is in the Lease, so
that a plain Service in front of all replicas is enough.
"""

from collections.abc import Awaitable, Callable

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import generate_latest
from pydantic import ValidationError

from anomaly_api.run import PROGRESS_PATH, ProgressAnswer, ProgressUpdate
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.cluster.leader_election import LeaderElector
from anomaly_operator.errors import OperatorError
from anomaly_operator.keys import RunKey
from anomaly_operator.metrics import PROGRESS_PUSHES, REGISTRY
from anomaly_operator.serving.progress_board import ProgressBoard
from anomaly_operator.serving.tokens import PodIdentity, TokenVerifier
from anomaly_operator.views import JobView

log = structlog.get_logger()

BODY_LIMIT = 16 * 1024
"""Largest request body, bytes."""
FORWARDED = "X-Anomaly-Forwarded"
"""Header of a forwarded push, which is not forwarded again."""
FORWARD_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Server:
    """The HTTP server, from ``start`` to ``close``.

    Args:
        cache: the pods and Jobs that a push is checked against.
        board: where accepted progress goes.
        elector: whether this replica leads, and where the leader is.
        tokens: identifies the pod that a token belongs to.
        answer: what a pod is told about its progress; None for nothing.
        health: returns why the process is unhealthy; None if it is healthy.
        ready: returns whether the cache is filled.
        refresh_metrics: called before the metrics are read.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        board: ProgressBoard,
        elector: LeaderElector,
        tokens: TokenVerifier,
        answer: Callable[[RunKey, ProgressUpdate], Awaitable[ProgressAnswer | None]],
        health: Callable[[], str | None],
        ready: Callable[[], bool],
        refresh_metrics: Callable[[], None],
    ) -> None:
        self._cache = cache
        self._board = board
        self._elector = elector
        self._tokens = tokens
        self._answer = answer
        self._health = health
        self._ready = ready
        self._refresh_metrics = refresh_metrics
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen on an address and port.

        Raises:
            OSError: the port is taken.
        """
        app = web.Application(client_max_size=BODY_LIMIT)
        app.add_routes(
            [
                web.post(PROGRESS_PATH, self._progress),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._session = aiohttp.ClientSession(timeout=FORWARD_TIMEOUT)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    async def _progress(self, request: web.Request) -> web.Response:
        response = await (self._accept(request) if self._elector.is_leader else self._forward(request))
        PROGRESS_PUSHES.labels(str(response.status)).inc()
        return response

    async def _accept(self, request: web.Request) -> web.Response:
        # A caller without a token is rejected without asking the API server.
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return web.Response(status=401, text="a bearer token is needed")
        # A malformed update is rejected before the API server is asked about the token.
        try:
            update = ProgressUpdate.model_validate_json(await request.read())
            pod = await self._tokens.authenticate(token)
        except ValidationError as error:
            return web.Response(status=400, text=f"no ProgressUpdate: {error.error_count()} errors")
        except OperatorError as error:
            return web.Response(status=503, text=str(error))
        # A pod may report progress of its own run only.
        if pod is None:
            return web.Response(status=401, text="the token is not one for progress")
        job = self._job_of(pod)
        key = RunKey(update.run.kind, update.run.namespace, update.run.name)
        if job is None or job.run_key != key or not job.is_controlled_by(update.run.uid):
            return web.Response(status=403, text=f"pod {pod.name} is not a pod of {update.run.folder}")
        run = self._cache.runs.get(key)
        self._board.put(key, job.uid, update, seldom=run is not None and run.sweep_key is not None)
        answer = await self._answer(key, update)
        return web.json_response(answer.to_json_object()) if answer else web.Response(status=204)

    def _job_of(self, pod: PodIdentity) -> JobView | None:
        """Return the Job that created this very pod (by UID)."""
        known = self._cache.pods.get((pod.namespace, pod.name))
        if known is None or known.owner is None or known.uid != pod.uid:
            return None
        job = self._cache.jobs.get((known.namespace, known.owner.name))
        return job if job and job.uid == known.owner.uid else None

    async def _forward(self, request: web.Request) -> web.Response:
        """Forward a push to the leader, once; a pod whose push is lost soon pushes again anyway."""
        leader = self._elector.leader_address
        if leader is None or FORWARDED in request.headers or self._session is None:
            return web.Response(status=503, text="no leader", headers={"Retry-After": "2"})
        headers = {"Authorization": request.headers.get("Authorization", ""), FORWARDED: "1"}
        try:
            body = await request.read()
            async with self._session.post(leader + PROGRESS_PATH, data=body, headers=headers) as answer:
                return web.Response(status=answer.status, text=await answer.text(), content_type=answer.content_type)
        except (aiohttp.ClientError, TimeoutError) as error:
            return web.Response(status=503, text=f"leader unreachable: {error}", headers={"Retry-After": "2"})

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self._health()
        return web.Response(status=503 if problem else 200, text=problem or "ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(status=200 if ready else 503, text="ok" if ready else "the cache is not filled yet")

    async def _metrics(self, _: web.Request) -> web.Response:
        self._refresh_metrics()
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": "text/plain; version=0.0.4"})
