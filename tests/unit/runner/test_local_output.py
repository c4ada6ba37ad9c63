"""What a run without a cluster prints, leaves and returns, with the work itself played."""

import io
import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import RunConfig, RunReport, RunSummary
from anomaly_api.status import Artifacts, ImageCounts, MetricValues, Stage, ThresholdValues
from anomaly_api.storage import LocationRole
from anomaly_runner import cli, in_cluster, local
from anomaly_runner.context import Context, RunRecord
from anomaly_runner.errors import DataInvalid, InvalidConfig
from anomaly_runner.local_sweep import command, trial
from anomaly_runner.manifests import read_resource
from anomaly_runner.preflight.checked import Checked
from anomaly_runner.termination import FinishedRun
from support import objects
from support.contexts import RUN

CONFIG = RunConfig.model_validate({"run": RUN, "experiment": objects.EXPERIMENT["spec"]})
SUMMARY = RunSummary(
    reason=Reason.COMPLETE,
    stage=Stage.DONE,
    metrics=MetricValues(
        image={"AUROC": 0.98765432},
        pixel={"AUROC": 0.5},
        synthetic={"imageAUROC": 0.25},
        performance={"trainSeconds": 2},
    ),
    thresholds=ThresholdValues(image=1.23456789, source="adaptive"),
    images=ImageCounts(train=8, predicted=10, anomalous=3),
    artifacts=Artifacts(root="s3://results/x", html="s3://results/x/report.html", sweep="s3://results/x/sweep.html"),
    warnings=("masks are missing [here]",),
)
REPORT = RunReport(
    run=RUN,
    summary=SUMMARY,
    config=CONFIG,
    dataset="MVTec AD: 8 images",
    intervals={"AUROC": (0.9, 0.99)},
    seconds={"fetch": 1.25, "train": 61.0},
)


def printed(report: RunReport) -> list[list[str]]:
    """The cells of each line."""
    screen = io.StringIO()
    local.print_report(report, Console(file=screen, width=200))
    lines = [[cell.strip() for cell in line.strip("│ \n").split("│")] for line in screen.getvalue().splitlines()]
    return [cells for cells in lines if cells != [""] and not cells[0].startswith(("┌", "└"))]


def test_the_table_has_all_that_was_found() -> None:
    assert printed(REPORT) == [
        ["vision/screws"],
        ["image AUROC", "0.987654 (95 %: 0.900 to 0.990)"],
        ["pixel AUROC", "0.500000"],
        ["synthetic imageAUROC", "0.250000"],
        ["trainSeconds", "2 s"],
        ["image threshold", "1.23457 (adaptive)"],
        ["dataset", "MVTec AD: 8 images"],
        ["images", "8 learnt, 10 scored, 3 anomalous"],
        ["seconds", "fetch 1.2, train 61.0"],
        ["artifacts", "s3://results/x"],
        ["report", "s3://results/x/report.html"],
        ["sweep", "s3://results/x/sweep.html"],
        ["warning: masks are missing [here]"],
    ]


def test_why_a_training_was_ended_is_printed_below() -> None:
    pruned = SUMMARY.model_copy(update={"reason": Reason.PRUNED, "message": "others are better", "warnings": ()})
    assert printed(REPORT.model_copy(update={"summary": pruned}))[-1] == ["Pruned: others are better"]


def test_the_end_of_a_search_that_trained_nothing_has_no_images() -> None:
    cells = [line[0] for line in printed(REPORT.model_copy(update={"dataset": ""}))]
    assert "images" not in cells
    assert "seconds" in cells


def test_a_check_counts_labels_and_names_the_first_forty() -> None:
    labels = Counter({f"kind{index:02d}": 100 - index for index in range(45)})
    checked = Checked(SUMMARY.model_copy(update={"message": "all [is] well"}), {"test": labels})
    screen = io.StringIO()
    local.print_check(checked, Console(file=screen, width=120))
    shown = screen.getvalue()
    assert [f"kind{index:02d}" in shown for index in (0, 39, 40, 44)] == [True, True, False, False]
    assert "5 more labels" in shown
    assert "all [is] well" in shown
    assert "warning: masks are missing [here]" in shown


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    file = tmp_path / "screws.yaml"
    file.write_text(yaml.safe_dump(objects.EXPERIMENT))
    return file


def test_a_run_gets_the_folders_and_leaves_no_scratch_whatever_happens(tmp_path: Path, manifest: Path) -> None:
    seen: list[Any] = []

    def work(config: RunConfig, context: Context) -> Checked:
        (context.work / "large").write_text("x")
        seen.append((context.work.parent, context.stores[LocationRole.OUTPUT].uri, context.run.uid))
        raise DataInvalid("no images")

    config, record = read_resource(manifest, tmp_path / "local"), RunRecord()
    (tmp_path / "local").mkdir()
    (tmp_path / "scratch").mkdir()
    given: list[dict[str, Any]] = [{}, {"scratch": tmp_path / "scratch", "record": record}]
    for more in given:
        finished = local.run_config(config, tmp_path / "local", [], work, **more)
        assert (finished.exit_code, finished.summary.message) == (ExitCode.DATA_INVALID, "no images")
    assert [parent for parent, _, _ in seen] == [tmp_path / "local", tmp_path / "scratch"]
    assert seen[0][1:] == (str(tmp_path / "local/results"), "local")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".work-")]
    assert record.seconds == {}


