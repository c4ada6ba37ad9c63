"""Keep unit tests fast: nothing below this folder may import a library that takes seconds to import."""

import sys
from collections.abc import Generator, Iterator

import hypothesis
import pytest

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

HEAVY = frozenset({"torch", "anomalib", "lightning", "mlflow", "onnx", "onnxruntime", "openvino", "timm"})


def _heavy() -> frozenset[str]:
    return HEAVY & sys.modules.keys()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Refuse a test module that imports a heavy library."""
    before = _heavy()
    report = yield
    if isinstance(collector, pytest.Module) and (brought := _heavy() - before):
        raise pytest.UsageError(f"{collector.nodeid} imports {', '.join(sorted(brought))}: move it to tests/component")
    return report


@pytest.fixture(autouse=True)
def light() -> Iterator[None]:
    """Fail a test that imports a heavy library."""
    before = _heavy()
    yield
    brought = ", ".join(sorted(_heavy() - before))
    assert not brought, f"imports {brought}: move it to tests/component"
