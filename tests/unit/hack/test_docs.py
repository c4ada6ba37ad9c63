"""The documentation: its drawings are up to date, and everything that it names exists."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from anomaly_api import API_VERSION
from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference
from anomaly_api.reasons import COMPLETED, FINAL_EXIT_CODES, ExitCode, Reason
from anomaly_api.sweep import MetricPath
from anomaly_operator import metrics as metrics_module
from hack.docs import diagrams
from hack.generate import crds

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/*.md")])
ARCHITECTURE, FAILURES, GUIDE = (
    (ROOT / "docs" / f"{page}.md").read_text() for page in ("architecture", "failures", "guide")
)
KINDS: dict[str, crds.Kind] = {"AnomalyExperiment": AnomalyExperiment, "AnomalyInference": AnomalyInference}
NO_FIELDS = {*get_args(MetricPath), "resources.limits.memory", "scheduling.resources.limits.memory"}
"""Names with dots that are values, or keys of maps."""
FILES = ("csv", "html", "json", "log", "md", "parquet", "py", "safetensors", "txt", "yaml")
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


def _tables(page: str, heading: str) -> list[list[str]]:
    """Cells of the rows of the tables below a heading."""
    section = page.partition(f"## {heading}")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def _reasons(heading: str) -> set[Reason]:
    return {Reason(row[0].strip("`")) for row in _tables(FAILURES, heading)}


def test_every_failure_of_a_run_is_told_where_it_belongs() -> None:
    final = {code.reason for code in FINAL_EXIT_CODES}
    retried = {code.reason for code in ExitCode if code not in (ExitCode.DONE, *FINAL_EXIT_CODES)}
    by_the_operator = {Reason.DEADLINE_EXCEEDED, Reason.TRIALS_FAILED, Reason.RESULT_LOST}
    assert _reasons("The run failed for good") == final | by_the_operator
    assert _reasons("The run is retried") == retried


def test_exit_codes_are_told_with_their_reasons() -> None:
    told = {int(row[0]): re.findall(r"`(\w+)`", row[1]) for row in _tables(FAILURES, "Exit codes")}
    assert told.pop(0) == sorted(COMPLETED)
    assert {code: reasons[0] for code, reasons in told.items()} == {
        code.value: code.reason.value for code in ExitCode if code is not ExitCode.DONE
    }


def test_all_metrics_are_told_with_their_labels() -> None:
    told = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in _tables(GUIDE, "How is the operator watched?")}
    metrics = [metric for metric in vars(metrics_module).values() if isinstance(metric, MetricWrapperBase)]
    assert told == {_exposed_name(metric): list(metric._labelnames) for metric in metrics}


def _exposed_name(metric: MetricWrapperBase) -> str:
    return f"{metric._name}_total" if isinstance(metric, Counter) else metric._name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_kubectl_is_shown_to_watch_one_kind_as_it_takes_no_more(page: Path) -> None:
    watched = re.findall(r"kubectl .*\bget (\S+).* (?:-w|--watch)\b", page.read_text())
    assert [kinds for kinds in watched if "," in kinds] == []


@cache
def _known_fields() -> set[str]:
    """Paths of all fields, and their ends."""
    return {end for kind in KINDS.values() for path in _paths(crds.resource_schema(kind)) for end in _ends(path)}


def _paths(schema: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the path of each field below an object."""
    for name, field in schema.get("properties", {}).items():
        yield f"{above}{name}"
        yield from _paths(field.get("items", field), f"{above}{name}.")


def _ends(path: str) -> Iterator[str]:
    """Yield a path, and what remains of it without its first fields."""
    names = path.split(".")
    return (".".join(names[first:]) for first in range(len(names)))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_fields_that_are_named_by_their_path_exist(page: Path) -> None:
    known = _known_fields()
    named = set(re.findall(r"`([a-z]\w*(?:\.[a-z]\w*)+)(?=[`: \[])", page.read_text())) - NO_FIELDS
    fields = {name for name in named if name.partition(".")[0] in known and name.rpartition(".")[2] not in FILES}
    assert fields <= known, f"no fields: {sorted(fields - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_manifests_on_pages_are_valid(page: Path) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for manifest in yaml.safe_load_all(block):
            if manifest.get("apiVersion") == API_VERSION:
                KINDS[manifest["kind"]].model_validate(manifest)
