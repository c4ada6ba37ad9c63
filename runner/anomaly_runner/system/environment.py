"""The software that a run ran on, for the report: versions of libraries."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from anomaly_api import RELEASE


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed, of this software, and of Python, by name."""
    found = {"anomaly-operator": RELEASE, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
