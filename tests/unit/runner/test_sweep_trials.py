"""The trials of a search, read from the reports that they left; the table and the journal that are made of them."""

import csv
import json
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pyarrow.parquet
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from anomaly_api.run import RunReport
from anomaly_api.sweep_exchange import RunOfPoint, trial_name
from anomaly_runner.reporting.sweep.findings import judge
from anomaly_runner.reporting.sweep.journal import write_journal
from anomaly_runner.reporting.sweep.table import trial_columns, write_trials
from anomaly_runner.reporting.sweep.trials import FoundTrials, find_trials, read_trials
from anomaly_runner.storage import FolderStore
from support.optional import not_none
from support.searches import CATEGORIES, LEARNING, RATIO, RUN, SIZE, Ran, read_all, report_of, search_of, write_reports
from support.sweep_specs import sweep_spec

SPEC = sweep_spec(LEARNING, SIZE)
SMALL, LARGE = ({"height": edge, "width": edge} for edge in (64, 96))


def point(features: int, size: dict[str, int] = SMALL) -> dict[str, Any]:
    return {"model.padim.nFeatures": features, "transforms.inputSize": size}


GOOD = Ran(0, point(50), {"image.AUROC": 0.9, "performance.modelBytes": 1000}, gpus=2)
BETTER = Ran(1, point(100, LARGE), {"image.AUROC": 0.95, "performance.modelBytes": 2000})
BROKEN = Ran(3, point(200), {}, reason="OutOfMemory", message="the images take 40 GB")


def found_in(folder: Path, *ran: Ran) -> FoundTrials:
    write_reports(folder, [report_of(SPEC, one) for one in ran])
    return read_all(folder, search_of(SPEC))


def test_what_a_report_says_of_its_trial(tmp_path: Path) -> None:
    trials = found_in(tmp_path, BETTER, GOOD).results
    assert [trial.record.number for trial in trials] == [0, 1]
    assert trials[0].record.values == point(50)
    assert trials[0].record.metrics == {"image.AUROC": 0.9, "performance.modelBytes": 1000.0}
    assert trials[0].folder == "factory/screws-t0000/trial-uid"
    assert trials[0].record.gpu_hours == pytest.approx(2 * 30 / 3600)
    assert trials[1].record.gpu_hours == 0, "on a CPU"
    assert (not_none(trials[1].record.started).isoformat(), not_none(trials[1].record.ended).isoformat()) == (
        "2026-07-01T08:01:00+00:00",
        "2026-07-01T08:01:30+00:00",
    )


def test_a_failed_trial_tells_why(tmp_path: Path) -> None:
    """And a run that had results later has no failure."""
    before = Ran(0, point(50), {}, reason="StorageUnavailable")
    trials = found_in(tmp_path, before, GOOD, BROKEN).results
    assert [(trial.record.number, trial.record.state, trial.record.reason) for trial in trials] == [
        (0, "Complete", ""),
        (3, "Infeasible", "OutOfMemory"),
    ]
    assert trials[1].message == "the images take 40 GB"


def test_other_searches_trials_are_left_out(tmp_path: Path) -> None:
    others = [
        report_of(SPEC, Ran(5, point(60), {"image.AUROC": 1.0}), sweep_uid="of-a-deleted-sweep"),
        report_of(SPEC, Ran(6, point(60), {"image.AUROC": 1.0}), search="another-space"),
    ]
    write_reports(tmp_path, others)
    plain = report_of(SPEC, Ran(7, point(60), {"image.AUROC": 1.0}))
    config = not_none(plain.config.experiment).model_copy(update={"trial": None})
    write_reports(
        tmp_path,
        [plain.model_copy(update={"config": plain.config.model_copy(update={"experiment": config})})],
    )
    assert [trial.record.number for trial in found_in(tmp_path, GOOD).results] == [0]


def test_of_a_trial_that_ran_again_the_later_result_counts(tmp_path: Path) -> None:
    first = report_of(SPEC, Ran(0, point(50), {"image.AUROC": 0.1}, uid="a"))
    again = report_of(SPEC, Ran(0, point(50), {"image.AUROC": 0.2}, uid="b")).model_copy(
        update={"started": "2026-07-02T00:00:00Z"}
    )
    write_reports(tmp_path, [again, first])
    assert [trial.record.metrics["image.AUROC"] for trial in read_all(tmp_path, search_of(SPEC)).results] == [0.2]


