"""What passes between the programs and the search: names, states and metrics of trials."""

import math
import pickle
import subprocess
import sys

import pytest

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.status import MetricValues
from anomaly_api.sweep_exchange import Plan, RunOfPoint, SweepEnd, TrialRecord, by_path, ended_as, trial_name
from anomaly_api.sweep_status import StopReason
from support.bad_manifests import base


@pytest.mark.parametrize(
    ("which", "search_run", "name"),
    [
        (RunOfPoint(12), 1, "bottle-t0012"),
        (RunOfPoint(0, rung=1), 1, "bottle-t0000-g1"),
        (RunOfPoint(3, replicate=2), 1, "bottle-t0003-r2"),
        (RunOfPoint(12345, rung=2, replicate=1), 3, "bottle-s3-t12345-g2-r1"),
    ],
)
def test_a_trials_name(which: RunOfPoint, search_run: int, name: str) -> None:
    assert trial_name("bottle", which, search_run) == name


def test_long_names_stay_names_and_apart() -> None:
    first, second = (trial_name("a" * 240 + "." + end * 12, RunOfPoint(7, 1, 2)) for end in "bc")
    assert first != second
    for name in (first, second):
        assert len(name) <= 253
        assert name.endswith("-t0007-g1-r2")
        AnomalyExperiment.model_validate(base("AnomalyExperiment") | {"metadata": {"name": name}})


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("Complete", "Complete"),
        ("Pruned", "Pruned"),
        ("OutOfMemory", "Infeasible"),
        ("Diverged", "Infeasible"),
        ("InvalidConfig", "Infeasible"),
        ("DataInvalid", "Failed"),
        ("InternalError", "Failed"),
        ("unheard of", "Failed"),
    ],
)
def test_what_a_reason_says_of_a_trial(reason: str, state: str) -> None:
    assert ended_as(reason) == state


def test_metrics_have_the_paths_of_objectives() -> None:
    metrics = MetricValues(
        image={"AUROC": 0.5, "AUPR": math.nan}, pixel={"AUPRO": 0.25}, performance={"modelBytes": 3.0}
    )
    assert by_path(metrics) == {"image.AUROC": 0.5, "pixel.AUPRO": 0.25, "performance.modelBytes": 3.0}
    assert by_path(None) == {}


def test_plans_are_read_without_the_libraries_of_the_search() -> None:
    plan = Plan(end=SweepEnd(StopReason.EXHAUSTED, "all done"), stops=(TrialRecord(1, 0, 0, {}, "Running").which,))
    program = (
        "import pickle, sys\n"
        f"plan = pickle.loads({pickle.dumps(plan)!r})\n"
        "print(plan.end.reason, plan.stops[0].number)\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('anomaly_search', 'numpy', 'optuna')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "Exhausted 1\n[]\n"