def test_a_failure_is_printed_and_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    failed = SUMMARY.model_copy(update={"reason": Reason.EXPORT_MISMATCH, "message": "onnx [disagrees]"})
    finished = FinishedRun(ExitCode.EXPORT_MISMATCH, failed, REPORT)
    assert local.print_end(finished, Console(stderr=True)) == 17
    shown = capsys.readouterr()
    assert "ExportMismatch: onnx [disagrees]" in shown.err
    assert "0.987654" in shown.out


def test_a_manifest_that_cannot_be_read_is_printed_and_is_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command_line in (local.run_locally, local.check_locally):
        assert command_line(tmp_path / "none.yaml", tmp_path / "new") == 10
        assert "InvalidConfig: cannot read" in capsys.readouterr().err
    assert (tmp_path / "new").is_dir()


def test_a_check_is_told_that_it_is_one(
    tmp_path: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(config: RunConfig, _: Context) -> Checked:
        assert config.step == "check"
        return Checked(SUMMARY.model_copy(update={"message": "8 images"}), {"train": Counter(good=8)})

    monkeypatch.setattr(local, "check", check)
    assert local.check_locally(manifest, tmp_path / "local") == 0
    shown = capsys.readouterr().out
    assert "8 images" in shown
    assert "good" in shown


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls behind the command line, each of which returns 17, and with what the process would end."""
    calls: list[Any] = []

    def returns(name: str) -> Any:
        def call(*given: Any) -> int:
            calls.append((name, *given))
            return 17

        return call

    monkeypatch.setattr(command, "run_file", returns("run"))
    monkeypatch.setattr(local, "check_locally", returns("check"))
    monkeypatch.setattr(in_cluster, "run_in_pod", returns("pod"))
    monkeypatch.setattr(trial, "run_trial", returns("trial"))
    monkeypatch.setattr(os, "_exit", lambda code: calls.append(("exit", code)))
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    for name in ("log_for_people", "log_for_pods"):
        monkeypatch.setattr(f"anomaly_runner.system.logging_setup.{name}", lambda *_, **__: None)
    return calls


def test_the_exit_code_of_the_command_line_is_that_of_the_run(
    called: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one = ["run", "a.yaml", "--local", "here"]
    assert CliRunner().invoke(cli.app, one).exit_code == 17
    assert CliRunner().invoke(cli.app, [*one, "--parallel", "3"]).exit_code == 17
    assert CliRunner().invoke(cli.app, ["check", "a.yaml", "--local", "here"]).exit_code == 17
    there = tmp_path / "here"
    assert called == [
        ("run", Path("a.yaml"), there, 1),
        ("run", Path("a.yaml"), there, 3),
        ("check", Path("a.yaml"), there),
    ]
    assert CliRunner().invoke(cli.app, [*one, "--parallel", "0"]).exit_code == 2


def test_pods_and_trials_end_without_the_shutdown_of_libraries(called: list[Any]) -> None:
    CliRunner().invoke(cli.app, ["pod"])
    CliRunner().invoke(cli.app, ["trial", "t.yaml", "--local", "/here", "--exchange", "/there", "--parent", "7"])
    (pod, first, trial_run, second) = called
    assert pod[:4] == ("pod", Path("/etc/anomaly/run.json"), Path("/var/lib/anomaly"), Path("/dev/termination-log"))
    assert trial_run == ("trial", Path("t.yaml"), Path("/here"), Path("/there"), 7)
    assert first == second == ("exit", 17)


def inference(folder: Path) -> str:
    """The folder of the model that the inference of ``screws`` uses."""
    file = folder / "today.yaml"
    file.write_text(yaml.safe_dump(objects.INFERENCE))
    config = read_resource(file, folder)
    assert config.inference is not None
    location = config.inference.model.location
    assert config.inference.model.experiment is None
    assert location is not None
    assert location.s3 is not None
    return location.s3.uri


def leave_model(folder: Path, place: str) -> None:
    (folder / place / "vision/screws/local").mkdir(parents=True)
    (folder / place / "vision/screws/local/model.json").write_text(json.dumps({}))


def test_the_model_of_an_experiment_is_looked_for_where_its_inference_writes_and_then_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"the experiment screws has no results below .*: run it first"):
        inference(tmp_path)
    leave_model(tmp_path, "elsewhere/deep")
    leave_model(tmp_path, "others")
    assert inference(tmp_path) == "s3://elsewhere/deep/vision/screws/local"
    leave_model(tmp_path, "results")
    assert inference(tmp_path) == "s3://results/vision/screws/local"
