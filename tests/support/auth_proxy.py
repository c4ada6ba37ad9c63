"""A proxy in front of a server that checks credentials and cuts responses."""

import base64
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class AuthProxy(ThreadingHTTPServer):
    """Forwards requests to a server. ``seen``: the Authorization of each; ``cut``: path endings of responses to cut."""

    daemon_threads = True

    def __init__(self, behind: str, user: str | None = None, password: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(behind).netloc
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.wanted = f"Basic {token}" if user else None
        self.seen: list[str | None] = []
        self.cut: list[str] = []

    @property
    def url(self) -> str:
        """URL of the proxy."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: AuthProxy

    def _pass(self) -> None:
        found = self.headers["Authorization"]
        self.server.seen.append(found)
        if self.server.wanted not in (None, found):
            self._answer(401, b"You are not authenticated.")
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        inner = http.client.HTTPConnection(self.server.behind, timeout=30)
        inner.request(self.command, self.path, body, headers)
        answer = inner.getresponse()
        self._answer(answer.status, answer.read())
        inner.close()

    do_GET = do_POST = do_PUT = do_PATCH = _pass  # noqa: N815 - http.server's names

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = next((end for end in self.server.cut if self.path.endswith(end)), None)
        if cut:
            self.server.cut.remove(cut)
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has
        """Log nothing."""


@contextmanager
def auth_proxy(behind: str, user: str | None = None, password: str = "") -> Iterator[AuthProxy]:
    """Run a proxy while the context lasts, and yield it."""
    with AuthProxy(behind, user, password) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
