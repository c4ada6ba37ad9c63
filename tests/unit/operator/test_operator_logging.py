"""The operator's log: one JSON object a line, without what its libraries say of every object."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from anomaly_operator import logging_setup

NOISY = ("kopf", "aiohttp", "asyncio")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers, logging.root.level
    levels = {name: logging.getLogger(name).level for name in NOISY}
    yield
    structlog.reset_defaults()
    logging.root.handlers = handlers
    logging.root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    written = capsys.readouterr()
    assert written.out == ""
    return [json.loads(line) for line in written.err.splitlines()]


def test_records_of_the_operator_and_its_libraries_are_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.configure("INFO")
    structlog.get_logger("anomaly").info("reconciled", run="vision/screws")
    structlog.get_logger("anomaly").debug("not asked for")
    logging.getLogger("kopf").info("an event of each object")
    logging.getLogger("kopf").warning("a watch broke")
    logging.getLogger("other").info("of a library")
    found = lines(capsys)
    assert [(line["event"], line["level"], line["logger"]) for line in found] == [
        ("reconciled", "info", "anomaly"),
        ("a watch broke", "warning", "kopf"),
        ("of a library", "info", "other"),
    ]
    assert found[0]["run"] == "vision/screws"
    assert all(str(line["timestamp"]).endswith("Z") for line in found)


def test_an_exception_is_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.configure("WARNING")
    try:
        raise ValueError("no such run")
    except ValueError:
        structlog.get_logger("anomaly").exception("a defect")
    (line,) = lines(capsys)
    assert "ValueError: no such run" in str(line["exception"])


def test_libraries_say_no_more_than_the_operator(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.configure("ERROR")
    logging.getLogger("kopf").warning("a watch broke")
    assert lines(capsys) == []


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError):
        logging_setup.configure("LOUD")
