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

# Handed to the build as a secret: behind a proxy with an authority of its own, downloads need it.
CA_CERTIFICATES = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
TEMPORARY = settings.HOME / "tmp"
# Others may share the machine.
POLITELY = ("nice", "-n", "5")


def build(image: Image, reference: str, base: str | None, tool: str) -> None:
    """Build an image as `reference`; `base` None leaves the Containerfile's default.

    Raises ClusterError or CalledProcessError after the build's own words on stderr.
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
    """docker shows its progress itself; stdout is for the references of the images."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    subprocess.run(
        [*POLITELY, "docker", "build", *options, "."], cwd=ROOT, env=environment, stdout=sys.stderr, check=True
    )


def _build_with_buildah(options: list[str], reference: str) -> None:
    """Layers are kept, so that only the last, small ones are made again when code changes."""
    _share_uv_cache()
    settings_of_build = ["--layers", "--network=host", "--format=oci"]
    env = {**cluster_images.buildah_environment(), "TMPDIR": str(TEMPORARY)}
    command = (*POLITELY, "buildah", "build", *settings_of_build, *options, ".")
    with progress(f"building {reference}", speaker="images") as work:
        if watch(*command, on_line=work.print, env=env, cwd=ROOT):
            raise ClusterError(f"`buildah build` of {reference} failed, see above")


def _share_uv_cache() -> None:
    """Let builds use the user's own uv cache: the same wheels are in the virtual environment."""
    users = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
    users.mkdir(parents=True, exist_ok=True)
    cache = TEMPORARY / "buildah-cache" / "uv"
    cache.parent.mkdir(parents=True, exist_ok=True)
    if not cache.is_symlink():
        cache.symlink_to(users)
