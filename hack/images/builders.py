"""Building an image: with buildah on the embedded cluster's storage, or with docker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hack.cluster import images as cluster_images
from hack.cluster import settings
from hack.cluster.progress import progress
from hack.cluster.shell import ClusterError, watch
from hack.images.catalog import ROOT, Image

# Passed to the build as a secret: downloads through a proxy with a private certificate authority need it.
CA_CERTIFICATES = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
TEMPORARY = settings.HOME / "tmp"
# Low priority, since others may share the machine.
LOW_PRIORITY = ("nice", "-n", "5")


def build(image: Image, reference: str, base: str | None, tool: str) -> None:
    """Build an image as `reference`; `base` None keeps the Containerfile's default.

    Raises:
        ClusterError: buildah failed; stderr has its output.
        CalledProcessError: docker failed; stderr has its output.
    """
    options = ["--file", image.containerfile, "--tag", reference]
    options += ["--build-context", f"tools={settings.BIN}"]
    if CA_CERTIFICATES.exists():
        options += ["--secret", f"id=ca-certificates,src={CA_CERTIFICATES}"]
    if base:
        options += ["--build-arg", f"BASE_IMAGE={base}"]
    if tool == "docker":
        _build_with_docker(options)
    else:
        _build_with_buildah(options, reference)


def _build_with_docker(options: list[str]) -> None:
    """Build with docker, which shows its own progress, on stderr: stdout is for the references of the images."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    subprocess.run(
        [*LOW_PRIORITY, "docker", "build", *options, "."], cwd=ROOT, env=environment, stdout=sys.stderr, check=True
    )


def _build_with_buildah(options: list[str], reference: str) -> None:
    """Build with cached layers, so that a change of code rebuilds only the last, small ones."""
    _share_uv_cache()
    build_options = ["--layers", "--network=host", "--format=oci"]
    env = {**cluster_images.buildah_environment(), "TMPDIR": str(TEMPORARY)}
    command = (*LOW_PRIORITY, "buildah", "build", *build_options, *options, ".")
    with progress(f"building {reference}", speaker="images") as work:
        if watch(*command, on_line=work.print, env=env, cwd=ROOT):
            raise ClusterError(f"`buildah build` of {reference} failed, see above")


def _share_uv_cache() -> None:
    """Let builds use the user's own uv cache: the same wheels are in the virtual environment."""
    user_cache = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
    user_cache.mkdir(parents=True, exist_ok=True)
    cache = TEMPORARY / "buildah-cache" / "uv"
    cache.parent.mkdir(parents=True, exist_ok=True)
    if not cache.is_symlink():
        cache.symlink_to(user_cache)
