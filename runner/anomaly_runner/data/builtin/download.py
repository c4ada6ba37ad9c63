"""One file from the web to a folder: streamed, resumed where it broke off, checked against its digest.

What may pass (no answer, a broken connection, 5xx, 429) is tried again with growing pauses; each attempt asks for the
bytes that are still missing. What will not pass says which URL it is about.
"""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from anomaly_runner.data.builtin.remote_files import RemoteFile
from anomaly_runner.errors import DataInvalid, StorageUnavailable

_ATTEMPTS = 6
_LONGEST_PAUSE = 20.0
_TIMEOUT = 30.0
_CHUNK = 1 << 20
_MAY_PASS = (408, 425, 429)
_COMPLETE = 416
"""Range not satisfiable: nothing is missing, or what is here is not of this file."""
_HINT = "set source.builtin.mirror where the internet cannot be reached"


class _BrokenOffError(Exception):
    """The transfer ended early; another attempt may get the rest."""


def download(file: RemoteFile, mirror: str | None, folder: Path, advance: Callable[[int], None]) -> Path:
    """Fetch a file into a folder, unless it is there; answers its path.

    Args:
        file: what to fetch.
        mirror: base URL that takes the place of the publisher's.
        folder: where it goes.
        advance: called with the number of bytes that came; may raise to stop.

    Raises:
        DataInvalid: there is no such file, it is far too large, or its digest differs.
        StorageUnavailable: no answer after all attempts.
    """
    transfer = _Transfer(file, file.url(mirror), folder / f".{file.name}.part", advance)
    target = folder / file.name
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(transfer)
        transfer.half.replace(target)
    return target


def _fetch(transfer: "_Transfer") -> None:
    """The whole file, checked; several pieces may be of different files, so they get another chance in one."""
    _patiently(transfer)
    try:
        transfer.check_digest()
    except DataInvalid:
        if not transfer.resumed:
            raise
        _patiently(transfer)
        transfer.check_digest()


def _patiently(transfer: "_Transfer") -> None:
    """Attempts until nothing is missing, or _ATTEMPTS in a row got no farther than those before them."""
    farthest = transfer.size

    def count_anew(state: RetryCallState) -> None:
        nonlocal farthest
        if transfer.size > farthest:
            farthest, state.attempt_number = transfer.size, 1

    retrying = Retrying(
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(max=_LONGEST_PAUSE),
        retry=retry_if_exception_type(_BrokenOffError),
        after=count_anew,
        reraise=True,
    )
    try:
        retrying(transfer.attempt)
    except _BrokenOffError as error:
        raise StorageUnavailable(f"cannot fetch {transfer.url}: {error}; {_HINT}") from error


@dataclass
class _Transfer:
    """A download under way: ``half`` holds what has come so far, ``resumed`` tells whether it is of several pieces."""

    file: RemoteFile
    url: str
    half: Path
    advance: Callable[[int], None]
    resumed: bool = False

    @property
    def size(self) -> int:
        """Bytes that have come so far."""
        return self.half.stat().st_size if self.half.exists() else 0

    def attempt(self) -> None:
        """Fetch what is missing."""
        here = self.size
        headers = {"User-Agent": "anomaly-runner"} | ({"Range": f"bytes={here}-"} if here else {})
        request = urllib.request.Request(self.url, headers=headers)  # noqa: S310 - http(s) by the contract's pattern
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
                self._receive(response, here)
        except urllib.error.HTTPError as error:
            error.close()
            self._refused(error.code, here)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOffError(f"{type(error).__name__}: {error}") from error

    def _receive(self, response: http.client.HTTPResponse, here: int) -> None:
        self.resumed = resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        expected = int(response.headers.get("Content-Length") or -1)
        received = 0
        with self.half.open("ab" if resumed else "wb") as sink:
            for chunk in iter(partial(response.read, _CHUNK), b""):
                sink.write(chunk)
                received += len(chunk)
                self._check_size((here if resumed else 0) + received)
                self.advance(len(chunk))
        if received < expected:
            raise _BrokenOffError(f"the connection broke off after {received} of {expected} bytes")

    def _check_size(self, size: int) -> None:
        if size > 2 * self.file.size:
            raise DataInvalid(f"{self.url} sends more than {size} bytes, about {self.file.size} were expected")

    def _refused(self, status: int, here: int) -> None:
        if status == _COMPLETE and here:
            self.resumed = True
            return  # the digest decides
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or status in _MAY_PASS:
            raise _BrokenOffError(f"the server answered {status}")
        raise DataInvalid(f"cannot fetch {self.url}: the server answered {status}; {_HINT}")

    def check_digest(self) -> None:
        """Compare what came with what is expected; throw it away if it differs."""
        with self.half.open("rb") as content:
            found = hashlib.file_digest(content, self.file.algorithm).hexdigest()
        if not found.startswith(self.file.digest):
            self.half.unlink()
            raise DataInvalid(
                f"{self.url} is not the expected file: its {self.file.algorithm} is {found}, not {self.file.digest}"
            )
