"""The programs the cluster is made of: Debian packages, and binaries built from Go modules.

Binaries are rebuilt when what they are built from changes, which a stamp beside each remembers.
The Go build cache is private and removed afterwards: it would hold gigabytes for nothing, since
the next build happens only when a version changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from hack.cluster import settings
from hack.cluster.shell import ClusterError, run, say

KUBE_SOURCE = settings.SOURCE / "kube"
STAMPS = settings.BIN / ".stamps"
GO_CACHE = settings.HOME / "go-build-cache"


def ensure() -> None:
    """Install and build whatever is missing or outdated."""
    ensure_debian_packages(settings.DEBIAN_PACKAGES)
    ensure_binaries()


def ensure_debian_packages(names: tuple[str, ...]) -> None:
    """Install the Debian packages that are missing; asks apt for nothing when all are there."""
    missing = [name for name in names if not _package_installed(name)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise ClusterError(f"run as root, or install these yourself: {' '.join(missing)}")
    say(f"installing Debian packages: {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", env=quiet)
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=quiet)


def _package_installed(name: str) -> bool:
    status = run("dpkg-query", "--show", "--showformat=${Status}", name, check=False)
    return status == "install ok installed"


def ensure_binaries() -> None:
    """Build the Kubernetes binary and the Go tools whose sources changed since they were built."""
    wanted = {"kube": _kube_fingerprint(), **settings.GO_TOOLS}
    outdated = [name for name, stamp in wanted.items() if not _is_current(name, stamp)]
    if not outdated:
        return
    _check_go()
    settings.BIN.mkdir(parents=True, exist_ok=True)
    for name in outdated:
        say(f"building {name} (once; {'minutes' if name == 'kube' else 'a while'})")
        _build_kube() if name == "kube" else _install(name)
        _stamp(name).parent.mkdir(exist_ok=True)
        _stamp(name).write_text(wanted[name])
    shutil.rmtree(GO_CACHE, ignore_errors=True)


def _kube_fingerprint() -> str:
    digest = hashlib.sha256(settings.KUBERNETES_VERSION.encode())
    for source in sorted(KUBE_SOURCE.iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _stamp(name: str) -> Path:
    return STAMPS / name


def _is_current(name: str, stamp: str) -> bool:
    built = (settings.BIN / name).exists() and _stamp(name).exists()
    return built and _stamp(name).read_text() == stamp


def _check_go() -> None:
    wanted = ".".join(map(str, settings.GO_VERSION))
    if shutil.which("go") is None:
        raise ClusterError(f"the cluster is built with Go {wanted} or newer: install it first")
    found = re.search(r"go(\d+)\.(\d+)", run("go", "env", "GOVERSION"))
    if found is None or tuple(map(int, found.groups())) < settings.GO_VERSION:
        raise ClusterError(f"the cluster is built with Go {wanted} or newer: yours is older")


def _build_kube() -> None:
    major, minor, _ = settings.KUBERNETES_VERSION.split(".")
    version = f"v{settings.KUBERNETES_VERSION}"
    flags = " ".join(
        [
            "-s -w",
            f"-X k8s.io/component-base/version.gitVersion={version}",
            f"-X k8s.io/component-base/version.gitMajor={major}",
            f"-X k8s.io/component-base/version.gitMinor={minor}",
            f"-X k8s.io/client-go/pkg/version.gitVersion={version}",
        ]
    )
    _go("build", "-trimpath", f"-ldflags={flags}", "-o", str(settings.BIN / "kube"), ".")
    for component in settings.KUBE_COMPONENTS:
        link = settings.BIN / component
        link.unlink(missing_ok=True)
        link.symlink_to("kube")


def _install(name: str) -> None:
    """Without cgo: a static binary runs in any image, as the S3 server's has to."""
    _go("install", "-trimpath", "-ldflags=-s -w", settings.GO_TOOLS[name], CGO_ENABLED="0")


def _go(*arguments: str, **environment: str) -> None:
    """Run go politely, since others may share the machine."""
    env = {"GOCACHE": str(GO_CACHE), "GOBIN": str(settings.BIN), **environment}
    run("nice", "-n", "5", "go", *arguments, env=env, cwd=KUBE_SOURCE)
