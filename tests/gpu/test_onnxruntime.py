"""onnxruntime on the GPU: it is used, and float32 stays float32 unless TF32 is asked for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from anomaly_api.artifacts import INPUT, SCORES
from anomaly_runner.scoring.cuda_libraries import missing_libraries, preload_cuda
from anomaly_runner.scoring.cuda_provider import CUDA
from anomaly_runner.scoring.onnx_predictor import load_onnx

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(
    CUDA not in onnxruntime.get_available_providers(), reason="this onnxruntime is built without CUDA"
)

IMAGES, SIDE, FEATURES = 64, 32, 256
SHAPE = (IMAGES, 3, SIDE, SIDE)
"""Large enough that cuBLAS uses tensor cores where it may."""


@pytest.fixture
def weights() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(3 * SIDE * SIDE, FEATURES)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path, weights: NDArray[np.float32]) -> Path:
    """A model whose score is the largest of an image's projections."""
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *SHAPE[1:]])
    scores = helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["batch"])
    nodes = [
        helper.make_node("Flatten", [INPUT], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["projected"]),
        helper.make_node("ReduceMax", ["projected", "axis"], [SCORES], keepdims=0),
    ]
    constants = [numpy_helper.from_array(weights, "weights"), helper.make_tensor("axis", TensorProto.INT64, [1], [1])]
    graph = helper.make_graph(nodes, "g", [images], [scores], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(made, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_the_gpu_executes_the_model_and_no_library_is_missing(model: Path) -> None:
    preload_cuda()
    assert missing_libraries() == {}
    predictor = load_onnx(model, IMAGES)
    assert (predictor.provider, predictor.fallback) == (CUDA, None)


def test_only_tf32_rounds(model: Path, weights: NDArray[np.float32]) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no TF32")
    images = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    exact = (images.reshape(IMAGES, -1).astype(np.float64) @ weights.astype(np.float64)).max(1)
    error = {tf32: np.abs(load_onnx(model, IMAGES, tf32=tf32).run(images)[0] - exact).max() for tf32 in (False, True)}
    assert error[True] > 10 * error[False]
