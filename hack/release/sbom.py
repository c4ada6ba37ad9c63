"""Bills of materials in CycloneDX: the packages of each image's Python environment, with licences and dependencies.

Each environment is made from the image's pinned requirements, and read by CycloneDX's own tool.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hack.images.catalog import INFERENCE, OPERATOR, ROOT, RUNNER, Image

TOOL = "cyclonedx-bom==7.5.0"
UV = Path(sys.prefix) / "bin" / "uv"
ENVIRONMENTS = ROOT / "build" / "sbom"


def write_all(folder: Path) -> Iterator[Path]:
    """Write ``folder``/IMAGE.cdx.json for each released image, and yield its path."""
    folder.mkdir(exist_ok=True)
    for image in (OPERATOR, INFERENCE, RUNNER):
        yield _write(image, folder / f"{image.name}.cdx.json")


def _write(image: Image, file: Path) -> Path:
    environment = ENVIRONMENTS / image.name
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, environment)
    install = ("pip", "install", "--quiet", "--system-certs", "--no-deps", "--python", environment)
    for requirements in requirement_files(image):
        _uv(*install, "--requirement", requirements)
    read = ("cyclonedx-py", "environment", "--output-reproducible", "--of", "JSON", "--output-file", file, environment)
    _uv("tool", "run", "--quiet", "--system-certs", "--from", TOOL, *read)
    shutil.rmtree(environment)
    return file


def requirement_files(image: Image) -> list[Path]:
    """Return the lists of packages that an image is made from."""
    return [ROOT / name for name in image.inputs if name.endswith("requirements.txt")]


def _uv(*arguments: str | Path) -> None:
    subprocess.run([UV, *arguments], check=True)
