"""Generates the pinned requirements of each image from pyproject.toml and constraints.txt.

The lists are committed, so that an image's dependency layer depends on them alone: it is rebuilt
when a dependency changes, not when anything else in pyproject.toml does. Run it as
`.venv/bin/python -m hack.images.requirements`; `make verify` fails when a list is outdated.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hack.images.catalog import ROOT

HEADER = "# Generated from pyproject.toml and constraints.txt by `make generate`; do not edit.\n"
SOURCES: dict[str, tuple[str, ...]] = {
    "operator/requirements.txt": ("pyproject.toml", "--extra=operator"),
    "runner/inference-requirements.txt": ("pyproject.toml", "--extra=inference", "--extra=cuda"),
    "runner/requirements.txt": (
        "pyproject.toml",
        "--extra=inference",
        "--extra=cuda",
        "--extra=runner",
    ),
    "hack/demo/requirements.txt": ("hack/demo/requirements.in",),
}


def main() -> None:
    """Write all lists."""
    for target, source in SOURCES.items():
        (ROOT / target).write_text(HEADER + _resolve(source))


def _resolve(source: tuple[str, ...]) -> str:
    """Return the pinned closure of a requirement source, for the Python of the images."""
    uv = Path(sys.executable).parent / "uv"
    options = ("--quiet", "--no-header", "--no-annotate", "--system-certs", "--python-version=3.11")
    command = [str(uv), "pip", "compile", *options, "--constraint=constraints.txt", *source]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
