"""Running commands, waiting and writing files: helpers for all other modules of the cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hack.cluster import settings


class ClusterError(Exception):
    """A failure of the cluster that is printed as one message, without a traceback."""


def say(message: str) -> None:
    """Print a message to stderr: stdout is for answers that scripts read."""
    print(f"cluster: {message}", file=sys.stderr, flush=True)


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
) -> str:
    """Run a command quietly and return its output.

    Raises:
        ClusterError: the command failed and `check` is set; the message quotes its stderr.
    """
    result = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and result.returncode != 0:
        words = " ".join(str(word) for word in command)
        raise ClusterError(f"`{words}` failed ({result.returncode}):\n{result.stderr.strip()}")
    return result.stdout


def watch(
    *command: str | Path,
    on_line: Callable[[str], None],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int:
    """Run a command, pass each line of its output to `on_line`, and return its exit status."""
    with subprocess.Popen(
        [str(word) for word in command],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        for line in process.stdout:
            on_line(line.rstrip("\n"))
    return process.returncode


def succeeds(*command: str | Path, env: Mapping[str, str] | None = None) -> bool:
    """Whether a command exits with 0; its output is discarded."""
    return (
        subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        == 0
    )


def kubectl(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """Run kubectl against the embedded cluster as its administrator."""
    return run(
        settings.BIN / "kubectl",
        f"--kubeconfig={settings.KUBECONFIG}",
        *arguments,
        stdin=stdin,
        check=check,
    )


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Poll until `condition` holds.

    Raises:
        ClusterError: it did not hold within `seconds`; the message names `what`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.2)


def tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log file, for error messages; empty if there is no file."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def write_if_changed(path: Path, content: str, mode: int = 0o644) -> bool:
    """Write a file only if its content differs, and return whether it did."""
    if path.exists() and path.read_text() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return True
