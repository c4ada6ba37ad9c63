"""Server processes on loopback, each ended with its whole process group."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping


class ServerProcess:
    """A server process that runs while the context lasts; entering waits until it answers."""

    def __init__(self, command: list[str], url: str, environment: Mapping[str, str] | None = None) -> None:
        self._command, self._url, self._environment = command, url, os.environ | dict(environment or {})

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(1800):
            if _answers(self._url):
                return self._url
            assert self._process.poll() is None, f"{self._command[0]} ended"
            time.sleep(0.1)
        self.__exit__()
        raise AssertionError(f"{self._url} does not answer")

    def __exit__(self, *error: object) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:  # on a machine that is busy with other tests
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
