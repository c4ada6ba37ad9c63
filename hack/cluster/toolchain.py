"""The programs the cluster is made of: Debian packages, and binaries built from Go modules.

Binaries are rebuilt when their sources change; a stamp beside each records the sources' digest. They
are built one after the other, since each build keeps all cores busy, and without cgo, so that they
share the compiled standard library and need no C compiler. The Go build cache is private and removed
afterwards: it takes gigabytes, and the next build happens only when a version changes.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from hack.cluster import golang, packages, settings
from hack.cluster.progress import Progress, progress

STAMPS = settings.BIN / ".stamps"
# Debugging information is not needed, and leaving it out saves a seventh of the time.
GO_OPTIONS = ("-trimpath", "-gcflags=all=-dwarf=false")


def ensure(tools: tuple[str, ...] = ()) -> None:
    """Install and build whatever is missing or outdated; `tools` are built in addition to the usual ones.

    Raises:
        ClusterError: something cannot be installed or built.
    """
    packages.ensure(*settings.DEBIAN_PACKAGES)
    ensure_programs(*settings.BINARIES, *settings.DEFAULT_TOOLS, *tools)


def ensure_programs(*names: str) -> None:
    """Build the binaries and tools of these names whose sources changed since they were built."""
    wanted = {name: settings.GO_TOOLS.get(name) or _fingerprint(name) for name in names}
    outdated = [name for name, stamp in wanted.items() if not _is_current(name, stamp)]
    if not outdated:
        return
    go = golang.ensure()
    for name in outdated:
        with progress(f"building {name}") as work:
            _install(go, name, work) if name in settings.GO_TOOLS else _build(go, name, work)
        _stamp(name).parent.mkdir(parents=True, exist_ok=True)
        _stamp(name).write_text(wanted[name])
    shutil.rmtree(golang.CACHE, ignore_errors=True)


def _fingerprint(name: str) -> str:
    digest = hashlib.sha256(settings.KUBERNETES_VERSION.encode())
    for source in sorted((settings.SOURCE / name).iterdir()):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _stamp(name: str) -> Path:
    return STAMPS / name


def _is_current(name: str, stamp: str) -> bool:
    built = (settings.BIN / name).exists() and _stamp(name).exists()
    return built and _stamp(name).read_text() == stamp


def _build(go: golang.Go, name: str, work: Progress) -> None:
    """Build one of the project's own programs, and link its commands to it, if it has several."""
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
    # No version from git: the checkout may belong to another user, or be no repository at all.
    options = (*GO_OPTIONS, "-buildvcs=false", f"-ldflags={flags}", "-o", str(settings.BIN / name))
    folder = settings.SOURCE / name
    go.compile("build", *options, ".", folder=folder, work=work, expected=go.dependencies(folder, work))
    for command in settings.BINARIES.get(name, ()):
        link = settings.BIN / command
        link.unlink(missing_ok=True)
        link.symlink_to(name)


def _install(go: golang.Go, name: str, work: Progress) -> None:
    """Install a tool with `go install`; its number of packages is not known in advance."""
    go.compile("install", *GO_OPTIONS, "-ldflags=-s -w", settings.GO_TOOLS[name], folder=settings.HOME, work=work)
