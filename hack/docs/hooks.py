"""MkDocs hooks: pages that stay at the repository's root, and links to the repository's files.

On GitHub a link is relative to the file that contains it. Here it becomes a link to the site's page of that file, or
to the file in the repository; one that leads nowhere is a warning, and so fails the build.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks")

ROOT = Path(__file__).resolve().parents[2]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the site that are files at the repository's root."""
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not below docs/."""
    for name, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    sources = {uri: name for name, uri in ROOT_PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return LINK.sub(lambda link: _relinked(link, source, config.repo_url), markdown)


def _relinked(link: re.Match[str], source: str, repository: str | None) -> str:
    text, target, anchor = link["text"], link["target"], link["anchor"] or ""
    if re.match(r"[a-z]+:", target):
        return link[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if not (ROOT / path).exists():
        log.warning("%s links to %s, which is not in the repository", source, target)
        return link[0]
    if path in ROOT_PAGES or path.startswith("docs/"):
        return f"[{text}]({ROOT_PAGES.get(path) or path.removeprefix('docs/')}{anchor})"
    if repository:
        return f"[{text}]({repository.rstrip('/')}/blob/HEAD/{path})"
    return text if "`" in text else f"`{text}`"
