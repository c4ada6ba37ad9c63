"""The images that the cluster itself needs, and the delivery of any image to the node.

Images travel through a registry on the loopback interface: buildah pushes and containerd pulls only
the layers that the other side lacks. For a runner image that is kilobytes after a change of code,
whereas an archive would move all of its gigabytes every time.
"""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory

from hack.cluster import config, settings
from hack.cluster.progress import progress
from hack.cluster.shell import ClusterError, run, succeeds

MANIFEST_TYPES = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
BASE_PACKAGES = "ca-certificates,python3,python3-venv"


def buildah_environment() -> dict[str, str]:
    """Return variables that make buildah keep its storage in the cluster's home and trust its registry."""
    return {
        "CONTAINERS_STORAGE_CONF": str(config.path("storage.conf")),
        "CONTAINERS_REGISTRIES_CONF": str(config.path("registries.conf")),
        "BUILDAH_ISOLATION": "chroot",
    }


def buildah(*arguments: str | Path) -> str:
    """Run buildah on the cluster's own storage."""
    return run("buildah", *arguments, env=buildah_environment()).strip()


def cri(*arguments: str) -> str:
    """Call the node's container runtime over the CRI, as the kubelet does, and return the output."""
    endpoint = f"--endpoint=unix://{settings.CONTAINERD_SOCKET}"
    return run(settings.BIN / "cri", endpoint, *arguments)


def ensure_base_images() -> None:
    """Make the pause and the base image, and push them to the registry, unless it has them."""
    for reference in (settings.PAUSE_IMAGE, settings.BASE_IMAGE):
        if not in_registry(reference):
            ensure_made(reference)
            push(reference)


def ensure_made(reference: str) -> None:
    """Make the pause or the base image unless buildah has it."""
    if in_storage(reference):
        return
    build = {settings.PAUSE_IMAGE: _build_pause, settings.BASE_IMAGE: _build_base}[reference]
    with progress(f"making {reference}"), TemporaryDirectory(dir=settings.HOME) as folder:
        build(Path(folder), reference)


def load(reference: str) -> None:
    """Bring an image that buildah built to the node, unless it is there already.

    Raises:
        ClusterError: its name is not one of the loopback registry, or there is no such image.
    """
    if not in_registry(reference):
        push(reference)
    if not on_node(reference):
        cri("pull", reference)


def push(reference: str) -> None:
    """Push an image to the loopback registry, lightly compressed: cores are few, disk is slow.

    Raises:
        ClusterError: the reference is not one of that registry.
    """
    if not reference.startswith(f"{settings.REGISTRY}/"):
        raise ClusterError(f"{reference} cannot be loaded: name it {settings.REGISTRY}/...")
    light = ("--compression-format", "zstd", "--compression-level", "1")
    buildah("push", "--quiet", "--format", "oci", *light, reference)


def in_storage(reference: str) -> bool:
    """Whether buildah has the image."""
    return succeeds("buildah", "inspect", "--type", "image", reference, env=buildah_environment())


def in_registry(reference: str) -> bool:
    """Whether the loopback registry has the image."""
    return _registry_digest(reference) is not None


def remove_from_registry(reference: str) -> None:
    """Remove an image from the loopback registry; its layers stay until garbage is collected."""
    if digest := _registry_digest(reference):
        _ask_registry("DELETE", f"{reference.rpartition(':')[0]}:{digest}")


def _registry_digest(reference: str) -> str | None:
    """Return the digest of an image's manifest in the registry; None if it is not there."""
    try:
        return _ask_registry("HEAD", reference)["Docker-Content-Digest"]
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise


def _ask_registry(method: str, reference: str) -> Message:
    """Return the headers of the registry's response about an image, named as NAME:TAG or NAME:DIGEST."""
    name, _, version = reference.removeprefix(f"{settings.REGISTRY}/").partition(":")
    url = f"http://{settings.REGISTRY}/v2/{name}/manifests/{version}"
    request = urllib.request.Request(url, method=method, headers={"Accept": MANIFEST_TYPES})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=5) as answer:
        headers: Message = answer.headers
        return headers


def on_node(reference: str) -> bool:
    """Whether containerd has the image, unpacked and ready to run."""
    return reference in cri("images").splitlines()


def _build_pause(_: Path, reference: str) -> None:
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, settings.BIN / "pause", "/pause")
    buildah("config", "--entrypoint", '["/pause"]', "--user", "65535:65535", container)
    buildah("commit", "--quiet", "--rm", container, reference)


def _build_base(folder: Path, reference: str) -> None:
    """Make an image of minimal Debian with Python, a substitute for the public Python image."""
    root = folder / "root"
    run("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", root)
    for useless in (
        "var/cache/apt",
        "var/lib/apt/lists",
        "var/log",
        "usr/share/doc",
        "usr/share/man",
    ):
        shutil.rmtree(root / useless, ignore_errors=True)
        (root / useless).mkdir(parents=True)
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, root, "/")
    buildah("config", "--cmd", '["python3"]', container)
    buildah("commit", "--quiet", "--rm", container, reference)
