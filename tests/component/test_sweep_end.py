"""The last pod of a sweep: it trains the winner and makes the page, or makes the page alone."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from anomaly_api.reasons import Reason
from anomaly_api.run import RunConfig, RunReport, RunSummary
from anomaly_api.status import StepFailure
from anomaly_api.storage import LocationRole
from anomaly_runner import in_cluster
from anomaly_runner.manifests import read_resource
from anomaly_runner.storage import FolderStore
from anomaly_runner.tracking.run_results import tracked_result
from anomaly_runner.tracking.tracker import FAILURE_TAG
from support.searches import RUN, ordinary, report_of, search_of, write_reports
from support.textures import EXPERIMENT, Document, write_manifest, write_textures

FILES = {"sweep.html", "trials.parquet", "trials.csv", "optuna-journal.log", "report.json"}
Run = Callable[..., RunSummary]
FAILURE = StepFailure(reason=Reason.TRIALS_FAILED, message="4 trials failed: DataInvalid (4 x)")


def on_cpu(document: Document) -> None:
    document["spec"]["scheduling"] = {"gpus": {"count": 0}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the last step of a sweep of four trials in a pod, on folders; the sweep's data are the textures."""
    write_textures(tmp_path / "data/textures")
    experiment = read_resource(write_manifest(tmp_path, EXPERIMENT, on_cpu), tmp_path).experiment
    spec, ran = ordinary(4, lambda number: 0.5 + number / 10)
    output = tmp_path / "out"
    write_reports(output, [report_of(spec, one) for one in ran])
    best = [{"number": 3, "objectives": {"image.AUROC": 0.8}, "values": dict(ran[3].values)}]
    stores = {LocationRole.DATASET: FolderStore(tmp_path / "data"), LocationRole.OUTPUT: FolderStore(output)}
    monkeypatch.setattr(in_cluster, "pod_stores", lambda config: stores)

    def work(step: str, *, failure: StepFailure | None = None, found: Sequence[Document] = best) -> RunSummary:
        search = search_of(spec, asked=4, complete=4, best=found, gpuHours=0.5)
        search = search.model_copy(update={"failure": failure})
        config = RunConfig.model_validate({"run": RUN, "experiment": experiment, "step": step, "sweep": search})
        (tmp_path / "run.json").write_text(config.model_dump_json(by_alias=True, exclude_none=True))
        in_cluster.run_in_pod(tmp_path / "run.json", tmp_path / "work", tmp_path / "end", {})
        return RunSummary.model_validate_json((tmp_path / "end").read_bytes())

    return work


def published(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "out" / RUN.folder).iterdir() if path.is_file()}


def test_a_leaderboard_without_a_training(run: Run, tmp_path: Path) -> None:
    summary = run("report")
    assert (summary.reason, summary.stage) == ("Complete", "done")
    folder = tmp_path / "out" / RUN.folder
    assert summary.artifacts
    assert (summary.artifacts.root, summary.artifacts.sweep) == (str(folder), str(folder / "sweep.html"))
    assert published(tmp_path) == FILES
    assert pyarrow.parquet.read_table(folder / "trials.parquet").num_rows == 4
    report = RunReport.model_validate_json((folder / "report.json").read_bytes())
    told = tracked_result(report, folder, complete=True)
    assert dict(told.metrics) | {"seconds_visualize": 0, "seconds_publish": 0} == {
        "sweep_asked": 4.0,
        "sweep_complete": 4.0,
        "sweep_pruned": 0.0,
        "sweep_infeasible": 0.0,
        "sweep_failed": 0.0,
        "sweep_gpu_hours": 0.5,
        "sweep_best_image_AUROC": 0.8,
        "seconds_visualize": 0,
        "seconds_publish": 0,
    }
    assert {file.name for _, file in told.artifacts} == FILES


@pytest.mark.parametrize("lost", [False, True], ids=["with reports", "without any"])
def test_a_search_that_failed_has_its_page(run: Run, tmp_path: Path, lost: bool) -> None:
    if lost:
        for folder in (tmp_path / "out" / RUN.namespace).iterdir():
            shutil.rmtree(folder)
    summary = run("report", failure=FAILURE, found=())
    assert (summary.reason, summary.stage) == ("Complete", "done"), "the report itself has not failed"
    assert summary.message == "the search failed, TrialsFailed: 4 trials failed: DataInvalid (4 x)"
    assert published(tmp_path) == FILES
    folder = tmp_path / "out" / RUN.folder
    assert pyarrow.parquet.read_table(folder / "trials.parquet").num_rows == (0 if lost else 4)
    assert "The search failed, TrialsFailed: 4 trials failed: DataInvalid (4 x)" in (folder / "sweep.html").read_text()
    report = RunReport.model_validate_json((folder / "report.json").read_bytes())
    told = tracked_result(report, folder, complete=True)
    assert told.failed
    assert told.tags[FAILURE_TAG] == summary.message


def test_a_pod_that_is_started_again_has_nothing_to_do(run: Run, tmp_path: Path) -> None:
    run("report")
    page = tmp_path / "out" / RUN.folder / "sweep.html"
    written = page.stat().st_mtime_ns
    assert run("report").reason == "Complete"
    assert page.stat().st_mtime_ns == written


def test_the_winner_is_trained_and_measured_beside_what_was_found(run: Run, tmp_path: Path) -> None:
    summary = run("train")
    assert summary.reason == "Complete", summary.message
    folder = tmp_path / "out" / RUN.folder
    assert published(tmp_path) >= FILES | {"report.html", "model.json", "predictions.parquet"}
    assert summary.artifacts
    assert summary.artifacts.sweep == str(folder / "sweep.html")
    report: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
    measured = report["summary"]["metrics"]["image"]["AUROC"]
    page = (folder / "sweep.html").read_text()
    assert f"measured again <b>{measured:.4f}</b>" in page
    assert f"{0.8 - measured:+.4g}" in page
    assert "report.html" in page


def test_a_page_that_cannot_be_made_does_not_cost_the_model(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> str:
        raise KeyError("a value that nobody thought of")

    monkeypatch.setattr("anomaly_runner.reporting.sweep.files.render", fail)
    summary = run("train")
    assert summary.reason == "Complete", summary.message
    assert published(tmp_path) >= {"report.html", "model.json", "report.json"}
    assert "sweep.html" not in published(tmp_path)
    assert any("the sweep's page could not be made: KeyError" in warning for warning in summary.warnings)
