"""Inputs that a model does not take are refused before anything is fetched."""

from types import SimpleNamespace

import pytest

from anomaly_api.model import Model
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.catalog import input_normalization
from anomaly_runner.models.check import check_model


@pytest.mark.parametrize(
    ("name", "size", "complaint"),
    [
        ("uflow", (256, 256), "uflow takes images of 448 x 448"),
        ("dinomaly", (256, 256), "multiples of 14"),
        ("inpFormer", (392, 406), "inpFormer wants a square inputSize, not 392 x 406"),
    ],
)
def test_an_input_size_that_the_model_does_not_take(name, size, complaint):
    with pytest.raises(InvalidConfig, match=complaint):
        check_model(Model(name=name), size)


@pytest.mark.parametrize(("name", "size"), [("dinomaly", (392, 406)), ("inpFormer", (392, 392))])
def test_an_input_size_that_it_takes(name, size):
    check_model(Model(name=name), size)


@pytest.mark.parametrize(
    ("name", "asked", "complaint"),
    [("glass", "none", "glass wants normalised images"), ("draem", "imagenet", "draem wants images of 0..1")],
)
def test_a_normalisation_that_the_model_cannot_use(name, asked, complaint):
    spec = SimpleNamespace(model=SimpleNamespace(name=name), transforms=SimpleNamespace(normalization=asked))
    with pytest.raises(InvalidConfig, match=complaint):
        input_normalization(spec)
