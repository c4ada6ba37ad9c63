"""An S3 server of one bucket that misbehaves on request: throttles, cuts bodies, stalls, leaves ETags out."""

import hashlib
import re
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

THROTTLED = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass(frozen=True)
class Refusal:
    """An answer of a server that refuses: its status, the code and further elements of its body, and headers."""

    status: int
    code: str
    elements: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The answer as XML."""
        inside = "".join(f"<{name}>{text}</{name}>" for name, text in ({"Code": self.code} | self.elements).items())
        return f"<Error>{inside}</Error>".encode()


@dataclass
class FakeS3:
    """The stored objects, the faults to inject, and the received requests."""

    objects: dict[str, bytes]
    url: str = ""
    etags: bool = True
    """Whether listings and objects have ETags."""
    matches: bool = True
    """Whether If-Match is known."""
    encodes: bool = False
    """Whether keys of listings are encoded as in URLs, as they are asked for."""
    page: int = 1000
    """Largest number of keys of one listing."""
    faults: list[object] = field(default_factory=list)
    """One per request, in order: a status or a Refusal to answer, minus the bytes after which the body is cut,
    ``stall`` for silence, ``stall 503`` for a refusal whose body never arrives, None for no fault."""
    later: dict[str, bytes] = field(default_factory=dict)
    """Contents that replace those of the same keys once these have been asked for."""
    asked: list[str] = field(default_factory=list)
    """Method, path and Range header of each request."""
    signed: set[tuple[str, str]] = field(default_factory=set)
    """Access key and session token of the requests."""
    uploaded_with: list[dict[str, str]] = field(default_factory=list)
    """Headers of each upload, in lower case."""
    released: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    s3: FakeS3
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        key = urllib.parse.unquote(path).lstrip("/").partition("/")[2]
        self.s3.asked.append(f"GET {key} {self.headers.get('Range', '')}".strip())
        credential = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
        self.s3.signed.add((credential[1] if credential else "", self.headers.get("x-amz-security-token", "")))
        fault = self.s3.faults.pop(0) if self.s3.faults else None
        if fault == "stall":
            self._stall()
        elif fault == "stall 503":
            self._answer(503, THROTTLED.encode(), {}, broken_after=0)
            self._stall()
        elif isinstance(fault, int) and fault > 0:
            self._answer(fault, THROTTLED.encode() if fault != 429 else b"busy", {})
        elif isinstance(fault, Refusal):
            self._answer(fault.status, fault.body, fault.headers)
        elif "list-type" in query:
            self._answer(200, self._listing(urllib.parse.parse_qs(query)), {})
        else:
            self._object(key, -fault if isinstance(fault, int) else None)

    def do_PUT(self) -> None:
        key = urllib.parse.unquote(self.path).lstrip("/").partition("/")[2]
        self.s3.uploaded_with.append({name.lower(): value for name, value in self.headers.items()})
        self.s3.objects[key] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"", {})

    def _stall(self) -> None:
        self.s3.released.wait(10)
        self.close_connection = True

    def _object(self, key: str, broken_after: int | None) -> None:
        content = self.s3.objects[key]
        self.s3.objects[key] = self.s3.later.pop(key, content)
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        if self.s3.matches and self.headers.get("If-Match") not in (None, etag):
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>", {})
            return
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        extra = ({"ETag": etag} if self.s3.etags else {}) | (
            {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if found else {}
        )
        self._answer(206 if found else 200, content[start:], extra, broken_after)

    def _answer(self, status: int, body: bytes, headers: dict[str, str], broken_after: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the client has disconnected
            self.wfile.write(body[:broken_after])
        self.close_connection = broken_after is not None

    def _listing(self, query: dict[str, list[str]]) -> bytes:
        start = int(query.get("continuation-token", ["0"])[0])
        found = sorted(self.s3.objects.items())
        items = "".join(self._item(key, content) for key, content in found[start : start + self.s3.page])
        end = start + self.s3.page
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < len(found) else ""
        encoding = "<EncodingType>url</EncodingType>" if self.s3.encodes else ""
        truncated = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        return f"<ListBucketResult>{encoding}{truncated}{more}{items}</ListBucketResult>".encode()

    def _item(self, key: str, content: bytes) -> str:
        name = urllib.parse.quote(key, errors="surrogateescape") if self.s3.encodes else escape(key)
        etag = f'<ETag>"{hashlib.md5(content).hexdigest()}"</ETag>' if self.s3.etags else ""
        return f"<Contents><Key>{name}</Key><Size>{len(content)}</Size>{etag}</Contents>"


@contextmanager
def fake_s3(objects: dict[str, bytes], tls: ssl.SSLContext | None = None) -> Iterator[FakeS3]:
    """Serve objects of the bucket ``data`` on 127.0.0.1."""
    s3 = FakeS3(objects)
    handler = type("Handler", (_Handler,), {"s3": s3})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        s3.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield s3
        finally:
            s3.released.set()
            server.shutdown()
            thread.join()