def test_a_report_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    found_in(tmp_path, GOOD, BETTER)
    (tmp_path / "factory/screws-t0001/trial-uid/report.json").write_text('{"of": "another version"}')
    found = read_all(tmp_path, search_of(SPEC))
    assert [trial.record.number for trial in found.results] == [0]
    assert found.unreadable == ("factory/screws-t0001/trial-uid",)


class Counting(FolderStore):
    """A folder that counts what is listed and read."""

    asked: ClassVar[list[str]] = []

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        self.asked.append(f"folders {self.root.name}/{prefix}")
        return super().folders(prefix)

    def list(self, prefix: str = "") -> Any:
        raise AssertionError("everything in the folder is listed")

    def read(self, key: str) -> bytes | None:
        self.asked.append(f"read {key}")
        return super().read(key)

    def subfolder(self, prefix: str) -> "Counting":
        return Counting(self.root / prefix)


def test_nothing_but_the_trials_folders_is_looked_into(tmp_path: Path) -> None:
    found_in(tmp_path, GOOD)
    for other in ("screws/sweep-uid", "screws-tiny/x", "screws-t0000-copy/x", "screws-s2-t0000/x", "other-t0000/x"):
        (tmp_path / "factory" / other).mkdir(parents=True)
    store, search = Counting(tmp_path), search_of(SPEC)
    Counting.asked.clear()
    names = find_trials(store, RUN, search)
    assert len(read_trials(store, RUN, search, names, lambda _: None).results) == 1
    assert Counting.asked == [
        "folders factory/screws-t",
        "folders screws-t0000/",
        "read screws-t0000/trial-uid/report.json",
    ]
    assert find_trials(store, RUN, search_of(SPEC, searchRun=2)) == ["screws-s2-t0000"]


def test_a_namespace_without_a_folder_has_no_trials(tmp_path: Path) -> None:
    assert read_all(tmp_path / "nothing", search_of(SPEC)) == FoundTrials(())


def test_each_row_of_the_table_has_all_that_is_known(tmp_path: Path) -> None:
    trials = found_in(tmp_path, GOOD, BETTER, BROKEN).results
    write_trials(trial_columns(not_none(SPEC.sweep), trials), tmp_path)
    rows = pyarrow.parquet.read_table(tmp_path / "trials.parquet").to_pylist()
    assert rows[1] | {"started": None, "ended": None} == {
        "trial": "screws-t0001",
        "number": 1,
        "rung": 0,
        "replicate": 0,
        "state": "Complete",
        "reason": "",
        "model.padim.nFeatures": 100,
        "transforms.inputSize": '{"height": 96, "width": 96}',
        "image.AUROC": 0.95,
        "performance.modelBytes": 2000.0,
        "gpu_hours": 0.0,
        "started": None,
        "ended": None,
        "seconds": 30.0,
        "folder": "factory/screws-t0001/trial-uid",
    }
    assert rows[1]["started"].isoformat() == "2026-07-01T08:01:00+00:00"
    assert (rows[2]["reason"], rows[2]["image.AUROC"]) == ("OutOfMemory", None)
    with (tmp_path / "trials.csv").open() as file:
        text = list(csv.DictReader(file))
    assert list(text[0]) == list(rows[0])
    assert json.loads(text[1]["transforms.inputSize"]) == LARGE
    assert [row["image.AUROC"] for row in text] == ["0.9", "0.95", ""]


def study_of(folder: Path, spec: Any, reports: list[RunReport], **status: Any) -> optuna.Study:
    write_reports(folder, reports)
    search = search_of(spec, **status)
    write_journal(judge(RUN, search, read_all(folder, search)), folder / "journal.log")
    return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))))


def test_optuna_reads_the_journal(tmp_path: Path) -> None:
    study = study_of(tmp_path, SPEC, [report_of(SPEC, one) for one in (GOOD, BETTER, BROKEN)], asked=5)
    assert study.study_name == "factory/screws"
    assert (study.best_trial.number, study.best_value) == (1, 0.95)
    assert study.best_params == {"model.padim.nFeatures": 100, "transforms.inputSize": '{"height": 96, "width": 96}'}
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.FAIL,
        TrialState.FAIL,
    ]
    assert [trial.user_attrs.get("reason") for trial in study.trials] == [
        None,
        None,
        "it left no report",
        "OutOfMemory",
        "it left no report",
    ]
    assert study.best_trial.user_attrs["runs"] == ["factory/screws-t0001/trial-uid"]
    assert not_none(study.best_trial.duration).total_seconds() == 30
    assert list(not_none(study.metric_names)) == ["image.AUROC"]
    columns = study.trials_dataframe().columns
    assert "params_model.padim.nFeatures" in columns


