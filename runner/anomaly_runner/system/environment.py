"""Versions of the software that a run uses, for the report."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from anomaly_api import RELEASE


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions by name, of this software, of Python, and of those packages that are installed."""
    found = {"anomaly-operator": RELEASE, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
