"""What a sweep leaves for people: the page in a real browser, its numbers held against the trials, and its scale."""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import SweepResult
from anomaly_api.status import MetricValues
from anomaly_runner.reporting.sweep.files import write_sweep_files
from anomaly_runner.reporting.sweep.findings import Findings, judge
from anomaly_runner.reporting.sweep.leaders import leaderboard
from anomaly_runner.reporting.sweep.page import render
from anomaly_runner.reporting.sweep.pivot import Cell, pivot
from support.browser import browse, find_browser
from support.optional import not_none
from support.pages import external_addresses, table_of
from support.searches import (
    CATEGORIES,
    LEARNING,
    MODEL,
    RATIO,
    RUN,
    Ran,
    ordinary,
    read_all,
    report_of,
    search_of,
    write_reports,
)
from support.sweep_specs import sweep_spec

HOSTILE = "<img src=x onerror=alert(1)>"
MEASURED = MetricValues(image={"AUROC": 0.93})


def found_in(folder: Path, spec: ExperimentSpec, ran: list[Ran], **status: Any) -> Findings:
    write_reports(folder, [report_of(spec, one) for one in ran])
    search = search_of(spec, **status)
    return judge(RUN, search, read_all(folder, search))


def best(number: int, value: float, **more: Any) -> dict[str, Any]:
    return {"best": [{"number": number, "objectives": {"image.AUROC": value}, **more}]}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output location with 40 trials of a search, two of them without a value, and the sweep's page among them."""
    folder = tmp_path_factory.mktemp("output")
    spec, ran = ordinary(40, lambda number: 0.5 + number % 37 / 100)
    ran[5] = replace(ran[5], reason="OutOfMemory", metrics={}, message=HOSTILE)
    ran[6] = replace(ran[6], reason="StorageUnavailable", metrics={}, message="no answer")
    status = best(36, 0.86, values=dict(ran[36].values))
    counters = {"asked": 41, "complete": 38, "infeasible": 1, "failed": 2, "gpuHours": 0.7, "stopReason": "MaxTrials"}
    findings = found_in(folder, spec, ran, **counters, **status)
    own = folder / RUN.folder
    own.mkdir(parents=True)
    write_sweep_files(
        findings, spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"seed": 9})}), own, MEASURED
    )
    return folder


@pytest.fixture(scope="module")
def page(output: Path) -> str:
    return (output / RUN.folder / "sweep.html").read_text()


def test_a_browser_shows_it_without_complaint(output: Path, tmp_path: Path) -> None:
    shown = browse(find_browser(), output / RUN.folder / "sweep.html", tmp_path)
    assert shown.complaints == []
    assert "<title>factory/screws: search</title>" in shown.dom
    assert dict(re.findall(r'data-count="([^"]+)">([^<]+)<', shown.dom)) == {
        "asked": "41",
        "complete": "38",
        "pruned": "0",
        "infeasible": "1",
        "failed": "2",
        "GPU hours": "0.7",
        "ended by": "MaxTrials",
    }


def test_everything_is_in_one_file_and_inert(page: str) -> None:
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert f"{HOSTILE}" not in page
    assert "onerror=alert(1)&gt;" in page
    assert all(not address.startswith(("http", "//", "/")) for address in external_addresses(page))


def test_every_link_leads_to_a_file(output: Path, page: str) -> None:
    beside = output / RUN.folder
    leads = {unquote(address) for address in external_addresses(page)}
    missing = {address for address in leads if not (beside / address).resolve().is_file()}
    assert missing == {"report.html"}, "of the training, which this test has not done"
    trials = {address for address in leads if "-t" in address}
    assert len(trials) == 40


def test_the_leaderboard_is_in_order(page: str) -> None:
    rows = table_of(page, "leaderboard")
    assert [row[1] for row in rows[:3]] == ["36", "35", "34"]
    assert [row[2] for row in rows[:3]] == ["0.8600", "0.8500", "0.8400"]
    assert rows[0][3:6] == ["padim", "\u2013", "64 x 64"]
    assert rows[1][3:5] == ["patchcore", "0.048"], "0.01 + 0.19 * (35 mod 11) / 10"
    assert len(rows) == 20
    assert "The best 20 of 38." in page


