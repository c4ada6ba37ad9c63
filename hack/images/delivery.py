"""Bringing images to the cluster that is to run them.

The embedded cluster pulls from its own loopback registry. Any other cluster pulls from the registry
that IMAGE_REGISTRY names; a cluster without such a registry cannot get images that are built here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from hack.cluster import config, lifecycle, packages, settings, toolchain
from hack.cluster import images as cluster_images
from hack.cluster.progress import progress
from hack.images import builders
from hack.images.catalog import IMAGES, Image
from hack.images.tags import content_tag

# Debian packages that buildah's builds and the base image need; the embedded cluster installs more.
BUILD_PACKAGES = ("buildah", "ca-certificates", "debootstrap")


class DeliveryError(Exception):
    """The images cannot reach the cluster as things are set up; the message says what to set."""


@dataclass(frozen=True)
class Target:
    """Where images go: a registry's prefix, and whether it is the embedded cluster's."""

    prefix: str
    embedded: bool
    builder: str

    @property
    def base(self) -> str | None:
        """The base image: Debian made on this machine for buildah; None for the Containerfile's public default."""
        return settings.BASE_IMAGE if self.builder == "buildah" else None


def target() -> Target:
    """Decide from the environment where images go.

    Raises:
        DeliveryError: a registry is needed, and IMAGE_REGISTRY is not set.
    """
    builder = os.environ.get("BUILDER", "buildah")
    if registry := os.environ.get("IMAGE_REGISTRY"):
        return Target(registry.rstrip("/"), embedded=False, builder=builder)
    if not uses_embedded_cluster():
        names = ", ".join(image.variable for image in IMAGES)
        raise DeliveryError(
            "KUBECONFIG names a cluster of yours: set IMAGE_REGISTRY to a registry that it pulls "
            f"from and you may push to, or name existing images in {names}"
        )
    return Target(f"{settings.REGISTRY}/anomaly", embedded=True, builder=builder)


def uses_embedded_cluster() -> bool:
    """Whether the cluster in use is the embedded one, which is so unless KUBECONFIG names another."""
    return os.environ.get("KUBECONFIG", "") in ("", str(settings.KUBECONFIG))


def prepare(where: Target) -> None:
    """Make sure that everything a build needs is installed.

    Raises:
        ClusterError: a program is missing, or the embedded cluster does not run.
    """
    if where.embedded:
        lifecycle.ensure_running()
        return
    toolchain.ensure_programs(*settings.DEFAULT_TOOLS)
    if where.builder == "buildah":
        packages.ensure(*BUILD_PACKAGES)
        config.ensure()
        cluster_images.ensure_made(settings.BASE_IMAGE)


def reference(image: Image, where: Target) -> str:
    """Return the image's full name; one given in the environment takes precedence."""
    given = os.environ.get(image.variable)
    return given or f"{where.prefix}/{image.name}:{content_tag(image, where.base or '')}"


def deliver(image: Image, where: Target) -> str:
    """Build the image unless it exists, bring it to the cluster, and return its reference.

    Raises:
        ClusterError, CalledProcessError: the image cannot be built or pushed.
    """
    if given := os.environ.get(image.variable):
        return given
    name = reference(image, where)
    if where.embedded and cluster_images.on_node(name):
        return name
    if where.builder == "docker":
        _deliver_with_docker(image, name, where)
    else:
        _deliver_with_buildah(image, name, where)
    return name


def _deliver_with_buildah(image: Image, name: str, where: Target) -> None:
    if not cluster_images.in_storage(name):
        builders.build(image, name, where.base, "buildah")
    with progress(f"delivering {name}", speaker="images"):
        if where.embedded:
            cluster_images.load(name)
        else:
            cluster_images.buildah("push", "--quiet", name)


def _deliver_with_docker(image: Image, name: str, where: Target) -> None:
    builders.build(image, name, where.base, "docker")
    subprocess.run(["docker", "push", "--quiet", name], stdout=sys.stderr, check=True)
    if where.embedded:
        cluster_images.load(name)
