"""Removal of images that newer ones have replaced, which would fill disks with gigabytes of old layers.

An image exists in three places: buildah's storage, the registry and the node. It is removed from all
of them, and then the registry drops the layers that nothing refers to any longer.
"""

from __future__ import annotations

from itertools import groupby

from hack.cluster import components, config, images, processes, settings
from hack.cluster.shell import run, say

# Newest builds of each image that are kept, for colleagues and the last commits.
KEPT_BUILDS = 3
OWN_IMAGES = {settings.PAUSE_IMAGE, settings.BASE_IMAGE}


def prune() -> None:
    """Remove replaced images; the registry must be running, and is restarted."""
    replaced = _replaced_images()
    if not replaced:
        return
    say(f"removing {len(replaced)} replaced images")
    on_node = set(images.cri("images").splitlines())
    for reference in replaced:
        if reference in on_node:
            images.cri("remove-image", reference)
        images.remove_from_registry(reference)
        images.buildah("rmi", "--force", reference)
    _collect_garbage()


def _replaced_images() -> list[str]:
    """Return the references of the builds that are too old to be kept; buildah lists the newest first."""
    listed = images.buildah("images", "--format", "{{.Name}}:{{.Tag}}").splitlines()
    builds = [found for found in listed if found.startswith(settings.REGISTRY) and found not in OWN_IMAGES]
    by_name = groupby(sorted(builds, key=_name), key=_name)
    return [reference for _, references in by_name for reference in list(references)[KEPT_BUILDS:]]


def _name(reference: str) -> str:
    return reference.rpartition(":")[0]


def _collect_garbage() -> None:
    """Run the registry's own garbage collector, which must not run while the registry takes uploads."""
    processes.stop(components.registry())
    run(settings.BIN / "registry", "garbage-collect", "--delete-untagged", config.path("registry.yaml"))
    processes.ensure_running(components.registry())
