"""The device that does a run's work: recorded for status, report and tracker, and compared with what was asked for.

A pod that was given a GPU and cannot use it holds the GPU while the CPU works a hundred times longer: it ends at once,
unless its resource says that it may go on.
"""

from anomaly_api.run import RunConfig
from anomaly_api.scheduling import Gpus
from anomaly_api.status import Device
from anomaly_runner.context import About, Context
from anomaly_runner.errors import GpuUnavailable
from anomaly_runner.system.gpu import Gpu, GpuProblem, dotted, list_gpus
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID

_MAX_FALLBACK_CHARACTERS = 256
_CPU = "CPU"
_FIRST_WITH_TF32 = 8
"""Ampere, by the major number of its compute capability (CUDA C++ programming guide)."""
_WITH_TF32 = f"GPUs since compute capability {_FIRST_WITH_TF32}.0"


def asked_gpus(config: RunConfig) -> Gpus | None:
    """The GPUs that a run was given in a cluster, or asks for elsewhere; None where it asks for none.

    A run without a cluster was given nothing, so that it takes what there is, and only what its manifest asks for in so
    many words counts as asked for.
    """
    scheduling = config.spec.scheduling
    if scheduling.gpus.count == 0:
        return None
    if config.run.uid != LOCAL_UID:
        return scheduling.gpus
    asks = "gpus" in scheduling.model_fields_set
    return scheduling.gpus.model_copy(update={"required": False}) if asks else None


def record_device(context: Context, asked: Gpus | None, provider: str, problem: str | None) -> None:
    """Record what does the work, and warn where it is not the GPU that was asked for.

    Args:
        context: takes the device and the warning.
        asked: as ``asked_gpus`` says.
        provider: what executes the model, as predictors name it.
        problem: why no GPU does; None if one does.

    Raises:
        GpuUnavailable: the GPU is required.
    """
    gpus = _visible_gpus()
    if asked and problem is None and 0 < len(gpus) < asked.count:
        problem = f"the pod sees {len(gpus)} of them"
    check_required(asked, problem)
    if asked and problem:
        context.record.warn(_describe(asked, problem))
    context.record.device = _device(gpus, provider, problem if asked else None)


def warn_without_tf32(context: Context) -> None:
    """Warn that TensorFloat-32 was asked for and the device that is recorded does not have it."""
    device = context.record.device
    if device and not _has_tf32(device):
        context.record.warn(
            f"precision: tf32 has no effect on this {device.name}: it is a mode of {_WITH_TF32}", about=About.EXTRAS
        )


def _has_tf32(device: Device) -> bool:
    if device.name == _CPU:
        return False
    capability = device.compute_capability  # unknown without NVML
    return capability is None or int(capability.partition(".")[0]) >= _FIRST_WITH_TF32


def _visible_gpus() -> tuple[Gpu, ...]:
    try:
        return list_gpus()
    except GpuProblem:
        return ()


def check_required(asked: Gpus | None, problem: str | None) -> None:
    """Check that there is nothing that keeps a run from GPUs that it requires.

    Raises:
        GpuUnavailable: there is.
    """
    if asked and asked.required and problem:
        raise GpuUnavailable(f"{_describe(asked, problem)} (scheduling.gpus.required: false would go on without)")


def _describe(asked: Gpus, problem: str) -> str:
    return f"{asked.count} {asked.resource_name} asked for by scheduling.gpus cannot be used: {problem}"


def _device(gpus: tuple[Gpu, ...], provider: str, problem: str | None) -> Device:
    if "cuda" not in provider.lower():
        fallback = problem and problem[:_MAX_FALLBACK_CHARACTERS]
        return Device(name=_CPU, count=cpu_limit(), provider=provider, fallback=fallback)
    if not gpus:  # CUDA works, but the container has no NVML: NVIDIA_DRIVER_CAPABILITIES lacks "utility"
        return Device(name="GPU", provider=provider)
    return Device(
        name=gpus[0].name,
        count=len(gpus),
        provider=provider,
        driver=gpus[0].driver,
        cuda=dotted(gpus[0].cuda),
        compute_capability=dotted(gpus[0].compute_capability),
    )
