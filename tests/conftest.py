"""Fixtures that every kind of test shares."""

from pathlib import Path

import pytest
import yaml

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference

SAMPLES = Path(__file__).parents[1] / "manifests" / "samples"


@pytest.fixture
def sample_experiment() -> AnomalyExperiment:
    """The experiment that ``make demo`` runs."""
    return AnomalyExperiment.model_validate(yaml.safe_load((SAMPLES / "mnist-padim.yaml").read_text()))


@pytest.fixture
def sample_inference() -> AnomalyInference:
    """The inference that ``make demo`` runs."""
    return AnomalyInference.model_validate(yaml.safe_load((SAMPLES / "mnist-inference.yaml").read_text()))
