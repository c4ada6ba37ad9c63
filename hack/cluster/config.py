"""Configuration files, rendered from the templates in config/ with the values of `settings`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from string import Template

from hack.cluster import settings
from hack.cluster.shell import write_if_changed

TEMPLATES = settings.SOURCE / "config"
# Path of a rendered file below settings.CONFIG, if it differs from that of its template.
TARGETS = {"hosts.toml": f"registries/{settings.REGISTRY}/hosts.toml"}


def ensure() -> None:
    """Render every template; up-to-date files are not touched."""
    for template in sorted(TEMPLATES.rglob("*")):
        if template.is_file():
            name = str(template.relative_to(TEMPLATES))
            write_if_changed(settings.CONFIG / TARGETS.get(name, name), _render(template))


def path(name: str) -> Path:
    """Return the path of the rendered file of the template `name`."""
    return settings.CONFIG / TARGETS.get(name, name)


def fingerprint(names: tuple[str, ...]) -> str:
    """Return a digest of the rendered files: a process that started with another digest is outdated."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(path(name).read_bytes())
    return digest.hexdigest()


def _render(template: Path) -> str:
    return Template(template.read_text()).substitute(settings.TEMPLATE_VALUES)
