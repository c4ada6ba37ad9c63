"""GPUs as NVML shows them, what a run asked for, and what is said where the two differ."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pynvml
import pytest

from anomaly_api.run import RunConfig
from anomaly_api.scheduling import Gpus
from anomaly_api.status import Device
from anomaly_runner import devices
from anomaly_runner.devices import asked_gpus, check_required, record_device
from anomaly_runner.errors import GpuUnavailable
from anomaly_runner.system.gpu import Gpu, GpuProblem, check_gpus, list_gpus
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID
from support import objects
from support.contexts import RUN, make_context
from support.optional import not_none

H100 = Gpu(name="NVIDIA H100 80GB HBM3", compute_capability=(9, 0), memory=80 << 30, driver="580.65.06", cuda=(13, 0))


@dataclass(frozen=True)
class FakeNvml:
    """NVML on a machine with these GPUs; replaces pynvml's functions."""

    gpus: tuple[Gpu, ...]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answers: dict[str, Callable[..., object]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: self.gpus[index],
            "nvmlSystemGetCudaDriverVersion_v2": lambda: self.gpus[0].cuda[0] * 1000 + self.gpus[0].cuda[1] * 10,
            "nvmlSystemGetDriverVersion": lambda: self.gpus[0].driver,
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetCudaComputeCapability": lambda gpu: gpu.compute_capability,
            "nvmlDeviceGetMemoryInfo": lambda gpu: type("Memory", (), {"total": gpu.memory}),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, answer)


def test_gpus_are_described_as_the_driver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml((H100, H100)).install(monkeypatch)
    assert list_gpus() == (H100, H100)


def test_a_container_without_the_driver_says_what_is_missing() -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has NVIDIA's driver")
    with pytest.raises(GpuProblem, match=r"no libnvidia-ml\.so\.1.*scheduling\.runtimeClassName"):
        list_gpus()


def test_a_driver_that_does_not_answer_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    with pytest.raises(GpuProblem, match="does not answer: RM has detected an NVML/RM version mismatch"):
        list_gpus()


def test_a_driver_that_shows_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(()).install(monkeypatch)
    with pytest.raises(GpuProblem, match="shows no GPU"):
        list_gpus()


@pytest.mark.parametrize(
    ("gpu", "complaint"),
    [
        (
            replace(H100, driver="550.54", cuda=(12, 4)),
            r"driver 550\.54 serves CUDA 12\.4; this image needs CUDA 13\.0",
        ),
        (replace(H100, name="Tesla V100", compute_capability=(7, 0)), r"Tesla V100 has compute capability 7\.0.*7\.5"),
    ],
)
def test_what_is_too_old_is_named(gpu: Gpu, complaint: str) -> None:
    with pytest.raises(GpuProblem, match=complaint):
        check_gpus((H100, gpu), cuda=(13, 2), compute_capability=(7, 5))


def test_a_driver_of_an_older_minor_version_serves_newer_libraries() -> None:
    check_gpus((H100,), cuda=(13, 2), compute_capability=(7, 5))


def config(uid: str = "u", **gpus: object) -> RunConfig:
    experiment = objects.EXPERIMENT["spec"] | ({"scheduling": {"gpus": gpus}} if gpus else {})
    return RunConfig.model_validate({"run": RUN.model_copy(update={"uid": uid}), "experiment": experiment})


def test_what_is_asked_for() -> None:
    assert asked_gpus(config()) == Gpus(count=1, required=True), "in a cluster, every pod gets a GPU by default"
    assert asked_gpus(config(count=0)) is None
    assert asked_gpus(config(uid=LOCAL_UID)) is None, "without a cluster, the default asks for nothing"
    assert asked_gpus(config(uid=LOCAL_UID, count=2)) == Gpus(count=2, required=False)


def see(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> None:
    monkeypatch.setattr(devices, "list_gpus", lambda: gpus)


def test_a_required_gpu_that_cannot_be_used_ends_the_run() -> None:
    there = make_context()
    with pytest.raises(
        GpuUnavailable, match=r"1 nvidia\.com/gpu asked for.*cannot be used: no driver.*required: false"
    ):
        record_device(there, Gpus(), "torch cpu", "no driver")
    assert there.record.device is None
    with pytest.raises(GpuUnavailable):
        check_required(Gpus(), "no driver")
    check_required(Gpus(required=False), "no driver")
    check_required(None, "no driver")


def test_a_gpu_that_is_not_required_is_missed_aloud() -> None:
    there = make_context()
    record_device(there, Gpus(required=False), "torch cpu", "no driver")
    assert there.record.device == Device(name="CPU", count=cpu_limit(), provider="torch cpu", fallback="no driver")
    assert there.record.warnings == ("1 nvidia.com/gpu asked for by scheduling.gpus cannot be used: no driver",)


def test_the_cpu_is_no_fallback_where_no_gpu_was_asked_for() -> None:
    there = make_context()
    record_device(there, None, "CPUExecutionProvider", "no driver")
    assert not_none(there.record.device).fallback is None
    assert there.record.warnings == ()


def test_the_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, H100, H100)
    there = make_context()
    record_device(there, Gpus(count=2), "torch cuda", None)
    assert there.record.device == Device(
        name="NVIDIA H100 80GB HBM3",
        count=2,
        provider="torch cuda",
        driver="580.65.06",
        cuda="13.0",
        compute_capability="9.0",
    )


def test_a_gpu_that_the_driver_does_not_describe_is_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that has CUDA's driver and no NVML."""

    def without_nvml() -> tuple[Gpu, ...]:
        raise GpuProblem("no libnvidia-ml.so.1")

    monkeypatch.setattr(devices, "list_gpus", without_nvml)
    there = make_context()
    record_device(there, Gpus(count=2), "CUDAExecutionProvider", None)
    assert there.record.device == Device(name="GPU", provider="CUDAExecutionProvider")
    assert there.record.warnings == ()


def test_the_cpu_of_a_machine_with_a_gpu_is_told_as_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, H100)
    there = make_context()
    record_device(there, Gpus(required=False), "CPUExecutionProvider", "no code for this GPU")
    found = not_none(there.record.device)
    assert (found.name, found.driver, found.fallback) == ("CPU", None, "no code for this GPU")


def test_a_long_reason_fits_into_the_status() -> None:
    there = make_context()
    record_device(there, Gpus(required=False), "torch cpu", "x" * 1000)
    assert not_none(there.record.device).fallback == "x" * 256


def test_memory_that_the_driver_does_not_know_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_supported(_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    FakeNvml((H100,)).install(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", not_supported)
    assert list_gpus() == (replace(H100, memory=0),)


def test_fewer_gpus_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, H100)
    with pytest.raises(GpuUnavailable, match=r"2 nvidia\.com/gpu asked for.*the pod sees 1 of them"):
        record_device(make_context(), Gpus(count=2), "torch cuda", None)


def test_fewer_gpus_than_asked_for_are_told_and_are_not_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, H100)
    there = make_context()
    record_device(there, Gpus(count=2, required=False), "torch cuda", None)
    found = not_none(there.record.device)
    assert (found.name, found.count, found.fallback) == (H100.name, 1, None)
    told = "2 nvidia.com/gpu asked for by scheduling.gpus cannot be used: the pod sees 1 of them"
    assert there.record.warnings == (told,)
