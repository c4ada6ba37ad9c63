"""Collects the wheels that the checks on a GPU need and the machine lacks, so that they can be carried there.

What is needed is resolved by uv from ``requirements.in`` at the versions of constraints.txt. Left out is what
``provided.txt`` names, and what only such packages ask for: those are complete at the versions that are there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FOLDER = ROOT / ".gpu-wheels"
PROVIDED = HERE / "provided.txt"
LEFT_OUT = {"imagecodecs"}
"""Packages that no check imports: anomalib reads TIFF files with imagecodecs, which takes as much as all the others."""
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17)), "manylinux2014_x86_64")
_LINE = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)\s+# via (?P<parents>.*)$")


class NoWheelError(Exception):
    """A package has no wheel for the machine, and building one here gives one for this machine's Python alone."""


@dataclass(frozen=True)
class Package:
    """A package of the resolution, and the packages (or the file of requirements) that ask for it."""

    name: str
    version: str
    parents: frozenset[str]


def collect(folder: Path, provided: Path, python: str) -> list[Path]:
    """Fill an emptied folder with the wheels that are needed and not provided, and return them.

    Args:
        folder: deleted first.
        provided: file with a name on each line.
        python: version of Python on the other machine, such as 3.12.

    Raises:
        NoWheelError: a package has no wheel that would run there.
        subprocess.CalledProcessError: uv or pip failed otherwise.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    resolved = {package.name: package for package in parse(resolve(python))}
    for package in missing(resolved, read_names(provided) | LEFT_OUT):
        _fetch(package, folder, python)
    return sorted(folder.glob("*.whl"))


def resolve(python: str) -> str:
    """Return uv's resolution of ``requirements.in``: a line for each package, with what asks for it."""
    command = [
        str(Path(sys.executable).with_name("uv")),
        *("pip", "compile", "--quiet", "--system-certs", "--no-header", "--annotation-style=line"),
        *(f"--python-version={python}", "--python-platform=x86_64-manylinux_2_28"),
        *("--constraint=constraints.txt", str(HERE / "requirements.in")),
    ]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def parse(resolution: str) -> Iterator[Package]:
    """Yield the packages of uv's output."""
    for line in resolution.splitlines():
        if found := _LINE.match(line):
            parents = (parent.strip() for parent in found["parents"].split(","))
            asked = frozenset(parent for parent in parents if not parent.startswith("-c "))
            yield Package(found["name"], found["version"], asked)


def read_names(file: Path) -> set[str]:
    """Read a list of packages: a name on each line, comments after #."""
    names = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names if name}


def missing(resolved: Mapping[str, Package], there: Set[str]) -> list[Package]:
    """Return the packages to carry: those not there that are asked for by the requirements or by another such one."""
    found: dict[str, Package] = {}
    while True:
        more = {
            name: package
            for name, package in resolved.items()
            if name not in there and name not in found and any(_asks(parent, found) for parent in package.parents)
        }
        if not more:
            return [found[name] for name in sorted(found)]
        found |= more


def _asks(parent: str, carried: Mapping[str, Package]) -> bool:
    return parent.startswith("-r ") or parent in carried


def _fetch(package: Package, folder: Path, python: str) -> None:
    """Download the package's wheel, or build one where only its source is published."""
    pip = [sys.executable, "-m", "pip"]
    wanted = f"{package.name}=={package.version}"
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    published = ("--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms)
    download = [*pip, "download", "--quiet", "--no-deps", *published, f"--dest={folder}", wanted]
    if subprocess.run(download, check=False, capture_output=True).returncode == 0:
        return
    before = set(folder.iterdir())
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", wanted], check=True)
    for built in set(folder.iterdir()) - before:
        if not built.name.endswith("-none-any.whl"):
            raise NoWheelError(f"{wanted} is published without a wheel for Python {python} on Linux, x86-64")