def test_the_journal_of_several_objectives_with_constraints_and_replicates(tmp_path: Path) -> None:
    objectives = [
        {"metric": "image.AUROC", "goal": "maximize"},
        {"metric": "performance.latencyMilliseconds", "goal": "minimize"},
    ]
    spec = sweep_spec(
        LEARNING,
        objectives=objectives,
        constraints=[{"metric": "performance.modelBytes", "max": 100}],
        replicates=CATEGORIES,
    )
    ran = [
        Ran(
            number,
            {"model.padim.nFeatures": 60 + number},
            {
                "image.AUROC": 0.9 + 0.01 * replicate,
                "performance.latencyMilliseconds": 5.0 - number,
                "performance.modelBytes": 50 * (number + 1),
            },
            replicate=replicate,
        )
        for number in range(3)
        for replicate in range(3)
    ]
    study = study_of(tmp_path, spec, [report_of(spec, one) for one in ran])
    assert [trial.values for trial in study.trials] == [
        [pytest.approx(0.91), 5.0],
        [pytest.approx(0.91), 4.0],
        [pytest.approx(0.91), 3.0],
    ]
    # 0.9, 0.91, 0.92: their standard deviation is 0.01, and there are three.
    assert study.trials[0].user_attrs["standardError image.AUROC"] == pytest.approx(0.01 / 3**0.5)
    assert [trial.number for trial in study.best_trials] == [1], "trial 2 is beyond its constraint, 0 is slower"


def test_the_journal_of_a_search_with_fidelity(tmp_path: Path) -> None:
    spec = sweep_spec(LEARNING, fidelity={"path": "dataset.fraction", "values": [0.25, 1.0]})
    ran = [
        Ran(0, {"model.padim.nFeatures": 60}, {"image.AUROC": 0.7}),
        Ran(0, {"model.padim.nFeatures": 60}, {"image.AUROC": 0.8}, rung=1),
        Ran(1, {"model.padim.nFeatures": 70}, {"image.AUROC": 0.6}),
    ]
    study = study_of(tmp_path, spec, [report_of(spec, one) for one in ran])
    assert [(trial.state, trial.intermediate_values) for trial in study.trials] == [
        (TrialState.COMPLETE, {0: 0.7, 1: 0.8}),
        (TrialState.PRUNED, {0: 0.6}),
    ]


def test_the_journal_of_conditional_parameters(tmp_path: Path) -> None:
    models = {"path": "model.name", "choices": ["padim", "patchcore"]}
    spec = sweep_spec(models, RATIO, change={"model": {"padim": None}})
    ran = [
        Ran(0, {"model.name": "padim"}, {"image.AUROC": 0.7}),
        Ran(1, {"model.name": "patchcore", "model.patchcore.coresetSamplingRatio": 0.1}, {"image.AUROC": 0.8}),
    ]
    study = study_of(tmp_path, spec, [report_of(spec, one) for one in ran])
    assert [trial.params for trial in study.trials] == [
        {"model.name": "padim"},
        {"model.name": "patchcore", "model.patchcore.coresetSamplingRatio": 0.1},
    ]


@pytest.mark.parametrize("name", ["a" * 200, "a" * 230, "a" * 253])
@pytest.mark.parametrize("search_run", [1, 3])
def test_trials_of_sweeps_with_long_names_are_found(tmp_path: Path, name: str, search_run: int) -> None:
    run = RUN.model_copy(update={"name": name})
    trials = [trial_name(name, RunOfPoint(*which), search_run) for which in ((0, 0, 0), (12, 1, 2), (99999, 0, 4))]
    for folder in (*trials, name, f"{name[:200]}b", trial_name(name, RunOfPoint(0), search_run + 1)):
        (tmp_path / "factory" / folder).mkdir(parents=True)
    search = search_of(SPEC, searchRun=search_run)
    assert find_trials(FolderStore(tmp_path), run, search) == sorted(trials)
