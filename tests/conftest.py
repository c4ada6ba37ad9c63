"""Fixtures that every kind of test shares."""

from pathlib import Path

import pytest
import yaml

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference

SAMPLES = Path(__file__).parents[1] / "manifests" / "samples"


def pytest_addoption(parser: pytest.Parser) -> None:
    """One flag that rewrites every golden file; the diff is what is reviewed."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew instead of comparing")


@pytest.fixture
def sample_experiment() -> AnomalyExperiment:
    """The experiment that ``make demo`` runs."""
    return AnomalyExperiment.model_validate(yaml.safe_load((SAMPLES / "mnist-padim.yaml").read_text()))


@pytest.fixture
def sample_inference() -> AnomalyInference:
    """The inference that ``make demo`` runs."""
    return AnomalyInference.model_validate(yaml.safe_load((SAMPLES / "mnist-inference.yaml").read_text()))
