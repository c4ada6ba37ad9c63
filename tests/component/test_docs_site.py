"""The documentation as a site: built in strict mode, so that a dead link fails, without resources of other sites."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run MkDocs in a process of its own, so that its warnings and logging do not affect this one."""
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder), *options]
    variables = os.environ | {"NO_MKDOCS_2_WARNING": "1"} | environment
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


def test_the_site_has_no_dead_link(tmp_path: Path) -> None:
    done = build(tmp_path / "site", "--strict")
    assert done.returncode == 0, done.stderr
    foreign = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="https?://')
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 10
    assert [page.parent.name for page in pages if foreign.search(page.read_text())] == [], "fetched from elsewhere"


def test_links_to_files_of_the_repository_need_its_address(tmp_path: Path) -> None:
    done = build(tmp_path / "site", REPOSITORY_URL="https://example.org/some/where")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "architecture" / "index.html").read_text()
    assert 'href="https://example.org/some/where/blob/HEAD/operator/anomaly_operator/reconciler.py"' in page
