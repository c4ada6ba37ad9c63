"""Processes of a sweep's trials: their GPUs, and what their end means."""

import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anomaly_api.run import RunSummary
from anomaly_api.status import Curve, Device, MetricValues, Stage
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_status import Trial
from anomaly_runner.local_sweep import children as module
from anomaly_runner.local_sweep.children import Child, Children, gpus_to_share, outcome
from anomaly_runner.local_sweep.command import _remarks
from anomaly_runner.local_sweep.records import TrialFile
from anomaly_runner.local_sweep.trial import SUMMARY_FILE
from anomaly_runner.system.gpu import GpuProblem

BEGAN, NOW = datetime(2026, 1, 2, 3, tzinfo=UTC), datetime(2026, 1, 2, 5, tzinfo=UTC)
BEGUN = TrialFile(
    name="screws-t0004",
    trial=Trial(sweep="screws", sweep_uid="local", search="s", number=4, values={"dataset.seed": 4}),
    started=BEGAN.isoformat(),
)


def ended(exchange: Path, code: int, summary: RunSummary | None = None) -> TrialFile:
    """The trial after its process has ended with this code, and has left this summary."""
    if summary is not None:
        (exchange / SUMMARY_FILE).write_text(json.dumps(summary.to_json_object()))
    process: Any = SimpleNamespace(returncode=code)
    return outcome(Child(BEGUN, process, 0, exchange), "image.AUROC", NOW)


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (-signal.SIGKILL, "Infeasible", "OutOfMemory"),
        (-signal.SIGSEGV, "Failed", "InternalError"),
        (1, "Failed", "InternalError"),
    ],
    ids=["killed", "crashed", "a fault"],
)
def test_a_process_that_told_nothing(code: int, state: str, reason: str, tmp_path: Path) -> None:
    found = ended(tmp_path, code)
    assert (found.state, found.reason, found.message) == (state, reason, f"the process ended with {code}")
    assert found.ended == NOW.isoformat()


def test_a_complete_trial_has_its_metrics_hours_and_curve(tmp_path: Path) -> None:
    summary = RunSummary(
        reason="Complete",
        message="of no interest",
        stage=Stage.DONE,
        metrics=MetricValues(image={"AUROC": 0.75}, performance={"modelBytes": 5.0}),
        device=Device(name="NVIDIA H200", count=2, provider="torch cuda"),
        curve=Curve(metric="imageAUROC", epochs=(1, 3), values=(0.5, 0.7)),
    )
    found = ended(tmp_path, 0, summary)
    assert (found.state, found.reason, found.message) == ("Complete", "", "")
    assert found.metrics == {"image.AUROC": 0.75, "performance.modelBytes": 5.0}
    assert found.gpu_hours == 4.0, "two GPUs for two hours"
    assert found.curve == {0: 0.5, 1: 0.5, 2: 0.7}


def test_a_failed_trial_says_why(tmp_path: Path) -> None:
    failed = RunSummary(reason="DataInvalid", message="no images", stage=Stage.DATASET)
    found = ended(tmp_path, 11, failed)
    assert (found.state, found.reason, found.message, found.gpu_hours) == ("Failed", "DataInvalid", "no images", 0.0)


@pytest.mark.parametrize(
    ("gpus", "visible"), [(0, [None, None, None]), (2, ["0", "1", "0"])], ids=["all see all", "one each"]
)
def test_each_trial_has_a_gpu_of_its_own(
    gpus: int, visible: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = [Children(tmp_path, tmp_path, 3, gpus=gpus)._environment(slot) for slot in range(3)]
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in found] == visible
    assert {one.get("CUDA_DEVICE_ORDER") for one in found} == ({"PCI_BUS_ID"} if gpus else {None})


@pytest.mark.parametrize(
    ("parallel", "gpus", "chosen", "shared"),
    [(2, 4, None, 4), (1, 4, None, 0), (2, 1, None, 0), (2, 0, None, 0), (2, 4, "1,2", 0)],
    ids=["shared", "one trial at a time", "one GPU", "none", "the user has chosen"],
)
def test_gpus_are_shared_where_there_are_several(
    parallel: int, gpus: int, chosen: str | None, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed() -> list[None]:
        if not gpus:
            raise GpuProblem("no driver")
        return [None] * gpus

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setattr(module, "list_gpus", listed)
    assert gpus_to_share(parallel) == shared


def test_another_number_of_trials_at_the_same_time_is_said() -> None:
    sweep = Sweep.model_validate(
        {
            "parameters": [{"path": "dataset.seed", "choices": [1, 2]}],
            "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
            "trials": {"max": 2, "parallel": 2},
        }
    )
    assert _remarks(sweep, 2) == []
    assert _remarks(sweep, 1) == ["trials at the same time: 1 (--parallel), not 2 (trials.parallel)"]
