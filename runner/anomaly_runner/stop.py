"""SIGTERM: the cluster wants the node back. A flag, looked at between units of work."""

import signal
import threading
from types import FrameType

from anomaly_runner.errors import Stopped


class StopSignal:
    """Set once by SIGTERM or SIGINT; ``check`` raises Stopped from then on."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT (main thread only)."""
        signal.signal(signal.SIGTERM, self._received)
        signal.signal(signal.SIGINT, self._received)

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
            raise Stopped("stopped by the cluster (SIGTERM) before the run was complete; nothing was published")
