"""SIGTERM: the cluster wants the node back. A flag, looked at between units of work."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from anomaly_runner.errors import Stopped


class StopSignal:
    """Set once by SIGTERM or SIGINT; ``check`` raises Stopped from then on."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Take over SIGTERM and SIGINT for a while (main thread only)."""
        before = [(number, signal.signal(number, self._received)) for number in (signal.SIGTERM, signal.SIGINT)]
        try:
            yield self
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _received(self, signum: int, frame: FrameType | None) -> None:
        self._event.set()

    def set(self) -> None:
        """Ask the run to stop."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether the run was asked to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise Stopped if the run was asked to stop; call it between units of work."""
        if self._event.is_set():
            raise Stopped
