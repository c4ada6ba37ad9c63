"""Numbers of the tables of a search's page, by hand."""

import re
from pathlib import Path
from typing import Any

import pytest

from anomaly_api.experiment import ExperimentSpec
from anomaly_runner.reporting.sweep.charts import front_chart, history_chart
from anomaly_runner.reporting.sweep.findings import Findings, judge
from anomaly_runner.reporting.sweep.leaders import Group, groups, leaderboard
from support.searches import CATEGORIES, LEARNING, RUN, Ran, ordinary, read_all, report_of, search_of, write_reports
from support.sweep_specs import sweep_spec

FEATURES = "model.padim.nFeatures"


def found_in(folder: Path, spec: ExperimentSpec, ran: list[Ran]) -> Findings:
    write_reports(folder, [report_of(spec, one) for one in ran])
    search = search_of(spec)
    return judge(RUN, search, read_all(folder, search))


def grouped(findings: Findings, path: str) -> list[Group]:
    (parameter,) = (one for one in findings.sweep.space.parameters if one.path == path)
    return groups(findings, parameter)


def test_points_are_grouped_by_the_value_of_a_choice(tmp_path: Path) -> None:
    """Even ones are PaDiM, with 0.0, 0.2, 0.4 and 0.6."""
    spec, ran = ordinary(8, lambda number: number / 10)
    assert grouped(found_in(tmp_path, spec, ran), "model.name") == [
        Group("padim", 4, "0.6000", "0.3000"),
        Group("patchcore", 4, "0.7000", "0.4000"),
    ]


def test_points_are_grouped_by_four_parts_of_a_range(tmp_path: Path) -> None:
    """From 50 to 200, so that the parts begin at 50, 87.5, 125 and 162.5."""
    values = {50: 0.1, 80: 0.5, 90: 0.3, 200: 0.9}
    ran = [Ran(place, {FEATURES: one}, {"image.AUROC": auroc}) for place, (one, auroc) in enumerate(values.items())]
    assert grouped(found_in(tmp_path, sweep_spec(LEARNING), ran), FEATURES) == [
        Group("50 to 80", 2, "0.5000", "0.3000"),
        Group("90", 1, "0.3000", "0.3000"),
        Group("200", 1, "0.9000", "0.9000"),
    ]


def test_of_what_is_to_be_small_the_least_is_best(tmp_path: Path) -> None:
    latency = {"metric": "performance.latencyMilliseconds", "goal": "minimize"}
    ran = [
        Ran(number, {FEATURES: 60 + number}, {latency["metric"]: milliseconds})
        for number, milliseconds in enumerate((7.0, 3.0, 5.0))
    ]
    findings = found_in(tmp_path, sweep_spec(LEARNING, objectives=[latency]), ran)
    assert grouped(findings, FEATURES) == [Group("60 to 62", 3, "3 ms", "5 ms")]
    assert [leader.trial.text for leader in leaderboard(findings, 2)] == ["1", "2"]


def test_a_leader_has_the_means_of_its_runs_and_the_hours_of_all(tmp_path: Path) -> None:
    """Three runs of 30 s on two GPUs are 0.05 hours; the standard error is 0.1 / sqrt(3)."""
    bound: list[dict[str, Any]] = [{"metric": "performance.modelBytes", "max": 1e9}]
    spec = sweep_spec(LEARNING, replicates=CATEGORIES, constraints=bound)
    ran = [
        Ran(
            0,
            {FEATURES: 60},
            {"image.AUROC": 0.7 + replicate / 10, "performance.modelBytes": 1e6 * (1 + replicate)},
            replicate=replicate,
            gpus=2,
        )
        for replicate in range(3)
    ]
    (leader,) = leaderboard(found_in(tmp_path, spec, ran), 5)
    assert (leader.place, leader.trial.text, leader.values, leader.rung) == (1, "0", ("60",), "")
    assert leader.objectives == (("0.8000", "0.0577"),)
    assert leader.constraints == ("2.00 MB",)
    assert leader.gpu_hours == "0.05"
    assert leader.trial.address == "../../screws-t0000/trial-uid/report.json"


def lines(svg: str) -> dict[str, list[tuple[float, ...]]]:
    """Points of each line by its class; the frame is 346 x 198, its left upper corner at (60, 42)."""
    found = re.findall(r'<polyline points="([^"]*)" class="line ([^"]*)"', svg)
    return {name: [tuple(map(float, pair.split(","))) for pair in pairs.split()] for pairs, name in found}


@pytest.mark.parametrize(
    ("goal", "heights"),
    [
        ("maximize", [(175.33, 160.8), (406.0, 160.8), (406.0, 42.0), (406.0, 42.0)]),
        ("minimize", [(175.33, 160.8), (290.67, 160.8), (290.67, 240.0), (406.0, 240.0)]),
    ],
)
def test_the_best_so_far_is_a_line_of_steps(goal: str, heights: list[tuple[float, float]], tmp_path: Path) -> None:
    """0.5, then 0.3, then 0.8: at 0.4 of the height, at its foot, at its top."""
    ran = [Ran(number, {FEATURES: 60 + number}, {"image.AUROC": value}) for number, value in enumerate((0.5, 0.3, 0.8))]
    spec = sweep_spec(LEARNING, objectives=[{"metric": "image.AUROC", "goal": goal}])
    assert lines(history_chart(found_in(tmp_path, spec, ran))) == {"good": heights}


def test_the_front_has_the_points_that_no_other_beats_in_both(tmp_path: Path) -> None:
    """0.9 at 5 ms and 0.8 at 2 ms; 0.7 at 8 ms is beaten by both."""
    latency = "performance.latencyMilliseconds"
    ran = [
        Ran(number, {FEATURES: 60 + number}, {"image.AUROC": auroc, latency: milliseconds})
        for number, (auroc, milliseconds) in enumerate(((0.9, 5.0), (0.7, 8.0), (0.8, 2.0)))
    ]
    objectives = [{"metric": "image.AUROC", "goal": "maximize"}, {"metric": latency, "goal": "minimize"}]
    drawn = front_chart(found_in(tmp_path, sweep_spec(LEARNING, objectives=objectives), ran), 1)
    assert lines(drawn) == {"pixel": [(60.0, 141.0), (233.0, 42.0)]}
    assert re.findall(r'class="dot ([^"]+)"', drawn) == ["faint", "pixel", "pixel"]
    assert f"{latency}, less is better" in drawn
    assert "image.AUROC, more is better" in drawn
