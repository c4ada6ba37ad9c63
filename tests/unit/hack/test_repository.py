"""Workflows, templates and releases: everything they call exists, permissions are few, versions agree."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomaly_api import RELEASE
from hack.images.catalog import INFERENCE, OPERATOR, RUNNER
from hack.release import chart, sbom, version

ROOT = Path(__file__).parents[3]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def loaded(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file."""
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all steps of all jobs of a workflow."""
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_existing_targets_and_modules(path: Path) -> None:
    commands = "\n".join(step.get("run", "") for step in steps(loaded(path)))
    assert set(re.findall(r"^make ([a-z-]+)", commands, re.MULTILINE)) <= TARGETS
    files = re.findall(r"(?<![\w/.$-])(?:hack|\.ci)/[\w/.-]+", commands)
    assert [file for file in files if not (ROOT / file).exists()] == []
    modules = re.findall(r"-m (hack\.[\w.]+)", commands)
    assert [module for module in modules if not (ROOT / module.replace(".", "/")).is_dir()] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_few_permissions(path: Path) -> None:
    workflow = loaded(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False
        assert "${{" not in step.get("run", ""), "values reach a script by its environment alone"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_ask_something(path: Path) -> None:
    form = loaded(path)
    assert {"name", "description", "body"} <= form.keys()
    asked = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in asked}) == len(asked)
    assert any(field.get("validations", {}).get("required") for field in asked)


def test_paths_of_code_owners_exist() -> None:
    lines = [line.split() for line in (GITHUB / "CODEOWNERS").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0][0] == "*"
    assert [pattern for pattern, *_ in lines[1:] if not (ROOT / pattern.strip("/")).is_dir()] == []


def test_folders_of_dependabot_exist() -> None:
    for update in loaded(GITHUB / "dependabot.yml")["updates"]:
        for folder in update.get("directories") or [update["directory"]]:
            place = ROOT / folder.strip("/")
            wanted = {"gomod": "go.mod", "docker": "*Containerfile", "github-actions": ".github/workflows/*.yml"}
            assert list(place.glob(wanted[update["package-ecosystem"]])), folder


def test_pre_commit_runs_what_lint_runs() -> None:
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    ours = {shlex.split(line.strip())[0].removeprefix("$(VENV)/bin/") for line in lint.splitlines()[1:]}
    [local] = loaded(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    assert {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in local["hooks"]} == ours


def test_one_version_everywhere() -> None:
    assert list(version.disagreements()) == []


def test_a_release_is_of_its_tag() -> None:
    assert any("v9.9.9" in problem for problem in version.unready("v9.9.9"))
    assert not any("the tag" in problem for problem in version.unready(f"v{RELEASE}"))


def test_notes_are_a_section_of_the_changelog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = f"# Changelog\n\n## [Unreleased]\n- next\n\n## [{RELEASE}] - 2026-01-02\n- this\n\n## [0.0.1]\n- old\n"
    (tmp_path / "CHANGELOG.md").write_text(text)
    monkeypatch.setattr(version, "ROOT", tmp_path)
    assert version.notes() == "- this"


def test_the_chart_of_a_release_has_its_images() -> None:
    values = (version.CHART / "values.yaml").read_text()
    images = {variable: f"registry.example.org/vision/{variable.lower()}@sha256:00" for variable in chart.FIELDS}
    before, after = yaml.safe_load(values), yaml.safe_load(chart.with_images(values, images))
    assert after["image"] == images["ANOMALY_OPERATOR_IMAGE"]
    assert after["runs"]["runnerImage"] == images["ANOMALY_RUNNER_IMAGE"]
    assert after["runs"]["inferenceImage"] == images["ANOMALY_INFERENCE_IMAGE"]
    for values_of, names in ((before, ("image", "runs")), (after, ("image", "runs"))):
        for name in names:
            values_of.pop(name)
    assert after == before


def test_bills_of_materials_cover_the_requirements_of_images() -> None:
    assert [path.name for path in sbom.requirement_files(OPERATOR)] == ["requirements.txt"]
    assert [path.name for path in sbom.requirement_files(INFERENCE)] == ["inference-requirements.txt"]
    assert [path.name for path in sbom.requirement_files(RUNNER)] == ["inference-requirements.txt", "requirements.txt"]
    assert chart.FIELDS.keys() == {image.variable for image in (OPERATOR, INFERENCE, RUNNER)}
