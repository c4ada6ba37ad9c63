"""The step check of an experiment: what training would find out before and while it reads its first images."""

import logging
import math
from dataclasses import dataclass

import torch

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import RunConfig
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context
from anomaly_runner.data.batches import IntegrityLog
from anomaly_runner.data.builtin import PUBLISHED, files_of
from anomaly_runner.data.fetch import ListedDataset, list_experiment
from anomaly_runner.evaluation.left_out import without_defects
from anomaly_runner.evaluation.thresholds import check_goal
from anomaly_runner.models.backbone import check_on_hub
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.models.check import check_spec
from anomaly_runner.models.device import choose_device
from anomaly_runner.models.memory_models import MemoryParameters, build_memory_model
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.models.weights import find_weights, wanted_weights
from anomaly_runner.preflight.checked import Checked, passed
from anomaly_runner.preflight.images import look_at_images
from anomaly_runner.preflight.output import check_output
from anomaly_runner.system.machine import available_memory, gigabytes, give_back_freed_memory, used_memory
from anomaly_runner.system.quantity import parse_quantity
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID
from anomaly_runner.training.inputs import experiment_preprocessor
from anomaly_runner.training.memory_check import check_host_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Machine:
    """What the training will run on.

    Attributes:
        gpus: number of GPUs that it will see.
        threads: its device and threads.
        limit: bytes of memory that it may take; None if nothing limits it.
    """

    gpus: int
    threads: TorchThreads
    limit: int | None


def check_experiment(config: RunConfig, spec: ExperimentSpec, context: Context) -> Checked:
    """Check an experiment without training, in the order in which its run would find out what is wrong.

    Args:
        config: the run's configuration.
        spec: the experiment in ``config``.
        context: stores, progress and stopping; its tracker is asked, and starts no run.

    Raises:
        RunFailed: what the run would end with.
    """
    machine, unchecked = _this_machine() if config.run.uid == LOCAL_UID else _training_pod(spec), list[str]()
    check_spec(spec, machine.gpus)
    listed = _list(spec, context, unchecked)
    if listed is not None:
        check_goal(spec.evaluation.threshold, listed.dataset)
    _check_weights(spec, context, unchecked)
    integrity = IntegrityLog(spec.dataset.limits)
    if listed is not None:
        integrity.extend_unreadable(listed.dataset.unreadable)
    if silence := context.tracker.probe(context.stop.check):
        unchecked.append(silence)
    _check_model(spec, machine, listed, unchecked)
    give_back_freed_memory()  # the model's, before images take theirs
    if listed is not None:
        look_at_images(listed, experiment_preprocessor(spec, listed.valid_area), integrity, context)
    return passed(
        listed.dataset if listed else None,
        context,
        with_masks=spec.dataset.task == "segmentation",
        left_out=_left_out(spec, listed),
        unchecked=unchecked,
        listing=check_output(listed, context),
    )


def _left_out(spec: ExperimentSpec, listed: ListedDataset | None) -> str:
    """What the run will not measure; empty if it measures all that it is asked for, or if that is not known."""
    if listed is None or any(sample.defect for sample in listed.dataset.test):
        return ""
    metrics = spec.evaluation.metrics.of_task(spec.dataset.task)
    return without_defects(metrics, localises=CATALOG[spec.model.name].localises)


def _this_machine() -> _Machine:
    """This machine, where a run without a cluster trains."""
    return _Machine(torch.cuda.device_count(), TorchThreads(choose_device().device), available_memory() + used_memory())


def _training_pod(spec: ExperimentSpec) -> _Machine:
    """The pod that will train. Where no limit tells its number of CPUs, it is taken for one, which needs least."""
    limits, gpus = spec.scheduling.resources.limits or {}, spec.scheduling.gpus.count
    cpus = max(1, math.ceil(parse_quantity(limits.get("cpu", "1"))))
    memory = limits.get("memory")
    return _Machine(
        gpus,
        TorchThreads(torch.device("cuda" if gpus else "cpu"), cpus=cpus),
        None if memory is None else int(parse_quantity(memory)),
    )


def _list(spec: ExperimentSpec, context: Context, unchecked: list[str]) -> ListedDataset | None:
    """List the images; None for a builtin dataset, which is not downloaded for a check."""
    builtin = spec.dataset.source.builtin
    if builtin is None:
        return list_experiment(spec, context)
    megabytes = sum(file.size for file in files_of(builtin, PUBLISHED)) >> 20
    unchecked.append(f"the images of {builtin.name}, of which the run itself downloads {megabytes} MB")
    return None


def _check_weights(spec: ExperimentSpec, context: Context, unchecked: list[str]) -> None:
    """Check that the weights are where the run will look for them, without downloading them.

    Raises:
        WeightsNotFound: they are not.
        StorageDenied, StorageUnavailable: the cache of weights cannot be read.
    """
    parameters, store = spec.model.parameters, context.stores.get(LocationRole.WEIGHTS)
    if store is not None:
        found = find_weights(store, wanted_weights(spec.model))
        logger.info("weights are there", extra={"files": len(found), "bytes": sum(info.size for info in found)})
    elif isinstance(parameters, MemoryParameters) and parameters.pre_trained:
        size = check_on_hub(parameters.backbone)
        logger.info("weights are on the hub", extra={"backbone": parameters.backbone, "bytes": size})
    elif wanted_weights(spec.model):
        unchecked.append("the weights, which the run itself downloads from the internet")


def _check_model(spec: ExperimentSpec, machine: _Machine, listed: ListedDataset | None, unchecked: list[str]) -> None:
    """Build a model that is implemented in this project, without its weights, and estimate its memory.

    Raises:
        InvalidConfig: the backbone does not support the parameters.
        OutOfMemory: the training would not fit into its memory.
    """
    parameters, size = spec.model.parameters, spec.transforms.input_size
    if not isinstance(parameters, MemoryParameters):
        unchecked.append(f"memory (there is no estimate for {spec.model.name})")
        return
    untrained = parameters.model_copy(update={"pre_trained": False})
    model = build_memory_model(untrained, (size.height, size.width), machine.threads, spec.model.tiling).eval()
    if listed is None:
        unchecked.append("memory, which depends on the number of images")
    elif machine.limit is None:
        unchecked.append("memory (there is no scheduling.resources.limits.memory)")
    else:
        _check_memory(model, spec, machine, machine.limit, len(listed.dataset.train))
        if machine.threads.device.type == "cuda":
            unchecked.append("the memory of the GPU")


def _check_memory(model: MemoryModel, spec: ExperimentSpec, machine: _Machine, limit: int, images: int) -> None:
    """Check the training's memory against its limit.

    What this process holds by now, for its libraries and the model's weights, a process that trains holds as well.

    Raises:
        OutOfMemory: it needs more than that.
    """
    free = limit - used_memory()
    check_host_memory(model, spec, images, machine.threads, free)
    logger.info("by the estimate, the training fits into the %s of memory that are left to it", gigabytes(free))