def test_the_winner_was_measured_again(page: str) -> None:
    assert re.findall(r"<tr data-winner>.*?</tr>", page, re.DOTALL)
    text = " ".join(re.sub(r"<[^>]+>", " ", page.replace("<wbr>", "")).split())
    assert "image.AUROC 0.8600 0.9300 -0.07" in text
    assert "on dataset.seed 9, which no trial used" in text
    assert "measured again 0.9300" in text


def test_what_has_no_value_has_a_reason(page: str) -> None:
    assert table_of(page, "ended") == [
        ["screws-t0005", "Infeasible", "OutOfMemory", "&lt;img src=x onerror=alert(1)&gt;"],
        ["screws-t0006", "Failed", "StorageUnavailable", "no answer"],
    ]
    assert "1 of 41 points left no report, such as 40" in page


def test_every_picture_has_a_name_and_a_table_beside_it(page: str) -> None:
    names = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert names == [
        "History of the best",
        "Parameters and the first objective of each point",
        "model.name",
        "model.patchcore.coresetSamplingRatio",
        "transforms.inputSize",
    ]
    for name in ("leaderboard", "importances", "trials"):
        assert table_of(page, name)
    assert page.count("<caption>") == 3
    assert len(re.findall(r'tabindex="0" role="region" aria-label="', page)) == page.count('class="wide"')


def test_models_beside_categories_as_papers_print_them(tmp_path: Path) -> None:
    spec = sweep_spec(MODEL, RATIO, replicates=CATEGORIES, change={"model": {"padim": None}})
    measured = {
        (0, "padim"): (0.90, 0.80, 0.70),
        (1, "patchcore"): (0.95, 0.70, 0.99),
        (2, "patchcore"): (0.10, 0.10, 0.10),
    }
    ran = [
        Ran(
            number,
            {"model.name": model} | ({"model.patchcore.coresetSamplingRatio": 0.05 * number} if number else {}),
            {"image.AUROC": value},
            replicate=replicate,
        )
        for (number, model), values in measured.items()
        for replicate, value in enumerate(values)
    ]
    found = not_none(pivot(found_in(tmp_path, spec, ran)))
    assert (found.down, found.across, found.columns) == (
        "model.name",
        "dataset.category",
        ("bolt", "nut", "screw", "mean"),
    )
    assert [row.value for row in found.rows] == ["padim", "patchcore"]
    assert [row.trial.text for row in found.rows] == ["0", "1"]
    # The standard errors of the means: 0.1 / sqrt(3), and that of 0.95, 0.7 and 0.99, whose variance is 0.0247.
    assert found.rows[0].cells == (
        Cell("0.9000"),
        Cell("0.8000", is_best=True),
        Cell("0.7000"),
        Cell("0.8000", "0.0577"),
    )
    assert found.rows[1].cells == (
        Cell("0.9500", is_best=True),
        Cell("0.7000"),
        Cell("0.9900", is_best=True),
        Cell("0.8800", "0.0907", is_best=True),
    )


def test_without_replicates_two_searched_fields_make_the_table(tmp_path: Path) -> None:
    spec, ran = ordinary(8, lambda number: number / 10)
    found = not_none(pivot(found_in(tmp_path, spec, ran)))
    assert (found.down, found.across) == ("model.name", "transforms.inputSize")
    # 0 to 7: padim is even; sizes change every other one.
    assert [[cell.value for cell in row.cells] for row in found.rows] == [["0.4000", "0.6000"], ["0.5000", "0.7000"]]


def test_fields_that_only_one_model_has_make_no_table_with_the_models(tmp_path: Path) -> None:
    when = {"path": "model.name", "in": ["padim"]}
    layers = {"path": "model.padim.layers", "choices": [["layer1"], ["layer1", "layer2"]], "when": when}
    backbone = {"path": "model.padim.backbone", "choices": ["resnet18"], "when": when}
    spec = sweep_spec(MODEL, layers, backbone)
    values = {"model.name": "padim", "model.padim.layers": ["layer1"], "model.padim.backbone": "resnet18"}
    ran = [Ran(0, values, {"image.AUROC": 0.9}), Ran(1, {"model.name": "patchcore"}, {"image.AUROC": 0.8})]
    findings = found_in(tmp_path, spec, ran)
    assert pivot(findings) is None
    assert [leader.values for leader in leaderboard(findings, 2)] == [("padim", "layer1"), ("patchcore", "\u2013")]


