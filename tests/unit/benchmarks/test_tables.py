"""What benchmarks write into the page: digits that the noise allows, tables without empty cells, markers that stay."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from benchmarks.tables import PAGE, Spread, Table, command_line, in_turns, publish, replaced, taken_with

PAGE_TEXT = (
    "# Title\n\n<!-- table one -->\nold\n<!-- end one -->\n\n<!-- table two -->\nkept\n<!-- end two -->\nThe end.\n"
)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((18.4, 19.02, 18.13), "18.4 s (18.1 to 19.0)"),
        ((131.3, 124.2, 136.4), "131 s (124 to 136)"),
        ((1306.0, 1304.0, 1308.0), "1,310 s (1,300 to 1,310)"),
        ((1.0, 2.4, 5.1), "2 s (1 to 5)"),
        ((0.01234, 0.01236, 0.01239), "0.0124 s (0.0123 to 0.0124)"),
        ((0.0, 0.0), "0 s (0 to 0)"),
        ((353.8,), "350 s (one run)"),
    ],
)
def test_a_number_has_the_digits_that_its_range_allows(values: tuple[float, ...], text: str) -> None:
    assert Spread(values).text(" s") == text


def test_ratios_are_those_of_each_turn() -> None:
    theirs, ours = Spread((20.0, 30.0, 44.0)), Spread((10.0, 10.0, 11.0, 99.0))
    assert theirs.over(ours).values == (2.0, 3.0, 4.0)
    assert theirs.over(ours).text(" times") == "3 times (2 to 4)"


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])


def test_a_table_is_markdown() -> None:
    table = Table("one", ("", "Seconds"), [("ours", "1.0"), ("others", "2.0")])
    with pytest.raises(ValueError, match="2 cells with something in each"):
        Table("one", ("Side", "Seconds"), [("ours", " ")]).markdown()
    with pytest.raises(ValueError, match="2 cells"):
        Table("one", ("Side", "Seconds"), [("ours",)]).markdown()
    assert table.markdown() == "|  | Seconds |\n|---|---|\n| ours | 1.0 |\n| others | 2.0 |"


def test_what_a_table_was_taken_with_is_below_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE_TEXT)
    table = Table("one", ("Side", "Seconds"), [("ours", "1.0")], ("numpy",), "Other programs ran.")
    publish([table], write=True, page=page)
    said = taken_with(table, "python -m benchmarks.one", datetime(2026, 5, 4, tzinfo=UTC))
    assert said.startswith("Taken on 2026-05-04 with `python -m benchmarks.one`: ")
    assert "CPUs" in said
    assert said.endswith(f"numpy {version('numpy')}. Other programs ran.")
    lines = page.read_text().splitlines()
    assert lines[2:6] == ["<!-- table one -->", "| Side | Seconds |", "|---|---|", "| ours | 1.0 |"]
    assert lines[7].startswith("Taken on ")
    assert lines[8:] == PAGE_TEXT.splitlines()[4:]


def test_a_table_is_printed_only_where_nothing_is_to_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE_TEXT)
    publish([Table("one", ("Side", "Seconds"), [("ours", "1.0")])], write=False, page=page)
    assert page.read_text() == PAGE_TEXT
    assert "| ours | 1.0 |" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["", "<!-- end one -->\n<!-- table one -->\n", PAGE_TEXT * 2])
def test_a_page_without_the_markers_once_each_is_left_alone(page: str) -> None:
    with pytest.raises(ValueError, match="each once"):
        replaced(page, "one", "new")


def test_all_sides_take_turns_and_every_second_turn_is_backwards() -> None:
    order: list[str] = []
    sides = {name: lambda name=name: name + "!" for name in ("a", "b", "c")}
    found = in_turns(sides, {"a": 3, "b": 3, "c": 1}, lambda name, _: order.append(name))
    assert order == ["a", "b", "c", "b", "a", "a", "b"]
    assert found == {"a": ["a!"] * 3, "b": ["b!"] * 3, "c": ["c!"]}


def test_every_marker_of_the_page_has_its_end() -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = [line.split()[2] for line in page.splitlines() if line.startswith("<!-- table ")]
    for name in names:
        replaced(page, name, "new")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ([], ""),
        (["--runs", "2", "--write"], " --runs 2 --write"),
        (["--problems", "Hartmann, 6"], " --problems 'Hartmann, 6'"),
        (["--python", "/home/somebody/bin/python3.12"], " --python python3.12"),
    ],
)
def test_a_table_names_the_command_that_was_given(given: list[str], line: str) -> None:
    main = SimpleNamespace(__spec__=SimpleNamespace(name="benchmarks.one"))
    with patch("sys.argv", ["file.py", *given]), patch.dict("sys.modules", {"__main__": main}):
        assert command_line() == f"python -m benchmarks.one{line}"
