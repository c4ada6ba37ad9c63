"""Hooks and fixtures of all tests: distribution over processes, printed measurements, the samples."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference
from support.disk import plenty_of_space
from support.kubeconfigs import is_embedded

SAMPLES = Path(__file__).parents[1] / "manifests" / "samples"
INTEGRATION = Path(__file__).parent / "integration"
MEASURED = "measured"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add flags: golden files, rare combinations, numbers of random manifests, tests that delete the cluster."""
    parser.addoption("--lose-cluster", action="store_true", help="lose all that the embedded cluster holds")
    parser.addoption("--random-manifests", type=int, default=2000, help="how many the API server and pydantic compare")
    parser.addoption("--rare", action="store_true", help="rare combinations too: every model in every form of export")
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew instead of comparing")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group tests for `--dist loadgroup`: one process has the cluster, modules stay whole unless marked spread.

    The tests of tests/integration have a process of their own where they have a control plane of their own. What takes
    longest begins first.
    """
    if not config.getoption("--rare"):
        rare = [item for item in items if item.get_closest_marker("rare")]
        items[:] = [item for item in items if item not in rare]
        config.hook.pytest_deselected(items=rare)
    apart = is_embedded(os.environ.get("KUBECONFIG"))
    for item in items:
        if item.get_closest_marker("cluster"):
            alone = apart and INTEGRATION in item.path.parents
            item.add_marker(pytest.mark.xdist_group("control plane" if alone else "cluster"))
        elif not item.get_closest_marker("spread"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    if hasattr(config, "workerinput"):
        items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    """Return where a test stands among those of several processes."""
    if item.get_closest_marker("cluster"):
        return 1 if INTEGRATION in item.path.parents else 0
    return 2 if item.get_closest_marker("slow") else 3


@pytest.fixture
def disk_with_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a disk with enough space, whatever this machine has; some tests simulate a full one instead."""
    monkeypatch.setattr(shutil, "disk_usage", plenty_of_space)


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function that keeps a line to be printed after the results of all tests."""
    return partial(record_property, MEASURED)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the lines that tests kept with ``measured``."""
    reports = [report for category in ("passed", "failed") for report in terminalreporter.stats.get(category, [])]
    lines = [line for report in reports for name, line in report.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section(MEASURED)
        terminalreporter.write("\n".join(sorted(lines)) + "\n")


@pytest.fixture
def sample_experiment() -> AnomalyExperiment:
    """The experiment that ``make demo`` runs."""
    return AnomalyExperiment.model_validate(yaml.safe_load((SAMPLES / "mnist-padim.yaml").read_text()))


@pytest.fixture
def sample_inference() -> AnomalyInference:
    """The inference that ``make demo`` runs."""
    return AnomalyInference.model_validate(yaml.safe_load((SAMPLES / "mnist-inference.yaml").read_text()))
