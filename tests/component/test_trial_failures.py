"""A trial that fails says why beside the others' reports; other runs, and looks at a trial's data, leave nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from anomaly_api.run import RunReport
from anomaly_api.storage import LocationRole
from anomaly_runner import in_cluster
from anomaly_runner.local import check_locally, run_locally
from anomaly_runner.storage import FolderStore
from support.optional import not_none
from support.searches import LEARNING, Ran, report_of
from support.sweep_specs import sweep_spec
from support.textures import EXPERIMENT, Document, write_manifest

SPEC = sweep_spec(LEARNING)


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial: bool) -> list[Path]:
    """Run a trial without images in a pod, and return the files in its output."""
    report = report_of(SPEC, Ran(4, {"model.padim.nFeatures": 60}, {}))
    document: dict[str, Any] = json.loads(report.config.model_dump_json(by_alias=True, exclude_none=True))
    document["experiment"].pop("tracking", None)
    if not trial:
        document["experiment"].pop("trial")
    (tmp_path / "data").mkdir()
    (tmp_path / "run.json").write_text(json.dumps(document))
    stores = {role: FolderStore(tmp_path / "data") for role in (LocationRole.DATASET, LocationRole.WEIGHTS)}
    stores[LocationRole.OUTPUT] = FolderStore(tmp_path / "out")
    monkeypatch.setattr(in_cluster, "pod_stores", lambda config: stores)
    assert in_cluster.run_in_pod(tmp_path / "run.json", tmp_path / "work", tmp_path / "end", {}) != 0
    return [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_failed_trial_leaves_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [file] = run(tmp_path, monkeypatch, trial=True)
    assert file.relative_to(tmp_path / "out").as_posix() == "factory/screws-t0004/trial-uid/failure.json"
    left = RunReport.model_validate_json(file.read_bytes())
    told = json.loads((tmp_path / "end").read_text())
    assert (left.summary.reason, left.summary.message) == (told["reason"], told["message"])
    assert not_none(not_none(left.config.experiment).trial).values == {"model.padim.nFeatures": 60}


def test_a_failed_trial_without_a_cluster_does_too_but_no_check_of_it(
    textures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_a_sweep(document: Document) -> None:
        document["spec"]["trial"] = {"sweep": "textures", "number": 4, "values": {"model.padim.nFeatures": 60}}
        document["spec"]["dataset"]["category"] = "nothing"

    manifest = write_manifest(textures, EXPERIMENT, of_a_sweep)
    assert check_locally(manifest, textures) != 0
    assert not list(textures.rglob("failure.json"))
    assert run_locally(manifest, textures) != 0
    [file] = textures.rglob("failure.json")
    left = RunReport.model_validate_json(file.read_bytes())
    assert left.summary.message
    assert left.summary.message in " ".join(capsys.readouterr().err.split())
    assert not_none(not_none(left.config.experiment).trial).number == 4


def test_other_runs_leave_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, monkeypatch, trial=False) == []
