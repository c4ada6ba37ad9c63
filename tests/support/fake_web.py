"""A file server over HTTP that misbehaves on request: cuts bodies, refuses requests, ignores ranges."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FakeWeb:
    """The served files, the faults to inject, and the received requests."""

    files: dict[str, bytes]
    url: str = ""
    faults: list[int] = field(default_factory=list)
    """One per request, in order: a status to answer, minus the bytes after which the body is cut, or 0 for no fault."""
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header of each request."""


class _Handler(BaseHTTPRequestHandler):
    web: FakeWeb

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.web.asked.append((self.path, wanted))
        fault = self.web.faults.pop(0) if self.web.faults else 0
        content = self.web.files.get(self.path.rpartition("/")[2])
        if fault > 0 or content is None:
            self.send_error(fault if fault > 0 else 404)
            return
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "") if self.web.ranges else None
        start = int(found[1]) if found else 0
        if found and start >= len(content):
            self.send_error(416)
            return
        self._send(content, start, bool(found), -fault)

    def _send(self, content: bytes, start: int, partial: bool, broken_after: int) -> None:
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        with suppress(ConnectionError):  # the client has disconnected
            self.wfile.write(content[start : start + broken_after] if broken_after else content[start:])


@contextmanager
def serve_files(files: dict[str, bytes]) -> Iterator[FakeWeb]:
    """Serve files below any folder of 127.0.0.1."""
    web = FakeWeb(files)
    handler = type("Handler", (_Handler,), {"web": web})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        web.url = f"http://127.0.0.1:{server.server_port}/data/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()
