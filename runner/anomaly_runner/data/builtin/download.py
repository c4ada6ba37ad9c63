"""Download one file from the web: streamed, resumed after a broken connection, and checked against its digest.

Transient failures (no answer, a broken connection, 5xx, 429) are retried with growing pauses; each attempt requests the
bytes that are still missing. Other failures are raised immediately, with the URL.
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
from anomaly_runner.system.full_disk import full_disk, is_full_disk

_ATTEMPTS = 6
"""Attempts in a row that do not get any further bytes, after which the download fails."""
_LONGEST_PAUSE = 20.0
"""Longest pause between two attempts in seconds."""
_TIMEOUT = 30.0
"""Longest time without data from the server in seconds."""
_CHUNK = 1 << 20
"""Bytes read at a time."""
_TRANSIENT_STATUSES = (408, 425, 429)
_RANGE_NOT_SATISFIABLE = 416
"""The status for a range beyond the file's end: the part on disk is complete, or is not from this file."""
_HINT = "set source.builtin.mirror where the internet cannot be reached"


class _BrokenOffError(Exception):
    """A transfer ended early; another attempt may get the rest."""


def download(file: RemoteFile, mirror: str | None, folder: Path, advance: Callable[[int], None]) -> Path:
    """Download a file into a folder unless it is there already, and return its path.

    Args:
        file: the file to download.
        mirror: base URL that replaces the publisher's; None to use the publisher's.
        folder: target folder.
        advance: called with the number of bytes of each chunk; may raise to stop.

    Raises:
        DataInvalid: there is no such file, it is far too large, or its digest differs.
        StorageUnavailable: no answer after all attempts, or the disk is full.
    """
    transfer = _Transfer(file, file.url(mirror), folder / f".{file.name}.part", advance)
    target = folder / file.name
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _download_and_check(transfer)
        transfer.part_file.replace(target)
    return target


def _download_and_check(transfer: "_Transfer") -> None:
    """Download the whole file and check its digest.

    Raises:
        DataInvalid: there is no such file, it is far too large, or its digest differs.
        StorageUnavailable: no answer after all attempts.
    """
    _download_with_retries(transfer)
    try:
        transfer.check_digest()
    except DataInvalid:
        if not transfer.resumed:
            raise
        # The file may have changed on the server between two attempts: download it again as a whole.
        _download_with_retries(transfer)
        transfer.check_digest()


def _download_with_retries(transfer: "_Transfer") -> None:
    """Repeat attempts until the file is complete, or ``_ATTEMPTS`` in a row have not got any further bytes.

    Raises:
        DataInvalid: there is no such file, or it is far too large.
        StorageUnavailable: no answer after all attempts.
    """
    farthest = transfer.size

    def restart_count_on_progress(state: RetryCallState) -> None:
        nonlocal farthest
        if transfer.size > farthest:
            farthest, state.attempt_number = transfer.size, 1

    retrying = Retrying(
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(max=_LONGEST_PAUSE),
        retry=retry_if_exception_type(_BrokenOffError),
        after=restart_count_on_progress,
        reraise=True,
    )
    try:
        retrying(transfer.attempt)
    except _BrokenOffError as error:
        raise StorageUnavailable(f"cannot fetch {transfer.url}: {error}; {_HINT}") from error


@dataclass
class _Transfer:
    """A download in progress.

    Attributes:
        file: the file to download.
        url: its URL, at the publisher or a mirror.
        part_file: temporary file of the bytes downloaded so far.
        advance: called with the number of bytes of each chunk.
        resumed: whether ``part_file`` was written in several attempts.
    """

    file: RemoteFile
    url: str
    part_file: Path
    advance: Callable[[int], None]
    resumed: bool = False

    @property
    def size(self) -> int:
        """Number of bytes downloaded so far."""
        return self.part_file.stat().st_size if self.part_file.exists() else 0

    def attempt(self) -> None:
        """Request the missing bytes.

        Raises:
            DataInvalid: there is no such file, or it is far too large.
            StorageUnavailable: the disk is full.
            _BrokenOffError: another attempt may get the rest.
        """
        offset = self.size
        headers = {"User-Agent": "anomaly-runner"} | ({"Range": f"bytes={offset}-"} if offset else {})
        request = urllib.request.Request(self.url, headers=headers)  # noqa: S310 - http(s) by the contract's pattern
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
                self._receive(response, offset)
        except urllib.error.HTTPError as error:
            error.close()
            self._handle_refusal(error.code, offset)
        except (OSError, http.client.HTTPException) as error:
            if is_full_disk(error):
                raise full_disk(error) from error
            raise _BrokenOffError(f"{type(error).__name__}: {error}") from error

    def _receive(self, response: http.client.HTTPResponse, offset: int) -> None:
        self.resumed = resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        expected = int(response.headers.get("Content-Length") or -1)
        received = 0
        with self.part_file.open("ab" if resumed else "wb") as sink:
            for chunk in iter(partial(response.read, _CHUNK), b""):
                sink.write(chunk)
                received += len(chunk)
                self._check_size((offset if resumed else 0) + received)
                self.advance(len(chunk))
        if received < expected:
            raise _BrokenOffError(f"the connection broke off after {received} of {expected} bytes")

    def _check_size(self, size: int) -> None:
        if size > 2 * self.file.size:
            raise DataInvalid(f"{self.url} sends more than {size} bytes, about {self.file.size} were expected")

    def _handle_refusal(self, status: int, offset: int) -> None:
        if status == _RANGE_NOT_SATISFIABLE and offset:
            self.resumed = True
            return  # the digest will show whether the file is complete
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRANSIENT_STATUSES:
            raise _BrokenOffError(f"the server answered {status}")
        raise DataInvalid(f"cannot fetch {self.url}: the server answered {status}; {_HINT}")

    def check_digest(self) -> None:
        """Check the downloaded file against the expected digest.

        Raises:
            DataInvalid: the digest differs; the file has been removed.
        """
        with self.part_file.open("rb") as content:
            found = hashlib.file_digest(content, self.file.algorithm).hexdigest()
        if not found.startswith(self.file.digest):
            self.part_file.unlink()
            raise DataInvalid(
                f"{self.url} is not the expected file: its {self.file.algorithm} is {found}, not {self.file.digest}"
            )
