"""A real browser that opens a page without a window."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
)


class Browsed(NamedTuple):
    """A page's DOM, and the lines of the browser's console."""

    dom: str
    complaints: list[str]


def find_browser() -> str:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium: `hack/setup` installs it on Debian")
    return browser


def browse(browser: str, page: Path, profile: Path) -> Browsed:
    """The page's DOM and the lines of the browser's console."""
    command = [browser, *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Browsed(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])
