"""An API server in memory, as far as the operator can tell: versions, conflicts, pages, watches, and what goes wrong.

It answers below the operator's own client, so that the client's retries are played too. It keeps what it was asked to
write, and complains of writes that change nothing.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, cast

import aiohttp
import kopf

from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.decide.times import to_timestamp
from anomaly_operator.resources import EVENTS, LEASES, Manifest
from support.bad_manifests import merged

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATENCY = 0.005
"""Seconds from a request to the server, and as long again to its answer."""
TIMEOUT_SECONDS = 30.0
NAMESPACE = "vision"
"""Where all objects are."""

ObjectKey = tuple[str, str]
"""Plural of the resource, and name: all objects are in one namespace."""
Watch = Callable[[str, str, Manifest], None]
"""Called with the plural, the event's type and the object."""


class Fault(StrEnum):
    """What goes wrong with one request."""

    TOO_MANY = "429, come back in two seconds"
    BROKEN = "500"
    LOST = "the request never arrives"
    ANSWER_LOST = "the write takes effect, the answer never arrives"
    GARBAGE = "the write takes effect, a proxy answers with a page"
    EXPIRED = "401"
    OVERTAKEN = "somebody else writes the object first"
    COMPACTED = "410 for a LIST that goes on"


class Refused(Exception):  # noqa: N818 - an answer
    """The server's answer is an error."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


class PlayedApi:
    """The server, with one namespace.

    Args:
        seconds: the clock, from 0.
        page_size: objects of a page; the client asks for more.
    """

    def __init__(self, seconds: Callable[[], float], page_size: int = 2) -> None:
        self.seconds = seconds
        self.objects: dict[ObjectKey, Manifest] = {}
        self.faults: deque[Fault] = deque()
        """For the next requests, one each."""
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request that arrived."""
        self.writes: list[tuple[str, str]] = []
        """Method and path of every write that took effect."""
        self.complaints: list[str] = []
        """What the operator should not have done."""
        self.judges: list[Callable[[str, str, Manifest | None, Manifest], None]] = []
        """Called before a write takes effect, with verb, plural, the stored object and the new one."""
        self.watches: list[Watch] = []
        self.lease_outage = False
        """Whether every request of the Lease fails."""
        self.at_write: deque[Callable[[], object] | None] = deque()
        """Called when a write has taken effect, before it is answered, one for each."""
        self.refusal: Refused | None = None
        """The answer to every Job that is created, if it is refused."""
        self._unanswered: set[tuple[str, str]] = set()  # writes that the client has to repeat
        self._version = 100
        self._page_size = page_size
        self._pages: dict[str, list[Manifest]] = {}

    # What tests and played controllers do ---------------------------------------------------------------------------

    def now(self) -> str:
        """Return the time as the server writes it."""
        return to_timestamp(self.moment())

    @property
    def version(self) -> int:
        """The newest resourceVersion."""
        return self._version

    def moment(self) -> datetime:
        """Return the played time."""
        return BEGIN + timedelta(seconds=self.seconds())

    def add(self, plural: str, manifest: Manifest) -> Manifest:
        """Create an object."""
        name = manifest["metadata"]["name"]
        if (plural, name) in self.objects:
            raise Refused(409, f"{plural} {name} already exists")
        version = self._next_version()
        made = {"uid": f"uid-{version}", "creationTimestamp": self.now(), "generation": 1}
        return self._store("ADDED", plural, manifest | {"metadata": manifest["metadata"] | made})

    def change(self, plural: str, name: str, change: Manifest) -> Manifest:
        """Merge a change into an object; the generation counts changes of the spec."""
        known = self.objects[plural, name]
        changed = merged(known, change)
        if changed == known:
            return known
        if changed.get("spec") != known.get("spec"):
            changed["metadata"]["generation"] = known["metadata"].get("generation", 1) + 1
        return self._store("MODIFIED", plural, changed)

    def remove(self, plural: str, name: str) -> None:
        """Delete an object at once; what it owns stays until garbage is collected."""
        gone = self.objects.pop((plural, name))
        self._announce("DELETED", plural, _versioned(gone, self._next_version()))

    def remove_slowly(self, plural: str, name: str) -> None:
        """Begin to delete an object, which waits for what it owns, as ``--cascade=foreground`` does."""
        self.change(plural, name, {"metadata": {"deletionTimestamp": self.now()}})

    def finish_deletions(self) -> None:
        """Delete what is being deleted, and what it owns before it."""
        for key, found in list(self.objects.items()):
            if "deletionTimestamp" not in found["metadata"] or key not in self.objects:
                continue
            for owned in [other for other, one in self.objects.items() if found["metadata"]["uid"] in _owners(one)]:
                self.remove(*owned)
            self.remove(*key)

    def collect_garbage(self) -> None:
        """Delete what belongs to objects that are gone."""
        uids = {found["metadata"]["uid"] for found in self.objects.values()}
        garbage = [key for key, found in self.objects.items() if any(uid not in uids for uid in _owners(found))]
        for key in garbage:
            self.remove(*key)
        if garbage:
            self.collect_garbage()

    def all(self, plural: str) -> Iterator[Manifest]:
        """Yield the objects of a kind."""
        yield from [found for (kind, _), found in sorted(self.objects.items()) if kind == plural]

    # What the client asks --------------------------------------------------------------------------------------------

    async def answer(self, method: str, path: str, query: dict[str, str], body: Manifest | None) -> Manifest:
        """Answer a request, or fail it; requests of the Lease have an outage of their own."""
        if _parts(path)[0] == LEASES.plural:
            return await self._answer_of_lease(method, path, body)
        _check_namespace(method, path)
        return await self._answer(method, path, query, body)

    async def _answer(self, method: str, path: str, query: dict[str, str], body: Manifest | None) -> Manifest:
        fault = self.faults.popleft() if self.faults else None
        await asyncio.sleep(TIMEOUT_SECONDS if fault is Fault.LOST else LATENCY)
        if fault is Fault.LOST:
            raise TimeoutError
        self.requests.append((method, path))
        if fault in _ANSWERS:
            raise _ANSWERS[fault]
        if fault is Fault.COMPACTED and "continue" in query:
            raise Refused(410, "the provided continue parameter is too old")
        plural, name, subresource = _parts(path)
        if fault is Fault.OVERTAKEN and (plural, name) in self.objects:
            self.change(plural, name, {"metadata": {"annotations": {"touched": str(self._version)}}})
        answer = json.loads(json.dumps(self._served(method, (plural, name), subresource, query, body)))
        self._written(method)
        await asyncio.sleep(LATENCY)
        if fault in (Fault.ANSWER_LOST, Fault.GARBAGE):
            self._unanswered.add((method, f"{plural}/{name}"))
        if fault is Fault.ANSWER_LOST:
            await _time_out()
        if fault is Fault.GARBAGE:
            raise ValueError("a page, and no JSON")
        return cast(Manifest, answer)

    def _written(self, method: str) -> None:
        happens = self.at_write.popleft() if method != "GET" and self.at_write else None
        if happens:
            happens()

    async def _answer_of_lease(self, method: str, path: str, body: Manifest | None) -> Manifest:
        await asyncio.sleep(LATENCY)
        if self.lease_outage:
            raise Refused(500, "etcdserver: request timed out")
        plural, name, _ = _parts(path)
        if method == "POST":
            return self.add(plural, body or {})
        known = self.objects.get((plural, name))
        if known is None:
            raise Refused(404, "no Lease")
        if method == "PUT" and body:
            _check_preconditions(known, body)
            known = self._store("MODIFIED", plural, body)
        copied: Manifest = json.loads(json.dumps(known))
        await asyncio.sleep(LATENCY)
        return copied

    def _served(
        self, method: str, key: ObjectKey, subresource: str, query: dict[str, str], body: Manifest | None
    ) -> Manifest:
        plural, name = key
        if method == "GET":
            return self._get(plural, name) if name else self._list(plural, query)
        assert body is not None
        if method == "POST":
            assert query == {"fieldValidation": "Strict"}
            return self._create(plural, body)
        if method == "DELETE":
            return self._delete(plural, name, body)
        return self._write(method, plural, name, subresource, body)

    def _get(self, plural: str, name: str) -> Manifest:
        if (plural, name) not in self.objects:
            raise Refused(404, f"{plural} {name} not found")
        return self.objects[plural, name]

    def _list(self, plural: str, query: dict[str, str]) -> Manifest:
        assert query["limit"] == "100"
        if token := query.get("continue"):
            found, version = self._pages.pop(token), token.partition("-")[0]
        else:
            found, version = [item for item in self.all(plural) if _is_chosen(item, query)], str(self._version)
        page, rest = found[: self._page_size], found[self._page_size :]
        if not rest:
            return {"items": page or None, "metadata": {"resourceVersion": version}}
        token = f"{version}-{len(self._pages)}-{len(rest)}"
        self._pages[token] = [json.loads(json.dumps(item)) for item in rest]
        return {"items": page, "metadata": {"resourceVersion": version, "continue": token}}

    def _create(self, plural: str, body: Manifest) -> Manifest:
        if plural == "jobs" and self.refusal:
            raise self.refusal
        if (plural, body["metadata"]["name"]) not in self.objects:
            self._judge("create", plural, None, body)
        created = self.add(plural, body)
        self.writes.append(("POST", f"{plural}/{body['metadata']['name']}"))
        return created

    def _delete(self, plural: str, name: str, options: Manifest) -> Manifest:
        known = self._get(plural, name)
        assert options["propagationPolicy"] == "Background"
        if options.get("preconditions", {}).get("uid", known["metadata"]["uid"]) != known["metadata"]["uid"]:
            raise Refused(409, "the UID in the precondition does not match")
        self._judge("delete", plural, known, known)
        self.remove(plural, name)
        self.writes.append(("DELETE", f"{plural}/{name}"))
        return {"kind": "Status"}

    def _write(self, method: str, plural: str, name: str, subresource: str, body: Manifest) -> Manifest:
        known = self._get(plural, name)
        if method == "PUT":
            _check_preconditions(known, body)
            assert subresource == "status"
            changed = known | {"status": body["status"]}
        else:
            changed = merged(known, body)
        if changed == known:
            if (method, f"{plural}/{name}") not in self._unanswered:
                self.complaints.append(f"{method} of {plural} {name} changes nothing")
            return known
        self._judge("update", plural, known, changed)
        self.writes.append((method, f"{plural}/{name}"))
        return self._store("MODIFIED", plural, changed)

    def _judge(self, verb: str, plural: str, known: Manifest | None, new: Manifest) -> None:
        for judge in self.judges:
            judge(verb, plural, known, new)

    def _store(self, event: str, plural: str, manifest: Manifest) -> Manifest:
        stored = _versioned(manifest, self._next_version())
        self.objects[plural, manifest["metadata"]["name"]] = stored
        self._announce(event, plural, stored)
        return stored

    def _announce(self, event: str, plural: str, manifest: Manifest) -> None:
        for watch in self.watches:
            watch(plural, event, manifest)

    def _next_version(self) -> int:
        self._version += 1
        return self._version


