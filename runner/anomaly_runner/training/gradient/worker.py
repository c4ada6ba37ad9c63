"""``python -m anomaly_runner.training.gradient.worker DESCRIPTOR``: a process that trains on one of the other devices.

It gets the decoded images and the module's state from rank 0, and knows nothing of the run's storage, status and
tracking. See ``workers`` for how it is started, and why the object that it unpickles can be trusted.
"""

import os
import pickle
import sys
import threading

import torch
from torch import distributed as dist
from torch._C._distributed_c10d import FileStore

from anomaly_api.reasons import ExitCode
from anomaly_runner.models.anomalib_model import build_module, without_pretrained_weights
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.training.gradient.data_module import DecodedImages, ImageDataModule
from anomaly_runner.training.gradient.ddp import EpochSeed, GradientSync, init_process_group
from anomaly_runner.training.gradient.fit import (
    FitContext,
    build_trainer,
    quiet_libraries,
    skip_preparation,
    training_arithmetic,
    training_threads,
)
from anomaly_runner.training.gradient.worker_spec import WorkerSpec
from anomaly_runner.training.gradient.workers import ready_key


def run_worker(spec: WorkerSpec, descriptor: int) -> None:
    """Take part in a training until its end.

    Args:
        spec: the training, and this process's rank in it.
        descriptor: of the open file with the decoded training images.
    """
    device, plan = TorchThreads(spec.device).device, spec.plan
    # the module's weights come from rank 0 or from the checkpoint, so no pre-trained weights are loaded
    torch.manual_seed(plan.seed)
    with without_pretrained_weights():
        module = build_module(spec.model, spec.options)
    if spec.checkpoint:
        skip_preparation(module, plan)
    images = DecodedImages.from_descriptor(spec.samples, spec.options.size, descriptor)
    data = ImageDataModule(
        images,
        images,  # never read: only rank 0 validates
        seed=plan.seed,
        train_batch_size=plan.batch_size,
        eval_batch_size=1,
        read_augmented=spec.read_augmented,
        for_gpu=device.type == "cuda",
    )
    context = FitContext(device=device, work=spec.work, advance=lambda _: None, log_metrics=lambda *_: None)
    store = FileStore(str(spec.rendezvous_file), plan.devices)
    store.set(ready_key(spec.rank), "")
    init_process_group(store, spec.partition, device)
    gradient_sync = GradientSync(spec.partition, plan.batch_size, data.training_count, lambda: None)
    with training_threads(plan.devices), quiet_libraries(), training_arithmetic(plan):
        trainer = build_trainer(plan, context, [EpochSeed(plan.seed, spec.rank), gradient_sync], validates=False)
        trainer.fit(module, datamodule=data, ckpt_path=spec.checkpoint, weights_only=True)
    dist.destroy_process_group()


def _exit_with_parent() -> None:
    """End this process when its parent ends for any reason: standard input is closed then."""
    os.read(sys.stdin.fileno(), 1)  # not through sys.stdin.buffer: the interpreter's shutdown would wait for its lock
    os._exit(ExitCode.STOPPED)


def main() -> None:
    """Read the WorkerSpec from standard input, and run it."""
    spec = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the pipe of the process that started this one
    threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()
    run_worker(spec, int(sys.argv[1]))


if __name__ == "__main__":
    main()
