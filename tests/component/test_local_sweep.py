"""A sweep without a cluster: the points of the search, interruptions, failures, its end. Trials are played but for one
test, so that none of the others waits for torch.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import RunIdentity, RunReport
from anomaly_api.sweep import Objective
from anomaly_api.sweep_status import SweepStatus
from anomaly_api.sweep_status import Trial as TrialIdentity
from anomaly_runner.local import run_locally
from anomaly_runner.local_sweep.children import Children, share_of_cpus
from anomaly_runner.local_sweep.command import run_file
from anomaly_runner.local_sweep.records import TrialFile, search_digest
from anomaly_runner.local_sweep.view import TableView
from anomaly_runner.manifests import read_resource
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.tracking.mlflow_client import connect, local_uri
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID, MlflowTracker, mlflow_target
from anomaly_runner.tracking.tracker import FAILURE_TAG
from anomaly_search.spec import sweep_of
from anomaly_search.suggest import Suggestion, suggest
from anomaly_search.trials import State, Trial
from support.optional import not_none
from support.pages import table_of
from support.played_trials import FREE, GOOD, PIDS, PLAYED, SLOW, STARTED, auroc
from support.textures import EXPERIMENT, Document, write_manifest

FEATURES = {"path": "model.padim.nFeatures", "int": {"low": 5, "high": 60}}
SEEDS = {"path": "dataset.seed", "choices": [0, 1, 2, 3]}
AUROC = {"metric": "image.AUROC", "goal": "maximize"}
TPE = {"name": "tpe", "seed": 7, "tpe": {"startupTrials": 3}}
STOPPED = 143
PATIENCE = 60.0

pytestmark = pytest.mark.timeout(300)


def sweep(folder: Path, *parameters: dict[str, Any], **fields: Any) -> Path:
    """Write a manifest with a sweep."""

    def change(document: Document) -> None:
        found = {"parameters": list(parameters) or [FEATURES], "objectives": [AUROC], "algorithm": TPE}
        document["spec"]["sweep"] = found | {"final": "report", "trials": {"max": 8}} | fields

    return write_manifest(folder, EXPERIMENT, change)


def run(file: Path, folder: Path, parallel: int = 1) -> int:
    return run_file(file, folder, parallel, PLAYED)


def trials(folder: Path) -> dict[str, TrialFile]:
    """Return what the files say of the trials, by name."""
    files = sorted(folder.glob("results/factory/*/local/trial.json"))
    return {file.parent.parent.name: TrialFile.model_validate_json(file.read_bytes()) for file in files}


def points(folder: Path) -> dict[str, Any]:
    return {name: trial.trial.values for name, trial in trials(folder).items()}


def page(folder: Path) -> Path:
    return folder / "results/factory/textures/local/sweep.html"


def started(folder: Path) -> list[str]:
    file = folder / STARTED
    return file.read_text().split() if file.exists() else []


def has_started(folder: Path, count: int) -> bool:
    return len(started(folder)) >= count


def in_a_process(file: Path, folder: Path, parallel: int = 1) -> "subprocess.Popen[bytes]":
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from anomaly_runner.local_sweep.command import run_file\n"
        "from support.played_trials import PLAYED\n"
        "sys.exit(run_file(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), PLAYED))\n"
    )
    arguments = [str(file), str(folder), str(parallel)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL, env=environment)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_the_points_are_those_of_the_search(tmp_path: Path) -> None:
    file = sweep(tmp_path)
    assert run(file, tmp_path) == 0
    task = sweep_of(not_none(ExperimentSpec.model_validate(yaml.safe_load(file.read_text())["spec"]).sweep))
    by_hand: list[Trial] = []
    for number in range(8):
        suggestion = suggest(task, by_hand, number)
        assert isinstance(suggestion, Suggestion)
        value = auroc(suggestion.parameters["model.padim.nFeatures"])
        by_hand.append(Trial(number, suggestion.parameters, State.COMPLETE, (value,)))
    assert points(tmp_path) == {f"textures-t{trial.number:04d}": dict(trial.parameters) for trial in by_hand}
    assert {trial.metrics["image.AUROC"] for trial in trials(tmp_path).values()} == {t.objectives[0] for t in by_hand}


def test_a_killed_sweep_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert run(sweep(whole), whole) == 0
    (broken / SLOW).touch()
    for killed_after in (2, 4):
        process = in_a_process(sweep(broken), broken)
        eventually(partial(has_started, broken, killed_after))
        process.kill()
        process.wait()
        eventually(lambda: not any(alive(int(pid)) for pid in (broken / PIDS).read_text().split()))
    (broken / SLOW).unlink()
    assert run(sweep(broken), broken) == 0
    assert points(broken) == points(whole)
    assert all(trial.state == "Complete" for trial in trials(broken).values())
    assert sorted(set(started(broken))) == started(whole)
    assert len(started(broken)) <= len(started(whole)) + 2, "nothing but what was interrupted runs twice"


def test_ctrl_c_ends_the_trials_and_the_same_command_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = sweep(tmp_path, FEATURES, {"path": "dataset.seed", "choices": [4]}, trials={"max": 3})
    process = in_a_process(file, tmp_path, parallel=2)
    eventually(lambda: len(started(tmp_path)) == 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == STOPPED
    assert "the same command goes on from here" in " ".join(capfd.readouterr().err.split())
    assert not any(alive(int(pid)) for pid in (tmp_path / PIDS).read_text().split())
    before = points(tmp_path)
    assert [trial.state for trial in trials(tmp_path).values()] == ["Running", "Running"]
    process = in_a_process(file, tmp_path, parallel=2)
    eventually(lambda: len(started(tmp_path)) == 4)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == STOPPED
    assert points(tmp_path) == before


def test_what_cannot_work_teaches_and_what_fails_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep(tmp_path, SEEDS, algorithm={"name": "grid"}, trials={"maxFailed": 1})
    assert run(file, tmp_path, parallel=2) == 0
    assert [(trial.state, trial.reason) for trial in trials(tmp_path).values()] == [
        ("Complete", ""),
        ("Infeasible", "OutOfMemory"),
        ("Failed", "DataInvalid"),
        ("Infeasible", "OutOfMemory"),
    ]
    shown = capsys.readouterr().out
    assert "1 complete, 2 infeasible, 1 failed" in shown
    assert "DataInvalid: as its seed says" in shown
    assert "OutOfMemory: the process ended with -9" in shown
    assert table_of(page(tmp_path).read_text(), "ended") == [
        ["textures-t0001", "Infeasible", "OutOfMemory", "as its seed says"],
        ["textures-t0002", "Failed", "DataInvalid", "as its seed says"],
        ["textures-t0003", "Infeasible", "OutOfMemory", "the process ended with -9"],
    ]
    assert run(file, tmp_path) == 0
    assert len(started(tmp_path)) == 4, "what is known does not run again"


def test_values_that_are_not_valid_together_are_told_on_the_page(tmp_path: Path) -> None:
    tile = {"path": "model.tiling.tileSize", "choices": [128, 256]}
    stride = {"path": "model.tiling.stride", "choices": [128, 256]}
    assert run(sweep(tmp_path, tile, stride, algorithm={"name": "grid"}), tmp_path) == 0
    [told] = table_of(page(tmp_path).read_text(), "ended")
    assert told[:3] == ["textures-t0001", "Infeasible", "InvalidConfig"]
    assert "stride may be at most tileSize" in told[3]


def test_a_page_is_made_once_and_grows_with_the_search(tmp_path: Path) -> None:
    assert run(sweep(tmp_path, trials={"max": 2}), tmp_path) == 0
    written = page(tmp_path).stat().st_mtime_ns
    assert run(sweep(tmp_path, trials={"max": 2}), tmp_path) == 0
    assert page(tmp_path).stat().st_mtime_ns == written
    assert run(sweep(tmp_path, trials={"max": 3}), tmp_path) == 0
    assert 'data-count="asked">3<' in page(tmp_path).read_text()
    beside = {path.name for path in page(tmp_path).parent.iterdir()}
    assert beside >= {"trials.parquet", "trials.csv", "optuna-journal.log", "report.json", "sweep.json"}


def test_a_trial_that_works_at_last_has_no_failure(tmp_path: Path) -> None:
    file = sweep(tmp_path, {"path": "dataset.seed", "choices": [0, 2]}, algorithm={"name": "grid"})
    assert run(file, tmp_path) == 0
    home = tmp_path / "results/factory/textures-t0001/local"
    assert (home / "failure.json").exists()
    manifest = (home / "trial.yaml").read_text()
    (home / "trial.json").unlink()
    (tmp_path / GOOD).touch()
    assert run(file, tmp_path) == 0
    assert (home / "trial.yaml").read_text() == manifest
    assert not (home / "failure.json").exists()


def test_more_failures_than_may_end_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"path": "dataset.seed", "choices": [2]}
    file = sweep(tmp_path, data, FEATURES, trials={"max": 8, "maxFailed": 1})
    assert run(file, tmp_path) == 1
    told = capsys.readouterr()
    assert len(started(tmp_path)) == 2
    assert "MaxFailed: 2 trials failed, 1 may: DataInvalid (2 x)" in told.out
    said = " ".join(told.err.split())
    assert (
        f"TrialsFailed: 2 trials failed, 1 may: DataInvalid (2 x); see each trial's trial.log below {tmp_path}" in said
    )
    assert "The search failed, TrialsFailed: 2 trials failed, 1 may" in " ".join(page(tmp_path).read_text().split())
    assert [row[:3] for row in table_of(page(tmp_path).read_text(), "ended")] == [
        ["textures-t0000", "Failed", "DataInvalid"],
        ["textures-t0001", "Failed", "DataInvalid"],
    ]
    assert {path.name for path in page(tmp_path).parent.iterdir()} >= {"trials.parquet", "trials.csv", "report.json"}
    written = page(tmp_path).stat().st_mtime_ns
    assert run(file, tmp_path) == 1
    assert page(tmp_path).stat().st_mtime_ns == written, "it is not made again"
    (tmp_path / GOOD).touch()
    assert run(sweep(tmp_path, data, FEATURES, trials={"max": 4, "maxFailed": 3}), tmp_path) == 0
    assert "The search failed" not in page(tmp_path).read_text(), "more may fail now, and it went on"


def test_a_search_of_which_no_trial_can_be_used_has_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sweep(tmp_path, {"path": "dataset.seed", "choices": [1]}, algorithm={"name": "grid"}, final="train")
    assert run(file, tmp_path) == 1
    assert "TrialsFailed: no trial can be used: all 1 points of the space are tried" in capsys.readouterr().err
    assert "no trial can be used" in page(tmp_path).read_text()


@pytest.mark.filterwarnings("ignore")  # of mlflow's own libraries
def test_a_search_that_fails_ends_its_run_in_mlflow(tmp_path: Path) -> None:
    data = {"path": "dataset.seed", "choices": [2]}
    file = sweep(tmp_path, data, FEATURES, trials={"max": 8, "maxFailed": 0})
    document = yaml.safe_load(file.read_text())
    document["spec"]["tracking"] = {"mlflow": {"trackingUri": "http://nowhere:5000"}}
    file.write_text(yaml.safe_dump(document))
    # What a real trial begins with: the sweep's run, and its own below it.
    spec = not_none(read_resource(file, tmp_path).experiment)
    which = TrialIdentity(sweep="textures", sweep_uid=LOCAL_UID, search=search_digest(spec), number=0)
    identity = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="textures-t0000", uid=LOCAL_UID)
    trial = MlflowTracker(mlflow_target(identity, not_none(spec.tracking.mlflow), tmp_path, trial=which))
    trial.start({})
    trial.check(lambda: None)
    trial.fail("DataInvalid: as its seed says")
    client = connect(local_uri(tmp_path))

    def runs_of_sweep() -> list[Any]:
        experiment = client.get_experiment_by_name("factory").experiment_id
        return list(client.search_runs([experiment], "tags.mlflow.runName = 'textures'"))

    assert [one.info.status for one in runs_of_sweep()] == ["RUNNING"]
    assert run(file, tmp_path) == 1
    [ended] = runs_of_sweep()
    assert ended.info.status == "FAILED"
    assert ended.data.tags[FAILURE_TAG].startswith("the search failed, TrialsFailed: 1 trials failed, 0 may")
    assert "sweep.html" in {one.path for one in client.list_artifacts(ended.info.run_id)}


def test_what_is_at_work_when_it_is_over_is_called_off(tmp_path: Path) -> None:
    seeds = {"path": "dataset.seed", "choices": [4, 0]}
    reached = sweep(tmp_path, seeds, algorithm={"name": "grid"}, objectives=[AUROC | {"target": 0.5}])
    assert run(reached, tmp_path, parallel=2) == 0
    assert {name: trial.state for name, trial in trials(tmp_path).items()} == {"textures-t0001": "Complete"}
    assert not any(alive(int(pid)) for pid in (tmp_path / PIDS).read_text().split())


def test_more_trials_go_on_and_another_space_begins_anew(tmp_path: Path) -> None:
    assert run(sweep(tmp_path, trials={"max": 3}), tmp_path) == 0
    assert run(sweep(tmp_path, trials={"max": 5, "parallel": 7}), tmp_path) == 0
    assert started(tmp_path) == [f"textures-t{number:04d}" for number in range(5)]
    narrow = FEATURES | {"int": {"low": 20, "high": 30}}
    assert run(sweep(tmp_path, narrow, trials={"max": 2}), tmp_path) == 0
    assert started(tmp_path)[5:] == ["textures-s2-t0000", "textures-s2-t0001"]
    first = [trial for name, trial in trials(tmp_path).items() if "-s2-" not in name]
    ranked = sorted(first, key=lambda trial: -trial.metrics["image.AUROC"])
    held = [one.trial.values for one in ranked if 20 <= one.trial.values["model.padim.nFeatures"] <= 30]
    assert points(tmp_path)["textures-s2-t0000"] == held[0], "the best of the last search comes first"
    assert run(sweep(tmp_path, trials={"max": 5}), tmp_path) == 0
    assert len(started(tmp_path)) == 7, "the first search is still known"


def test_a_deleted_trial_runs_again(tmp_path: Path) -> None:
    file = sweep(tmp_path, algorithm={"name": "sobol"}, trials={"max": 3})
    assert run(file, tmp_path) == 0
    before = points(tmp_path)
    (tmp_path / "results/factory/textures-t0001/local/trial.json").unlink()
    assert run(file, tmp_path) == 0
    assert started(tmp_path)[3:] == ["textures-t0001"]
    assert points(tmp_path) == before


def test_replicates_and_rungs_have_names_and_specs_of_their_own(tmp_path: Path) -> None:
    file = sweep(
        tmp_path,
        {"path": "model.padim.nFeatures", "choices": [10, 20]},
        algorithm={"name": "grid"},
        replicates={"paths": [{"path": "dataset.seed", "values": [0, 7]}]},
        fidelity={"path": "dataset.fraction", "values": [0.5, 1.0], "reduction": 2},
    )
    assert run(file, tmp_path) == 0
    names = [f"textures-{which}" for which in ("t0000", "t0000-r1", "t0001", "t0001-r1", "t0001-g1", "t0001-g1-r1")]
    assert sorted(started(tmp_path)) == sorted(names)
    manifest = yaml.safe_load((tmp_path / "results/factory/textures-t0001-g1-r1/local/trial.yaml").read_text())
    dataset = manifest["spec"]["dataset"]
    assert (dataset["seed"], dataset["fraction"]) == (7, 1)
    assert manifest["metadata"] == {"name": "textures-t0001-g1-r1", "namespace": "factory"}


def test_a_sweep_starts_from_the_best_points_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def renamed(name: str, **fields: Any) -> Path:
        document = yaml.safe_load(sweep(tmp_path, **fields).read_text())
        document["metadata"]["name"] = name
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(document))
        return file

    later = renamed("august", start={"fromExperiment": {"name": "july", "top": 2}}, trials={"max": 2})
    assert run(later, tmp_path) != 0
    assert "the experiment july has no sweep" in " ".join(capsys.readouterr().err.split())
    assert run(renamed("july", trials={"max": 5}), tmp_path) == 0
    july = sorted(trials(tmp_path).values(), key=lambda trial: -trial.metrics["image.AUROC"])
    assert run(later, tmp_path) == 0
    found = points(tmp_path)
    assert [found["august-t0000"], found["august-t0001"]] == [trial.trial.values for trial in july[:2]]


def test_a_trial_whose_curve_falls_behind_is_told_to_end(tmp_path: Path) -> None:
    seeds = {"path": "dataset.seed", "choices": [7, 9, 6]}

    def trained(most: int) -> Path:
        pruning = {"afterTrials": 2, "afterEpochs": 1}
        file = sweep(tmp_path, seeds, algorithm={"name": "grid"}, pruning=pruning, trials={"max": most})
        document = yaml.safe_load(file.read_text())
        document["spec"]["model"] = {"name": "fastflow"}
        file.write_text(yaml.safe_dump(document))
        return file

    (tmp_path / FREE).touch()
    assert run(trained(2), tmp_path) == 0
    (tmp_path / FREE).unlink()
    assert run(trained(3), tmp_path) == 0
    found = [(trial.state, trial.reason, trial.curve) for trial in trials(tmp_path).values()]
    assert found == [
        ("Complete", "", {0: 0.7, 1: 0.7}),
        ("Complete", "", {0: 0.9, 1: 0.9}),
        ("Pruned", "Pruned", {0: 0.6, 1: 0.6}),
    ]


def test_two_processes_do_not_work_on_one_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sweep(tmp_path, FEATURES, {"path": "dataset.seed", "choices": [4]})
    process = in_a_process(file, tmp_path)
    try:
        eventually(lambda: len(started(tmp_path)) == 1)
        assert run(file, tmp_path) == 10
        assert "another process is at work on the sweep textures" in " ".join(capsys.readouterr().err.split())
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == STOPPED


def test_a_sweep_that_cannot_work_says_so_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sweep(tmp_path, {"path": "model.padim.nFeaturez", "choices": [1]}), tmp_path) == 10
    said = " ".join(capsys.readouterr().err.split())
    assert "InvalidConfig" in said
    assert "spec.sweep.parameters[0].path" in said
    assert started(tmp_path) == []


def test_lines_say_how_each_trial_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            sweep(tmp_path, {"path": "model.padim.nFeatures", "choices": [53, 23, 35]}, algorithm={"name": "grid"}),
            tmp_path,
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("t00")]
    assert [(row[0], "*" in row, "Complete" in row) for row in rows] == [
        ("t0000", True, True),
        ("t0001", True, True),
        ("t0002", False, True),
    ]
    assert [row[-1] for row in rows] == [f"model.padim.nFeatures={count}" for count in (53, 23, 35)]
    assert "0.75" in rows[0], "1 - (30 / 60)^2"
    assert any(line.startswith("Exhausted: all 3 points of the space are tried") for line in lines)


def test_a_terminal_keeps_what_is_over_and_redraws_the_rest(tmp_path: Path) -> None:
    assert run(sweep(tmp_path, trials={"max": 1}), tmp_path) == 0
    trial, terminal = trials(tmp_path)["textures-t0000"], io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=100)
    view = TableView(console, [Objective.model_validate(AUROC)], "textures")
    view.ended(trial, best=True)
    view.show(SweepStatus(asked=3, complete=2, running=1), [])
    view.close()
    shown = terminal.getvalue()
    assert "t0000 *" in shown
    assert f"{trial.metrics['image.AUROC']:.6g}" in shown
    assert "3 points: 2 complete, 1 running" in shown
    assert "\x1b[2K" in shown.split("3 points")[-1], "the last lines are taken off"


@pytest.mark.parametrize(
    ("slot", "parallel", "share"),
    [(0, 1, [0, 1, 2, 3, 4]), (0, 2, [0, 2, 4]), (1, 2, [1, 3]), (6, 7, [1])],
)
def test_trials_share_the_cpus(slot: int, parallel: int, share: list[int]) -> None:
    assert share_of_cpus(range(5), slot, parallel) == share


def test_a_trial_has_its_cpus_from_its_first_instruction_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def until_over(*arguments: Any, **options: Any) -> Any:
        process = start(*arguments, **options)
        process.wait()
        return process

    monkeypatch.setattr(subprocess, "Popen", until_over)
    program = (sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))")
    children, before = Children(tmp_path, tmp_path / "scratch", 2, program=program), os.sched_getaffinity(0)
    for number in range(2):
        place = tmp_path / f"t{number}"
        place.mkdir()
        children.start(TrialFile(name=place.name, trial=TrialIdentity(sweep="s", number=number)), place)
        told = (place / "trial.log").read_text()
        assert json.loads(told) == share_of_cpus(sorted(before)[: cpu_limit()], number, 2)
    assert os.sched_getaffinity(0) == before


def test_the_search_of_a_folder_is_kept(tmp_path: Path) -> None:
    assert run(sweep(tmp_path, trials={"max": 1}), tmp_path) == 0
    kept = json.loads((tmp_path / "results/factory/textures/local/sweep.json").read_text())["searches"]
    assert [(one["number"], one["spec"]["sweep"]["trials"]["max"]) for one in kept] == [(1, 1)]
    assert kept[0]["seconds"] > 0
    assert not list(tmp_path.glob(".sweep-*"))


def report_of(folder: Path, name: str) -> RunReport:
    return RunReport.model_validate_json((folder / f"results/factory/{name}/local/report.json").read_bytes())


def metrics_of(folder: Path, name: str) -> dict[str, float]:
    return not_none(report_of(folder, name).summary.metrics).image


def plain_auroc(folder: Path, features: int, seed: int) -> float:
    """Return what an experiment without a sweep measures."""

    def plain(document: Document) -> None:
        document["metadata"]["name"] = f"plain-{features}-{seed}"
        document["spec"]["dataset"]["seed"] = seed
        document["spec"]["model"]["padim"]["nFeatures"] = features
        document["spec"] |= {"evaluation": {}, "export": {"types": []}}

    assert run_locally(write_manifest(folder, EXPERIMENT, plain), folder) == 0
    return metrics_of(folder, f"plain-{features}-{seed}")["AUROC"]


def test_real_trials_measure_what_plain_runs_do_and_the_best_is_trained_in_full(textures: Path) -> None:
    counts = {"path": "model.padim.nFeatures", "choices": [3, 20]}
    file = sweep(textures, counts, algorithm={"name": "grid"}, final="train")
    assert run_file(file, textures, 2) == 0
    measured = {name: trial.metrics["image.AUROC"] for name, trial in trials(textures).items()}
    values = (3, 20)
    for number, count in enumerate(values):
        assert measured[f"textures-t{number:04d}"] == plain_auroc(textures, count, seed=42)
    best = max(range(2), key=lambda number: measured[f"textures-t{number:04d}"])
    final = report_of(textures, "textures")
    experiment = not_none(final.config.experiment)
    assert experiment.model.to_json_object()["padim"]["nFeatures"] == values[best]
    assert metrics_of(textures, "textures")["AUROC"] == plain_auroc(textures, values[best], seed=43)
    found = not_none(final.config.sweep).status
    assert (found.complete, found.best[0].number, found.stop_reason) == (2, best, "Exhausted")
    kept = [path.name for path in (textures / "results/factory/textures/local").iterdir()]
    assert {"model.onnx", "model.json", "visualizations", "sweep.html"} <= set(kept)
    assert [row[1:3] for row in table_of(page(textures).read_text(), "trials")] == [
        ["Complete", f"{measured[f'textures-t{number:04d}']:.4f}"] for number in range(2)
    ]
    assert not (textures / "results/factory/textures-t0000/local/model.json").exists()
    before = (textures / "results/factory/textures/local/report.json").stat().st_mtime_ns
    assert run_file(file, textures, 2) == 0
    assert (textures / "results/factory/textures/local/report.json").stat().st_mtime_ns == before, "it is not repeated"