_ANSWERS = {
    Fault.TOO_MANY: Refused(429, "too many requests", {"Retry-After": "2"}),
    Fault.BROKEN: Refused(500, "etcdserver: request timed out"),
    Fault.EXPIRED: Refused(401, "Unauthorized"),
}


async def _time_out() -> None:
    await asyncio.sleep(TIMEOUT_SECONDS)
    raise TimeoutError


def _versioned(manifest: Manifest, version: int) -> Manifest:
    copied: Manifest = json.loads(json.dumps(manifest))
    copied["metadata"]["resourceVersion"] = str(version)
    return copied


def _owners(manifest: Manifest) -> list[str]:
    return [reference["uid"] for reference in manifest["metadata"].get("ownerReferences", [])]


def _parts(path: str) -> tuple[str, str, str]:
    """Return plural, name and subresource of a path; what is not there is empty."""
    steps = path.strip("/").split("/")
    steps = steps[steps.index("namespaces") + 2 :] if "namespaces" in steps else steps[2 if steps[0] == "api" else 3 :]
    plural, name, subresource = [*steps, "", ""][:3]
    if path.startswith(f"/apis/{EVENTS.group}/") or plural != "events":
        return plural, name, subresource
    return "core-events", name, subresource


def _check_namespace(method: str, path: str) -> None:
    """Refuse a path of no object: a LIST alone may be of all namespaces."""
    is_list = method == "GET" and not _parts(path)[1]
    if not is_list and f"/namespaces/{NAMESPACE}/" not in path:
        raise Refused(404, f"the server could not find the requested resource: {path}")


