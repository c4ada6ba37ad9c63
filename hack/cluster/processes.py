"""Starting, recognising and stopping the cluster's own processes.

A process is identified by its pid file, which is trusted only if the kernel shows the expected
command line under that pid: a pid may be reused after a reboot or a crash, and no foreign process may
ever be stopped. A process whose command line or configuration is no longer the wanted one counts as not
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
        """File with the pid, and the fingerprint of the configuration that the process started with."""
        return settings.RUN / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        """File with the output of the process since its last start."""
        return settings.LOGS / f"{self.name}.log"


def ensure_running(component: Component) -> bool:
    """Start a component, or replace an outdated one, and return whether anything was done."""
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
    """Whether the process that the pid file names is alive and belongs to the cluster."""
    pid, _ = _recorded(component)
    return pid is not None and _is_ours(pid, component)


def check_alive(component: Component) -> None:
    """Check that a component is running.

    Raises:
        ClusterError: it has died; the message quotes the end of its log.
    """
    if not is_running(component):
        raise ClusterError(f"{component.name} died; {component.log} ends:\n{tail(component.log)}")


def stop(component: Component, patience: float = STOP_SECONDS) -> None:
    """Stop a component if it runs, and remove its pid file; a foreign process is left alone.

    The process gets SIGTERM, and SIGKILL after `patience` seconds.
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
    """Return the pid and the configuration's fingerprint that were written at the start.

    A machine that dies may leave the file empty or filled with zeros, which counts as no record.
    """
    try:
        pid, fingerprint = component.pid_file.read_text().split()
        return int(pid), fingerprint
    except (FileNotFoundError, ValueError):
        return None, ""


def _command_line(pid: int) -> tuple[str, ...]:
    """Return a process's command line; empty if there is no such process, or only a zombie."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(raw.decode(errors="replace").rstrip("\0").split("\0"))


def _is_ours(pid: int, component: Component) -> bool:
    """Whether a process is the component's, by the program alone: arguments may be of an older version of this code."""
    return _command_line(pid)[:1] == component.command[:1]


def _terminate(pid: int, component: Component, patience: float) -> None:
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while _is_ours(pid, component):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)