def test_a_sweep_over_one_range_has_no_such_table(tmp_path: Path) -> None:
    findings = found_in(tmp_path, sweep_spec(LEARNING), [Ran(0, {"model.padim.nFeatures": 60}, {"image.AUROC": 0.9})])
    assert pivot(findings) is None
    assert "data-pivot" not in render(findings, sweep_spec(LEARNING), None)


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    objectives = [
        {"metric": "image.AUROC", "goal": "maximize"},
        {"metric": "performance.latencyMilliseconds", "goal": "minimize"},
    ]
    bound = [{"metric": "performance.modelBytes", "max": 3e6}]
    spec = sweep_spec(LEARNING, objectives=objectives, constraints=bound)
    known = [(0.9, 5.0, 1e6), (0.95, 9.0, 1e6), (0.8, 9.5, 1e6), (0.99, 1.0, 4e6)]
    ran = [
        Ran(
            number,
            {"model.padim.nFeatures": 60 + number},
            {
                "image.AUROC": auroc,
                "performance.latencyMilliseconds": latency,
                "performance.modelBytes": size,
            },
        )
        for number, (auroc, latency, size) in enumerate(known)
    ]
    page = render(found_in(tmp_path, spec, ran), spec, None)
    assert table_of(page, "front") == [["1", "0.9500", "9 ms"], ["0", "0.9000", "5 ms"]]
    assert table_of(page, "ended") == [["screws-t0003", "Infeasible", "Constraint", "performance.modelBytes 4.00 MB"]]
    assert page.count("beyond one</tspan>") == 2, "in the history and the slice, and nowhere else"
    assert "performance.latencyMilliseconds, less is better" in page
    assert 'aria-label="image.AUROC and latencyMilliseconds"' in page


def test_a_search_without_any_result_has_a_page(tmp_path: Path) -> None:
    page = render(found_in(tmp_path, sweep_spec(LEARNING), [], asked=3, failed=3), sweep_spec(LEARNING), None)
    assert "No point is measured" in page
    assert "3 of 3 points left no report" in page


def test_a_search_of_which_all_failed_has_a_page_without_empty_tables(tmp_path: Path) -> None:
    spec, ran = ordinary(3, lambda number: 0.5)
    failed = [replace(one, reason="OutOfMemory", metrics={}, message="40 GB") for one in ran]
    page = render(found_in(tmp_path, spec, failed, asked=3, infeasible=3), spec, None)
    assert [row[2:] for row in table_of(page, "ended")] == [["OutOfMemory", "40 GB"]] * 3
    assert "data-pivot" not in page
    assert "<tbody>\n</tbody>" not in page
    assert "<svg" not in page


def test_points_that_were_looked_at_cheaply_say_so(tmp_path: Path) -> None:
    spec = sweep_spec(LEARNING, fidelity={"path": "dataset.fraction", "values": [0.25, 1.0]})
    ran = [
        Ran(0, {"model.padim.nFeatures": 60}, {"image.AUROC": 0.7}),
        Ran(0, {"model.padim.nFeatures": 60}, {"image.AUROC": 0.8}, rung=1),
        Ran(1, {"model.padim.nFeatures": 70}, {"image.AUROC": 0.9}),
    ]
    page = render(found_in(tmp_path, spec, ran, rungCorrelation=[0.25]), spec, None)
    assert [(row[1], row[2], row[4]) for row in table_of(page, "leaderboard")] == [
        ("0", "0.8000", "1"),
        ("1", "0.9000", "0.25"),
    ]
    assert "0.25</td>" in page


def test_a_thousand_trials_are_read_and_drawn_in_seconds(tmp_path: Path) -> None:
    spec, ran = ordinary(1000, lambda number: (number * 7919 % 1000) / 1000)
    write_reports(tmp_path, [report_of(spec, one) for one in ran])
    search: SweepResult = search_of(spec, asked=1000)
    began = time.process_time()
    findings = judge(RUN, search, read_all(tmp_path, search))
    write_sweep_files(findings, spec, tmp_path, None)
    spent = time.process_time() - began
    page = (tmp_path / "sweep.html").stat().st_size
    assert spent < 30
    assert page < 2_000_000
