"""Building an image: with buildah on the embedded cluster's storage, or with docker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from hack.cluster import images as cluster_images
from hack.cluster import settings
from hack.images.catalog import ROOT, Image

# Handed to the build as a secret: behind a proxy with an authority of its own, downloads need it.
CA_CERTIFICATES = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
TEMPORARY = settings.HOME / "tmp"


def build(image: Image, reference: str, base: str | None, tool: str) -> None:
    """Build an image as `reference`; `base` None leaves the Containerfile's default."""
    options = ["--file", image.containerfile, "--tag", reference]
    options += ["--build-context", f"tools={settings.BIN}"]
    if CA_CERTIFICATES.exists():
        options += ["--secret", f"id=ca-certificates,src={CA_CERTIFICATES}"]
    if base:
        options += ["--build-arg", f"BASE_IMAGE={base}"]
    if tool == "docker":
        _run("docker", "build", *options, ".", env={"DOCKER_BUILDKIT": "1"})
    else:
        _build_with_buildah(options)


def _build_with_buildah(options: list[str]) -> None:
    """Layers are kept, so that only the last, small ones are made again when code changes."""
    _share_uv_cache()
    settings_of_build = ["--layers", "--network=host", "--format=oci"]
    env = {**cluster_images.buildah_environment(), "TMPDIR": str(TEMPORARY)}
    _run("buildah", "build", *settings_of_build, *options, ".", env=env)


def _share_uv_cache() -> None:
    """Let builds use the user's own uv cache: the same wheels are in the virtual environment."""
    users = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache" / "uv"))
    users.mkdir(parents=True, exist_ok=True)
    cache = TEMPORARY / "buildah-cache" / "uv"
    cache.parent.mkdir(parents=True, exist_ok=True)
    if not cache.is_symlink():
        cache.symlink_to(users)


def _run(*command: str, env: Mapping[str, str]) -> None:
    """Run a build with its output on stderr; stdout is for the references of the images."""
    full = ["nice", "-n", "5", *command]
    subprocess.run(full, cwd=ROOT, env={**os.environ, **env}, stdout=sys.stderr, check=True)
