"""Unsupported inputs, exports and settings of a model are refused before anything is fetched."""

from functools import partial
from typing import Any

import pytest
import torch

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.model import Model
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.anomalib_model import COMPLETED, BuildOptions, build_module, without_pretrained_weights
from anomaly_runner.models.catalog import CATALOG, input_normalization
from anomaly_runner.models.check import check_exports, check_model
from anomaly_runner.models.traceable import TRACEABLE


def experiment(**blocks: Any) -> ExperimentSpec:
    location = {"s3": {"uri": "s3://data"}}
    return ExperimentSpec.model_validate({"dataset": {"source": location}, "output": location} | blocks)


def exported(name: str, *types: str, precision: str = "float32") -> ExperimentSpec:
    return experiment(model={"name": name}, export={"types": types, "precision": precision})


@pytest.mark.parametrize(
    ("name", "size", "complaint"),
    [
        ("uflow", (256, 256), "uflow takes images of 448 x 448"),
        ("dinomaly", (256, 256), "multiples of 14"),
        ("inpFormer", (392, 406), "inpFormer wants a square inputSize, not 392 x 406"),
        ("supersimplenet", (64, 128), "inputSize of at least 65 x 65"),
    ],
)
def test_unsupported_input_sizes_are_refused(name: str, size: tuple[int, int], complaint: str) -> None:
    with pytest.raises(InvalidConfig, match=complaint):
        check_model(Model(name=name), size)


@pytest.mark.parametrize(
    ("name", "size"), [("dinomaly", (392, 406)), ("inpFormer", (392, 392)), ("supersimplenet", (65, 128))]
)
def test_supported_input_sizes_are_accepted(name: str, size: tuple[int, int]) -> None:
    check_model(Model(name=name), size)


def test_unsupported_export_formats_are_refused() -> None:
    check_exports(exported("mhPatchcore", "onnx", "torchscript"))
    check_exports(exported("padim", "onnx", "openvino"))
    with pytest.raises(InvalidConfig, match="mhPatchcore cannot be written as openvino; there is onnx, torchscript"):
        check_exports(exported("mhPatchcore", "onnx", "openvino"))
    check_exports(exported("csflow", precision="float16"))
    with pytest.raises(InvalidConfig, match="csflow has numbers that float16 cannot hold"):
        check_exports(exported("csflow", "onnx", precision="float16"))


@pytest.mark.parametrize(
    ("name", "asked", "complaint"),
    [("glass", "none", "glass wants normalised images"), ("draem", "imagenet", "draem wants images of 0..1")],
)
def test_unsupported_normalisations_are_refused(name: str, asked: str, complaint: str) -> None:
    spec = experiment(model={"name": name}, transforms={"normalization": asked})
    with pytest.raises(InvalidConfig, match=complaint):
        input_normalization(spec)


def test_code_for_some_models_is_for_models_of_anomalib() -> None:
    """The tables' keys are names, which no type checker compares with the catalog."""
    assert {*TRACEABLE, *COMPLETED} <= {name for name, entry in CATALOG.items() if entry.anomalib}


@pytest.mark.slow
@pytest.mark.parametrize(("side", "fits"), [(65, True), (64, False)])
def test_the_smallest_input_size_is_the_smallest_that_noise_fits_into(side: int, fits: bool) -> None:
    """anomalib draws a random number of cells a side, 1 to 32."""
    asked = Model.model_validate({"name": "supersimplenet", "supersimplenet": {"backbone": "resnet18"}})
    with without_pretrained_weights():
        model = build_module(asked, BuildOptions((side, side), 4, None, "object")).model
    rows, columns = model.feature_extractor(torch.zeros(1, 3, side, side)).shape[-2:]
    torch.manual_seed(0)
    draw = partial(model.anomaly_generator.generate_perlin, 50, rows, columns)
    if fits:
        assert draw().shape == (50, 1, rows, columns)
    else:
        with pytest.raises(RuntimeError, match="must match"):
            draw()
