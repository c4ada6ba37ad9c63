"""Progress of long work on a terminal or in a log: how far it is, and how much time it has taken.

On a terminal one line is overwritten again and again. Elsewhere a line is printed every half minute,
so that a log shows that nothing hangs, and stays short.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

TERMINAL_SECONDS = 1.0
LOG_SECONDS = 30.0
CLEAR_LINE = "\r\x1b[K"


class Progress:
    """A long piece of work: its name, and its `state`, a text that the worker updates."""

    def __init__(self, what: str, stream: TextIO) -> None:
        self.state = ""
        self._what = what
        self._stream = stream
        self._started = time.monotonic()
        self._is_terminal = stream.isatty()
        # Lines of the worker and of the thread that shows the state must not mix.
        self._lock = threading.Lock()

    def print(self, line: str) -> None:
        """Write a line of output, on a terminal above the line that shows the state."""
        with self._lock:
            self._stream.write(f"{CLEAR_LINE if self._is_terminal else ''}{line}\n")
            self._stream.flush()

    def begin(self) -> None:
        """Announce the work."""
        if self._is_terminal:
            self.show()
        else:
            self.print(self._what)

    def show(self) -> None:
        """Write the state and the elapsed time."""
        state = ", ".join(filter(None, (self.state, self._elapsed())))
        line = f"{self._what}: {state}"
        if not self._is_terminal:
            self.print(line)
            return
        with self._lock:
            # A line that wraps could not be overwritten.
            columns = shutil.get_terminal_size().columns
            self._stream.write(f"{CLEAR_LINE}{line[: columns - 1]}")
            self._stream.flush()

    def show_until(self, done: threading.Event) -> None:
        """Write the state periodically until `done` is set."""
        while not done.wait(TERMINAL_SECONDS if self._is_terminal else LOG_SECONDS):
            self.show()

    def end(self) -> None:
        """Write how long the work took."""
        self.print(f"{self._what}: done in {self._elapsed()}")

    def abandon(self) -> None:
        """End the line of the last state, before the error that follows."""
        if self._is_terminal:
            self.show()
            self._stream.write("\n")

    def _elapsed(self) -> str:
        return duration(time.monotonic() - self._started)


@contextmanager
def progress(what: str, speaker: str = "cluster") -> Iterator[Progress]:
    """Show the progress of work on stderr while the context lasts."""
    work = Progress(f"{speaker}: {what}", sys.stderr)
    done = threading.Event()
    shown = threading.Thread(target=work.show_until, args=[done], daemon=True)
    work.begin()
    shown.start()
    ended = work.abandon
    try:
        yield work
        ended = work.end
    finally:
        done.set()
        shown.join()
        ended()


def duration(seconds: float) -> str:
    """Format a duration for people: 7s, 6m12s, 1h02m."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes_of_hour:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
