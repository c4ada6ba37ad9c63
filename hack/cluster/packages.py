"""Debian packages: apt runs only if some are missing."""

from __future__ import annotations

import importlib.util
import os

from hack.cluster.progress import progress
from hack.cluster.shell import ClusterError, run


def ensure(*names: str) -> None:
    """Install the packages that are missing.

    Raises:
        ClusterError: packages are missing, and the user is not root or apt fails.
    """
    missing = [name for name in names if not _is_installed(name)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise ClusterError(f"run as root, or install these yourself: {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with progress(f"installing Debian packages: {' '.join(missing)}"):
        run("apt-get", "update", "-qq", env=quiet)
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=quiet)


def ensure_venv() -> None:
    """Make Python able to create virtual environments, which takes a package of its own on Debian."""
    if importlib.util.find_spec("ensurepip") is None:
        ensure("python3-venv")


def _is_installed(name: str) -> bool:
    status = run("dpkg-query", "--show", "--showformat=${Status}", name, check=False)
    return status == "install ok installed"
