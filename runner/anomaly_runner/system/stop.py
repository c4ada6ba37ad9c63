"""A flag that SIGTERM sets, with which the cluster stops a pod; it is checked between units of work."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from anomaly_runner.errors import Stopped


class StopSignal:
    """A flag that SIGTERM or SIGINT sets permanently; ``check`` raises Stopped from then on."""

    def __init__(self) -> None:
        self._event = threading.Event()

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Let SIGTERM and SIGINT set the flag inside this block (main thread only)."""
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
        """Check the flag; call it between units of work.

        Raises:
            Stopped: the run was asked to stop.
        """
        if self._event.is_set():
            raise Stopped
