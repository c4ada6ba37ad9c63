"""The documentation: its drawings are up to date, and everything that it names exists."""

import re
import tomllib
from pathlib import Path

import pytest

from hack.docs import diagrams

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/*.md")])
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
LAYERS = [
    contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["type"] == "layers"
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?![a-z]+:|#)([^)\s#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_has_the_targets_that_are_named(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z0-9-]+)", page.read_text())) <= targets


@pytest.mark.parametrize("source", diagrams.sources(), ids=lambda path: path.stem)
def test_drawings_are_up_to_date(source: Path) -> None:
    assert diagrams.is_current(source), "make diagrams"


@pytest.mark.parametrize("contract", LAYERS, ids=lambda contract: contract["containers"][0])
def test_the_rooms_are_those_of_the_import_contracts(contract: dict[str, list[str]]) -> None:
    heading = f"### Rooms of the {contract['containers'][0].removeprefix('anomaly_')}"
    drawing = ARCHITECTURE.partition(heading)[2].partition("```text\n")[2].partition("\n```")[0]
    rooms = [re.split(r" {2,}", line)[0] for line in drawing.splitlines()]
    assert rooms == contract["layers"]
