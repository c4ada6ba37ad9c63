"""Mutation testing: how mutants are named and counted. That they are made and tried, `make mutants` shows."""

from pathlib import Path

import pytest

from hack.mutants import scores as page
from hack.mutants.changes import change, functions_of
from hack.mutants.found import Tried
from hack.mutants.groups import GROUPS
from hack.mutants.making import Mutant
from hack.mutants.scores import Reasons, Score, lines, scores, table, write

CODE = """
def x_f__mutmut_orig(a: int) -> int:
    if a < 1:
        return a
    return 2

class C:
    async def xǁCǁg__mutmut_1(self) -> int:
        return 1
"""


def test_functions_and_methods_are_found_by_name_without_indentation() -> None:
    assert functions_of(CODE) == {
        "x_f__mutmut_orig": ["def x_f__mutmut_orig(a: int) -> int:", "if a < 1:", "return a", "return 2"],
        "xǁCǁg__mutmut_1": ["async def xǁCǁg__mutmut_1(self) -> int:", "return 1"],
    }


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["def x_1(a):", "b = 2", "return b"], ("b = 1", "b = 2")),
        (["def x_1(a):", "b = 1", "return None"], ("return b", "return None")),
        (["def x_1(a=1):", "b = 1", "return b"], ("def (a):", "def (a=1):")),
        (["def x_1(a):", "return b"], ("b = 1", "")),
        (["def x_1(a):", "b = f(", "2,", ")", "return b"], ("b = 1", "b = f( 2, )")),
    ],
)
def test_a_mutant_is_told_by_the_lines_that_differ(changed: list[str], expected: tuple[str, str]) -> None:
    assert change(["def x_orig(a):", "b = 1", "return b"], changed) == expected


def tried(verdict: str | None, module: str = "a.b", changed: str = "y") -> Tried:
    return Tried(Mutant(f"{module}.x_f__mutmut_1", "f", "x", changed, "digest"), verdict)


def test_the_score_is_the_share_of_the_killed_among_the_valid(tmp_path: Path) -> None:
    reasons = tmp_path / "survivors.yaml"
    reasons.write_text("[{module: a.b, function: f, line: x, mutants: [same], reason: it is the same}]")
    found = [tried("killed"), tried("timed out"), tried("crashed"), tried("survived"), tried("untested"), tried(None)]
    found += [tried("survived", changed="same"), tried("killed", "a.a"), tried("survived", "a.c", "same")]
    assert scores(found, Reasons(reasons)) == [
        Score("a.a", killed=1, equivalent=0, survived=0, untried=0),
        Score("a.b", killed=3, equivalent=1, survived=2, untried=1),
        Score("a.c", killed=0, equivalent=0, survived=1, untried=0),
    ]


def test_the_table_has_all_modules_and_their_sum() -> None:
    assert lines(table([Score("a", 199, 2, 1, 0), Score("b", 0, 0, 0, 5)])) == [
        "| Module | Mutants | Killed | Equivalent | Survived | Not tried | Score |",
        "| --- | --: | --: | --: | --: | --: | --: |",
        "| a | 202 | 199 | 2 | 1 | 0 | 99 % |",
        "| b | 5 | 0 | 0 | 0 | 5 | - |",
        "| all | 207 | 199 | 2 | 1 | 5 | 99 % |",
    ]


def test_the_page_keeps_other_modules_and_what_each_had_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "page.md"
    file.write_text("before\n<!-- scores -->\n<!-- end of scores -->\nafter\n")
    monkeypatch.setattr(page, "PAGE", file)
    write([Score("a", 1, 0, 1, 0), Score("not tried", 0, 0, 0, 5)])
    write([Score("a", 2, 0, 0, 0), Score("b", 3, 0, 1, 0)])
    text = file.read_text()
    assert text.startswith("before\n<!-- scores -->\n| Module |")
    assert text.endswith(" |\n<!-- end of scores -->\nafter\n")
    assert "| a | 2 | 2 | 0 | 0 | 0 | 100 % | 50 % |" in text
    assert "| b | 4 | 3 | 0 | 1 | 0 | 75 % | 75 % |" in text
    assert "not tried" not in text
    write([Score("b", 4, 0, 0, 0)])
    text = file.read_text()
    assert "| a | 2 | 2 | 0 | 0 | 0 | 100 % | 50 % |\n| b | 4 | 4 | 0 | 0 | 0 | 100 % | 75 % |" in text
    assert "| all | 6 | 6 | 0 | 0 | 0 | 100 % | - |" in text


def test_what_is_listed_names_modules_that_are_tried_once() -> None:
    names = [name for group in GROUPS for name in group.names()]
    assert len(names) == len(set(names))
    assert {"anomaly_operator.decide.plan", "anomaly_runner.evaluation.thresholds", "anomaly_runner.storage"} <= {
        *names
    }
    assert {module for module, *_ in Reasons().known} <= {*names}
