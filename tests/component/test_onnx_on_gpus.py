"""onnxruntime on GPUs, as far as it shows without one: its libraries are found, and going without is noticed."""

import json
import logging
import mmap
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from anomaly_api.artifacts import INPUT, SCORES
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import ModelInvalid
from anomaly_runner.scoring import onnx_predictor
from anomaly_runner.scoring.cuda_libraries import CUDNN, preload_cuda, provider_library
from anomaly_runner.scoring.cuda_provider import CPU, CUDA, onnx_gpu_problem, provider_options
from anomaly_runner.scoring.onnx_predictor import OnnxPredictor, load_onnx
from anomaly_runner.system.gpu import Gpu

WHEELS = Path(onnxruntime.__file__).parent.parent / "nvidia"
SIDE = 8
NO_KERNEL = "CUDA failure 209: no kernel image is available for execution on the device"
FAILED = (
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 "
    "std::conditional_t<THRW, void, common::Status> onnxruntime::CudaCall(...) [with ERRTYPE = cudaError] "
    f"{NO_KERNEL} ; GPU=0 ; hostname=node ; file=/onnxruntime_src/cuda_execution_provider.cc ; line=1\n"
)
"""A message of onnxruntime, which has what CUDA said in its middle."""
NO_MEMORY = "Failed to allocate memory for requested buffer of size 1073741824"
PROGRAM = """
import json, sys
from anomaly_runner.scoring.cuda_libraries import missing_libraries, preload_cuda
before = missing_libraries()
preload_cuda()
sys.stderr.write(json.dumps([before, missing_libraries()]))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose score is the largest value of an image."""
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    scores = helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, ["batch"])
    node = helper.make_node("ReduceMax", [INPUT, "axes"], [SCORES], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    graph = helper.make_graph([node], "g", [images], [scores], [axes])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(made, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def gpu_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that shows a GPU; CUDA itself sees none, also where there is one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("anomaly_runner.scoring.cuda_provider.driver_problem", lambda: None)
    monkeypatch.setattr(onnx_predictor, "driver_problem", lambda: None)


@pytest.fixture
def nothing_in_the_way(gpu_is_visible: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``gpu_is_visible``, with all libraries of CUDA."""
    monkeypatch.setattr(onnx_predictor, "onnx_gpu_problem", lambda: None)


def test_libraries_in_wheels_are_found_once_they_are_loaded_and_nothing_is_printed() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stderr.splitlines()[-1])

    def in_wheels(missing: dict[str, str]) -> set[str]:
        return {name for name in missing if next(WHEELS.rglob(name), None)}

    assert CUDNN in in_wheels(before)
    assert in_wheels(after) == set()
    assert {name: words for name, words in after.items() if name not in words} == {}
    assert done.stdout == ""


def test_what_cannot_be_loaded_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def paths(_windows: bool, cuda: bool, _cudnn: bool) -> list[tuple[str, ...]]:
        return [("nvidia", "lib", "libno-such.so.1")] if cuda else []

    monkeypatch.setattr(onnxruntime, "_get_nvidia_dll_paths", paths)
    preload_cuda()
    assert "libno-such.so.1: cannot open shared object file" in caplog.text


def test_the_name_of_cudnn_is_the_one_that_onnxruntime_opens() -> None:
    [path] = onnxruntime._get_nvidia_dll_paths(is_windows=False, cuda=False, cudnn=True)
    assert path[-1] == CUDNN


@pytest.mark.parametrize("tf32", [False, True])
def test_the_provider_knows_the_options(tf32: bool) -> None:
    options = provider_options(tf32=tf32)
    words = [*options, *(value for value in options.values() if not value.isdigit())]
    with provider_library().open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert [word for word in words if content.find(word.encode() + b"\0") == -1] == []


def test_an_onnxruntime_without_cuda_is_a_problem(gpu_is_visible: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert f"no {CUDA}" in (onnx_gpu_problem() or "")


def test_a_driver_that_is_too_old_is_a_problem(gpu_is_visible: None, monkeypatch: pytest.MonkeyPatch) -> None:
    major, minor = map(int, onnxruntime.cuda_version.split("."))
    gpu = Gpu(name="NVIDIA L4", compute_capability=(8, 9), memory=1, driver="550.54.14", cuda=(major - 1, minor))
    monkeypatch.setattr("anomaly_runner.scoring.cuda_provider.list_gpus", lambda: (gpu,))
    assert "driver 550.54.14 serves" in (onnx_gpu_problem() or "")


def test_missing_libraries_are_a_problem_and_named(gpu_is_visible: None, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "libcurand.so.10: cannot open shared object file"
    monkeypatch.setattr("anomaly_runner.scoring.cuda_provider.missing_libraries", lambda: {"libcurand.so.10": words})
    assert (onnx_gpu_problem() or "").endswith(words)


def test_onnxruntime_that_goes_on_on_the_cpu_is_noticed(
    nothing_in_the_way: None, model: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    predictor = load_onnx(model, 4)
    assert predictor.provider == CPU
    assert predictor.fallback
    assert predictor.fallback in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert capfd.readouterr().out == ""


class GpuSession:
    """A session on a GPU that fails to run."""

    def __init__(self, model: Path, message: str) -> None:
        self._message = message
        self._session = onnxruntime.InferenceSession(model, providers=[CPU])
        self.shapes: list[tuple[int, ...]] = []

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_inputs(self) -> Any:
        return self._session.get_inputs()

    def run(self, _outputs: Any, images: dict[str, np.ndarray[Any, Any]]) -> Any:
        self.shapes.append(images[INPUT].shape)
        raise RuntimeError(self._message)


def open_gpu_session(monkeypatch: pytest.MonkeyPatch, session: GpuSession) -> None:
    on_cpu: Callable[..., Any] = onnx_predictor._open
    monkeypatch.setattr(onnx_predictor, "_open", lambda file, p: session if p != [CPU] else on_cpu(file, p))


def test_a_gpu_that_cannot_score_one_image_is_not_used(
    nothing_in_the_way: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = GpuSession(model, FAILED)
    open_gpu_session(monkeypatch, on_gpu)
    predictor = load_onnx(model, 4)
    assert predictor.provider == CPU
    assert (predictor.fallback or "").endswith(f": {NO_KERNEL}")
    assert on_gpu.shapes == [(1, 3, SIDE, SIDE)]
    image = np.linspace(0, 1, 3 * SIDE * SIDE, dtype=np.float32).reshape(1, 3, SIDE, SIDE)
    assert predictor.run(image)[0] == pytest.approx(image.max())


def test_a_gpu_whose_memory_runs_out_is_not_replaced_by_the_cpu(
    nothing_in_the_way: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_gpu_session(monkeypatch, GpuSession(model, NO_MEMORY))
    with pytest.raises(RuntimeError, match=NO_MEMORY):
        load_onnx(model, 4)


class WorkingGpuSession(GpuSession):
    """A session on a GPU that works; keeps which threads called it."""

    def __init__(self, model: Path) -> None:
        super().__init__(model, "")
        self.threads: set[int] = set()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def run(self, _outputs: Any, images: dict[str, np.ndarray[Any, Any]]) -> Any:
        self.threads.add(threading.get_ident())
        return self._session.run(_outputs, images)


def test_the_gpu_has_a_batch_to_work_on_and_one_that_waits_while_results_are_read(model: Path) -> None:
    taken: list[int] = []

    def batches() -> Iterator[Batch]:
        for number in range(6):
            taken.append(number)
            yield Batch((Sample(f"{number}.png", "good"),), np.full((1, 3, SIDE, SIDE), number, np.float32))

    session = WorkingGpuSession(model)
    scored = OnnxPredictor(session, 1, None).score(batches())
    before = [(len(taken), float(found.scores[0])) for found in scored]
    assert before == [(3, 0), (4, 1), (5, 2), (6, 3), (6, 4), (6, 5)]
    assert len(session.threads - {threading.get_ident()}) == len(session.threads) == 1


@pytest.mark.parametrize(("options", "tf32"), [({}, "0"), ({"tf32": True}, "1")])
def test_tf32_is_off_unless_asked_for(
    nothing_in_the_way: None, model: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], tf32: str
) -> None:
    opened = Mock(wraps=onnx_predictor._open)
    monkeypatch.setattr(onnx_predictor, "_open", opened)
    load_onnx(model, 4, **options)
    (provider, chosen), _ = opened.call_args_list[0].args[1]
    assert (provider, chosen["use_tf32"]) == (CUDA, tf32)


def test_a_file_that_is_no_model_is_not_blamed_on_the_gpu(
    nothing_in_the_way: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelInvalid, match="cannot be loaded"):
        load_onnx(tmp_path / "model.onnx", 4)
    assert caplog.text == ""
