"""The room of tests that need a GPU: they skip with the reason where torch has none.

``--device cpu`` runs those that make sense without one, to try the room's own code on a small machine; what they then
compare is the CPU with itself. ``hack/gpu/run`` starts the room with ``--lines``, where each test leaves a line.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hack.gpu.results import Collected, TestResult, append
from support.worker import Worker

HERE = Path(__file__).parent
MEASURED = "measured"
_SHOWN = 3000
"""Characters that are kept of the beginning and of the end of a long failure."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add this room's flags; they exist only where the room is named on the command line."""
    parser.addoption("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the room without a GPU")
    parser.addoption("--lines", type=Path, help="file that takes a line for each test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip this room's tests where there is no GPU, and note which there are."""
    ours = [item for item in items if HERE in item.path.parents]
    on_cpu = config.getoption("--device", "cuda") == "cpu"
    for item in ours:
        if on_cpu and not item.get_closest_marker("also_on_cpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU, and --device cpu was given"))
        elif not on_cpu and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU: torch.cuda.is_available() is false on this machine"))
    if lines := config.getoption("--lines", None):
        append(lines, Collected(tuple(item.name for item in ours)))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Write a line for each test once its outcome is known: at its call, or before, if it does not come to that."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    lines = item.config.getoption("--lines", None)
    if lines and (report.when == "call" or report.outcome != "passed"):
        measured = tuple(str(value) for name, value in report.user_properties if name == MEASURED)
        append(lines, TestResult(item.name, report.outcome, report.duration, _detail(report), measured))


def _detail(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # a skip: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    text = report.longreprtext
    return text if len(text) < 2 * _SHOWN else f"{text[:_SHOWN]}\n...\n{text[-_SHOWN:]}"


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device whose results are compared with the CPU's."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    """A process in which models run, replaced after a failure: an error on the GPU may spoil all that follows in it."""
    with Worker() as started:
        yield started
