"""A fake Hugging Face hub with one repository: only what ``snapshot_download`` requests."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "a" * 40


class _Handler(BaseHTTPRequestHandler):
    repository: str
    files: Mapping[str, bytes]

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        """Send the headers, and return the body."""
        path = self.path.partition("?")[0]
        content = self._listing(path) if path.startswith(f"/api/models/{self.repository}/") else self._file(path)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return b""
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def _listing(self, path: str) -> bytes:
        if "/tree/" in path:
            return json.dumps(
                [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(content),
                        "oid": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
                    }
                    for name, content in self.files.items()
                ]
            ).encode()
        siblings = [{"rfilename": name} for name in self.files]
        return json.dumps({"id": self.repository, "sha": REVISION, "siblings": siblings}).encode()

    def _file(self, path: str) -> bytes | None:
        folder, _, name = path.rpartition("/")
        return self.files.get(name) if folder.startswith(f"/{self.repository}/resolve/") else None


@contextmanager
def serve_hub(repository: str, files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve a repository, and yield the hub's URL."""
    handler = type("Handler", (_Handler,), {"repository": repository, "files": files})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
