"""The client of the API server, against a server on loopback: what is asked again, for how long, and what is not."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from anomaly_operator.cluster import client as client_module
from anomaly_operator.cluster.client import ATTEMPTS, LONGEST_WAIT, ApiClient
from anomaly_operator.errors import ApiError, Conflict, Forbidden, Gone, Invalid, LoginError, NotFound, Unavailable
from anomaly_operator.metrics import REGISTRY
from anomaly_operator.resources import EXPERIMENTS, JOBS, LEASES, TOKEN_REVIEWS
from support.certificates import issue_certificate

Answer = Callable[[], web.StreamResponse]


@dataclass
class Server:
    """Answers in order, then with an empty object; keeps what it was asked."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs))
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        self.headers.append(dict(request.headers))
        return self.answers.pop(0)() if self.answers else web.json_response({"metadata": {}})


def status(code: int, message: str | None = "as played", **headers: str) -> Answer:
    return lambda: web.json_response({"kind": "Status", "message": message}, status=code, headers=headers)


def page(text: str, code: int = 200, content_type: str = "text/html") -> Answer:
    return lambda: web.Response(text=text, status=code, content_type=content_type)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(app) as running:
        yield str(running.make_url("")).rstrip("/")


@pytest.fixture
async def api(url: str) -> AsyncIterator[ApiClient]:
    client = ApiClient(lambda: kopf.ConnectionInfo(server=url, token="first"))
    yield client
    await client.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which pass at once."""
    taken: list[float] = []
    sleep = asyncio.sleep

    async def no_sleep(seconds: float) -> None:
        taken.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    return taken


async def test_a_busy_server_is_asked_again_when_it_says(api: ApiClient, server: Server, waits: list[float]) -> None:
    server.answers = [status(429, **{"Retry-After": "7"}), status(503, **{"Retry-After": "3"})]
    assert await api.get(JOBS, "vision", "screws") == {"metadata": {}}
    assert waits == [7.0, 3.0]
    assert server.asked == [("GET", "/apis/batch/v1/namespaces/vision/jobs/screws")] * 3


async def test_no_server_holds_a_worker_for_long(api: ApiClient, server: Server, waits: list[float]) -> None:
    server.answers = [status(429, **{"Retry-After": "86400"}), status(429, **{"Retry-After": "30"})]
    await api.get(JOBS, "vision", "screws")
    assert waits == [LONGEST_WAIT, 30.0] == [30.0, 30.0]


@pytest.mark.parametrize("retry_after", ["", "Wed, 21 Oct 2026 07:28:00 GMT", "-5"])
async def test_without_a_number_of_seconds_the_pauses_grow_and_vary(
    api: ApiClient, server: Server, waits: list[float], retry_after: str
) -> None:
    server.answers = [status(503, **{"Retry-After": retry_after})] * (ATTEMPTS - 1)
    await api.get(JOBS, "vision", "screws")
    assert [wait <= 0.25 * 2**number for number, wait in enumerate(waits)] == [True] * 4
    assert len(set(waits)) == 4
    assert all(wait >= 0 for wait in waits)


async def test_a_server_that_stays_down_is_told_after_five_attempts(
    api: ApiClient, server: Server, waits: list[float]
) -> None:
    server.answers = [status(500, "etcdserver: no leader")] * 9
    with pytest.raises(Unavailable, match="500: etcdserver: no leader") as told:
        await api.create(JOBS, "vision", {"metadata": {"name": "screws"}})
    assert (told.value.status, told.value.message) == (500, "etcdserver: no leader")
    assert (len(server.asked), len(waits)) == (5, 4)


@pytest.mark.parametrize(
    ("code", "error"),
    [(400, Invalid), (403, Forbidden), (404, NotFound), (409, Conflict), (410, Gone), (418, ApiError), (422, Invalid)],
)
async def test_a_refusal_is_not_asked_again(
    api: ApiClient, server: Server, waits: list[float], code: int, error: type[ApiError]
) -> None:
    server.answers = [status(code)]
    with pytest.raises(ApiError, match=f"^{code}: as played$") as told:
        await api.patch(JOBS, "vision", "screws", {"spec": {}})
    assert type(told.value) is error
    assert len(server.asked) == 1
    assert waits == []


@pytest.mark.parametrize(
    "broken",
    [
        page("<html>log in here</html>"),
        page('{"items": [', content_type="application/json"),
        lambda: web.Response(body=b'{"a": "\xff"}', content_type="application/json"),
    ],
)
async def test_an_answer_that_is_no_json_is_none(
    api: ApiClient, server: Server, waits: list[float], broken: Answer
) -> None:
    server.answers = [broken]
    assert await api.get(JOBS, "vision", "screws") == {"metadata": {}}
    server.answers = [broken] * ATTEMPTS
    with pytest.raises(Unavailable, match=r"^0: "):
        await api.get(JOBS, "vision", "screws")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (page("<h1>Forbidden</h1>", 403), "<h1>Forbidden</h1>"),
        (page("[]", 403), "[]"),
        (page("null", 403), "null"),
        (page('{"code": 403}', 403), '{"code": 403}'),
        (status(403, None), "None"),
    ],
)
async def test_a_refusal_in_another_form_is_told_as_it_is(
    api: ApiClient, server: Server, answer: Answer, message: str
) -> None:
    server.answers = [answer]
    with pytest.raises(Forbidden) as told:
        await api.get(JOBS, "vision", "screws")
    assert told.value.message == message


async def test_a_server_that_is_not_there_is_asked_again(waits: list[float]) -> None:
    client = ApiClient(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:1"))
    with pytest.raises(Unavailable, match=r"^0: ClientConnectorError"):
        await client.get(JOBS, "vision", "screws")
    assert len(waits) == 4
    await client.close()


async def test_a_request_that_takes_too_long_is_asked_again(
    url: str, server: Server, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client_module.TIMEOUT.total == 30
    monkeypatch.setattr(client_module, "TIMEOUT", aiohttp.ClientTimeout(total=0.1))
    stuck = asyncio.Event()
    handle = server.handle

    async def hang(request: web.Request) -> web.StreamResponse:
        await stuck.wait()
        return await handle(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hang)
    async with TestServer(app) as hanging:
        client = ApiClient(lambda: kopf.ConnectionInfo(server=str(hanging.make_url("")).rstrip("/")))
        with pytest.raises(Unavailable, match=r"^0: .*Timeout"):
            await client.get(JOBS, "vision", "screws")
        stuck.set()
        await client.close()


async def test_a_rejected_token_is_replaced_by_a_new_one(url: str, server: Server, waits: list[float]) -> None:
    tokens = iter(["first", "second"])
    client = ApiClient(lambda: kopf.ConnectionInfo(server=url, token=next(tokens)))
    server.answers = [status(401, **{"Retry-After": "20"})]
    await client.get(JOBS, "vision", "screws")
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer first", "Bearer second"]
    [wait] = waits
    assert wait <= 0.25, "the pause that is asked for is that of whoever has the old one"
    await client.close()


async def test_without_new_credentials_nothing_is_asked_again(url: str, server: Server) -> None:
    logins = [kopf.ConnectionInfo(server=url, token="first")]

    def login() -> kopf.ConnectionInfo:
        if not logins:
            raise LoginError("the file is gone")
        return logins.pop()

    client = ApiClient(login)
    server.answers = [status(401)]
    with pytest.raises(LoginError):
        await client.get(JOBS, "vision", "screws")
    assert len(server.asked) == 1
    await client.close()


async def test_a_list_comes_in_pages(api: ApiClient, server: Server) -> None:
    first = {"items": [{"a": 1}], "metadata": {"resourceVersion": "7", "continue": "next page"}}
    last = {"items": None, "metadata": {"resourceVersion": "7", "continue": ""}}
    server.answers = [lambda: web.json_response(first), lambda: web.json_response(last)]
    found = [each async for each in api.list(JOBS, "vision", "app=a", "involvedObject.uid=1")]
    assert found == [([{"a": 1}], "7"), ([], "7")]
    query = "/apis/batch/v1/namespaces/vision/jobs?limit=100&labelSelector=app%3Da&fieldSelector=involvedObject.uid%3D1"
    assert server.asked == [("GET", query), ("GET", f"{query}&continue=next+page")]


async def test_a_list_that_is_too_old_to_go_on_is_told(api: ApiClient, server: Server) -> None:
    first = {"items": [{"a": 1}], "metadata": {"resourceVersion": "7", "continue": "x"}}
    server.answers = [lambda: web.json_response(first), status(410)]
    with pytest.raises(Gone):
        [each async for each in api.list(EXPERIMENTS)]
    assert server.asked[0] == ("GET", "/apis/anomalyops.io/v1alpha1/anomalyexperiments?limit=100")


async def test_discovery_lists_a_group_that_is_named_before_what_it_serves(api: ApiClient, server: Server) -> None:
    group = {"name": "anomalyops.io", "versions": [{"version": "v1"}, {"version": "v1alpha1"}]}
    others = {"name": "apps", "versions": [{"version": "v1"}, {"version": "v1beta1"}]}
    listed = {"resources": [{"name": "anomalyexperiments"}, {"name": "anomalyexperiments/status"}]}
    counted = requests_counted("get", "apis", "200")
    server.answers = [lambda: web.json_response({"groups": [others, group]}), lambda: web.json_response(listed)]
    assert await api.discover("anomalyops.io", "v1alpha1") == {"anomalyexperiments", "anomalyexperiments/status"}
    assert server.asked == [("GET", "/apis"), ("GET", "/apis/anomalyops.io/v1alpha1")]
    assert requests_counted("get", "apis", "200") == counted + 2
    for name, version in (("anomalyops.io", "v1beta1"), ("batch", "v1")):
        server.answers = [lambda: web.json_response({"groups": [others, group]})]
        assert await api.discover(name, version) == frozenset(), "which is asked nothing more"
    server.answers = [lambda: web.json_response({"groups": [group]}), status(404)]
    assert await api.discover("anomalyops.io", "v1") == frozenset(), "a group that is gone before it is asked"
    assert requests_counted("get", "apis", "404") == 1


async def test_every_verb_is_sent_as_kubernetes_reads_it(api: ApiClient, server: Server) -> None:
    await api.create(TOKEN_REVIEWS, None, {"a": 1})
    await api.patch(JOBS, "vision", "screws", {"a": 2})
    await api.replace_status(EXPERIMENTS, "vision", "screws", {"a": 3})
    await api.replace(LEASES, "system", "lease", {"a": 4})
    await api.delete(JOBS, "vision", "screws", "uid-1")
    await api.delete(JOBS, "vision", "screws")
    assert server.asked == [
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews?fieldValidation=Strict"),
        ("PATCH", "/apis/batch/v1/namespaces/vision/jobs/screws"),
        ("PUT", "/apis/anomalyops.io/v1alpha1/namespaces/vision/anomalyexperiments/screws/status"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/system/leases/lease"),
        ("DELETE", "/apis/batch/v1/namespaces/vision/jobs/screws"),
        ("DELETE", "/apis/batch/v1/namespaces/vision/jobs/screws"),
    ]
    in_background = {"propagationPolicy": "Background"}
    deletions = [in_background | {"preconditions": {"uid": "uid-1"}}, in_background]
    assert server.bodies == [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}, *deletions]
    types = [headers["Content-Type"] for headers in server.headers]
    assert types == [f"application/{'merge-patch+' if verb == 1 else ''}json" for verb in range(6)]
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer first"}


def requests_counted(verb: str, resource: str, code: str) -> float:
    labels = {"verb": verb, "resource": resource, "code": code}
    return REGISTRY.get_sample_value("anomaly_operator_api_requests_total", labels) or 0.0


async def test_every_attempt_is_counted_by_verb_resource_and_answer(
    api: ApiClient, server: Server, waits: list[float]
) -> None:
    expected = [
        ("get", "jobs", "503"),
        ("get", "jobs", "200"),
        ("list", "jobs", "200"),
        ("create", "jobs", "409"),
        ("patch", "jobs", "200"),
        ("update_status", "anomalyexperiments", "200"),
        ("update", "leases", "200"),
        ("delete", "jobs", "404"),
    ]
    before = [requests_counted(*labels) for labels in expected]
    empty = {"items": [], "metadata": {"resourceVersion": "7"}}
    server.answers = [status(503)]
    await api.get(JOBS, "vision", "screws")
    server.answers = [lambda: web.json_response(empty)]
    assert [each async for each in api.list(JOBS)] == [([], "7")]
    server.answers = [status(409)]
    with pytest.raises(Conflict):
        await api.create(JOBS, "vision", {})
    await api.patch(JOBS, "vision", "screws", {})
    await api.replace_status(EXPERIMENTS, "vision", "screws", {})
    await api.replace(LEASES, "system", "lease", {})
    server.answers = [status(404)]
    with pytest.raises(NotFound):
        await api.delete(JOBS, "vision", "screws")
    assert [requests_counted(*labels) for labels in expected] == [count + 1 for count in before]


async def test_an_attempt_without_an_answer_is_counted_as_an_error(waits: list[float]) -> None:
    client = ApiClient(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:1"))
    before = requests_counted("get", "jobs", "error")
    with pytest.raises(Unavailable):
        await client.get(JOBS, "vision", "screws")
    assert requests_counted("get", "jobs", "error") == before + 5
    await client.close()


async def test_a_request_is_small_and_says_who_asks(api: ApiClient, server: Server) -> None:
    await api.create(JOBS, "vision", {"metadata": {"name": "screws"}, "spec": [1, 2]})
    [headers] = server.headers
    assert (headers["User-Agent"], headers["Accept"]) == ("anomaly-operator", "application/json")
    assert headers["Content-Length"] == str(len('{"metadata":{"name":"screws"},"spec":[1,2]}'))


async def test_no_more_requests_are_in_flight_than_there_are_connections(url: str, server: Server) -> None:
    in_flight: list[int] = [0]

    async def slow(request: web.Request) -> web.StreamResponse:
        in_flight.append(in_flight[-1] + 1)
        await asyncio.sleep(0.02)
        in_flight.append(in_flight[-1] - 1)
        return await server.handle(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", slow)
    async with TestServer(app) as running:
        client = ApiClient(lambda: kopf.ConnectionInfo(server=str(running.make_url("")).rstrip("/")), connections=2)
        await asyncio.gather(*(client.get(JOBS, "vision", str(number)) for number in range(5)))
        await client.close()
    assert max(in_flight) == 2


async def test_the_authority_of_the_credentials_is_trusted_and_no_other(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    certificate, key = issue_certificate(tmp_path, "api-server", "IP:127.0.0.1")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    running = TestServer(app)
    await running.start_server(ssl=tls)
    address = str(running.make_url("")).rstrip("/")
    knowing = ApiClient(lambda: kopf.ConnectionInfo(server=address, ca_path=str(certificate)))
    wary = ApiClient(lambda: kopf.ConnectionInfo(server=address))
    assert await knowing.get(JOBS, "vision", "screws") == {"metadata": {}}
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await wary.get(JOBS, "vision", "screws")
    assert len(server.asked) == 1
    for closed in (knowing, wary, running):
        await closed.close()


async def test_a_proxy_of_the_credentials_is_used(server: Server, url: str) -> None:
    info = kopf.ConnectionInfo(server="http://kubernetes.invalid", proxy_url=url)
    client = ApiClient(lambda: info)
    await client.get(JOBS, "vision", "screws")
    assert server.headers[0]["Host"] == "kubernetes.invalid"
    await client.close()
