"""Starting, recognising and stopping the cluster's own processes.

A process is known by its pid file, and believed only if the kernel shows the expected command
line under that pid: a pid is reused after a reboot or a crash, and nothing of anyone else may ever
be stopped. A process whose command line or configuration is no longer the wanted one counts as not
running and is replaced, so bringing the cluster up converges after any change of this code.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from hack.cluster import config, settings
from hack.cluster.shell import ClusterError, say, tail

STOP_SECONDS = 20.0
ENVIRONMENT = {"PATH": f"{settings.BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(settings.RUN)}


@dataclass(frozen=True)
class Component:
    """A process of the cluster: its name, command line, and the templates it reads at start."""

    name: str
    command: tuple[str, ...]
    templates: tuple[str, ...] = ()

    @property
    def pid_file(self) -> Path:
        """Holds the pid, and the fingerprint of the configuration it started with."""
        return settings.RUN / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        """What the process wrote since its last start."""
        return settings.LOGS / f"{self.name}.log"


def ensure_running(component: Component) -> bool:
    """Start a component, or replace one that is outdated; returns whether anything was done."""
    if is_current(component):
        return False
    stop(component)
    _start(component, config.fingerprint(component.templates))
    return True


def is_current(component: Component) -> bool:
    """Whether a component runs, with the command line and the configuration that are wanted now."""
    pid, started_with = _recorded(component)
    is_configured = started_with == config.fingerprint(component.templates)
    return pid is not None and is_configured and _command_line(pid) == component.command


def is_running(component: Component) -> bool:
    """Whether the process that the pid file names is alive and ours."""
    pid, _ = _recorded(component)
    return pid is not None and _is_ours(pid, component)


def check_alive(component: Component) -> None:
    """Raise ClusterError with the end of the log when a component has died."""
    if not is_running(component):
        raise ClusterError(f"{component.name} died; {component.log} ends:\n{tail(component.log)}")


def stop(component: Component, patience: float = STOP_SECONDS) -> None:
    """Stop a component if it runs, and forget it. Nothing happens to a process that is not ours.

    It is asked first, and killed after `patience` seconds.
    """
    pid, _ = _recorded(component)
    if pid is not None and _is_ours(pid, component):
        _terminate(pid, component, patience)
    component.pid_file.unlink(missing_ok=True)


def _start(component: Component, fingerprint: str) -> None:
    say(f"starting {component.name}")
    settings.LOGS.mkdir(parents=True, exist_ok=True)
    with component.log.open("w") as log:
        process = subprocess.Popen(
            component.command,
            cwd=settings.RUN,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    component.pid_file.write_text(f"{process.pid} {fingerprint}\n")
    # The kernel shows the new command line only a moment after the program was loaded.
    while process.poll() is None and not _is_ours(process.pid, component):
        time.sleep(0.01)


def _recorded(component: Component) -> tuple[int | None, str]:
    """The pid and the configuration's fingerprint that were written at the start.

    A machine that dies may leave the file empty, or filled with zeros: that records nothing.
    """
    try:
        pid, fingerprint = component.pid_file.read_text().split()
        return int(pid), fingerprint
    except (FileNotFoundError, ValueError):
        return None, ""


def _command_line(pid: int) -> tuple[str, ...]:
    """A process's command line; empty when there is none, or only its zombie."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(raw.decode(errors="replace").rstrip("\0").split("\0"))


def _is_ours(pid: int, component: Component) -> bool:
    """By the program alone: its arguments may be those of an older version of this code."""
    return _command_line(pid)[:1] == component.command[:1]


def _terminate(pid: int, component: Component, patience: float) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while _is_ours(pid, component):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)