def _is_chosen(manifest: Manifest, query: dict[str, str]) -> bool:
    labels = manifest["metadata"].get("labels", {})
    label, _, value = query.get("labelSelector", "").partition("=")
    about = manifest.get("involvedObject", {}).get("uid")
    fields = query.get("fieldSelector", "").removeprefix("involvedObject.uid=")
    return (not label or labels.get(label) == value) and (not fields or about == fields)


def _check_preconditions(known: Manifest, body: Manifest) -> None:
    for field in ("uid", "resourceVersion"):
        if body["metadata"][field] != known["metadata"][field]:
            raise Refused(409, f"the object has been modified: {field}")


class _Response:
    def __init__(self, status: int, headers: dict[str, str], body: Manifest) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    async def json(self, **_: object) -> Manifest:
        return self._body

    async def text(self) -> str:
        return json.dumps(self._body)


class _Exchange:
    """What a client's session gives for a request: a context manager around the answer."""

    def __init__(self, api: PlayedApi, method: str, path: str, query: dict[str, str], body: Manifest | None) -> None:
        self._api = api
        self._request = (method, path, query, body)

    async def __aenter__(self) -> _Response:
        try:
            return _Response(200, {}, await self._api.answer(*self._request))
        except Refused as refused:
            return _Response(refused.status, refused.headers, {"kind": "Status", "message": refused.message})

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Nothing is kept open."""


class _Session:
    def __init__(self, api: PlayedApi, may_write: Callable[[], bool]) -> None:
        self._api = api
        self._may_write = may_write

    def request(
        self, method: str, url: str, *, params: dict[str, str] | None, json: Any, headers: dict[str, str]
    ) -> _Exchange:
        patches = headers["Content-Type"] == "application/merge-patch+json"
        assert patches is (method == "PATCH")
        if method != "GET" and not self._may_write():
            self._api.complaints.append(f"{method} {url} by a process that may not write")
        return _Exchange(self._api, method, url.removeprefix("http://played"), params or {}, json)


class PlayedClient(ApiClient):
    """The operator's client, connected to a played server.

    Args:
        api: the server.
        may_write: whether the process may write now; it is complained of if it does nevertheless.
    """

    def __init__(self, api: PlayedApi, may_write: Callable[[], bool] = lambda: True) -> None:
        self._login = lambda: kopf.ConnectionInfo(server="http://played")
        self._info = self._login()
        self._session = cast(aiohttp.ClientSession, _Session(api, may_write))

    async def close(self) -> None:
        """There is no connection."""
