"""What ran the run: versions of libraries, for the report."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from anomaly_api import RELEASE


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions by package, of those that are installed, of this software, and of Python."""
    found = {"anomaly-operator": RELEASE, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
