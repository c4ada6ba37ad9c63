"""``python -m anomaly_runner.training.gradient.follower DESCRIPTOR``: one of the processes that train beside the first.

It has the images that the first process has decoded, and the module's state from it; of the run's storage, status and
tracking it knows nothing.
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
from anomaly_runner.training.gradient.fit import Surroundings, make_trainer, quiet, skip_preparing, training_threads
from anomaly_runner.training.gradient.followers import ready
from anomaly_runner.training.gradient.images import DecodedImages, ImageData
from anomaly_runner.training.gradient.order import Order
from anomaly_runner.training.gradient.together import Together, join


def follow(order: Order, descriptor: int) -> None:
    """Train along, up to the end of the training."""
    device, plan = TorchThreads(order.device).device, order.plan
    torch.manual_seed(plan.seed)
    with without_pretrained_weights():
        module = build_module(order.model, order.built_for)
    if order.state:
        skip_preparing(module, plan)
    images = DecodedImages.opened(order.samples, order.built_for.size, descriptor)
    data = ImageData(
        images, images, seed=plan.seed, train_batch_size=plan.batch_size, eval_batch_size=1, augmented=order.augmented
    )
    around = Surroundings(device, order.work, lambda _: None, lambda *_: None)
    store = FileStore(str(order.meeting), plan.devices)
    store.set(ready(order.rank), "")
    join(store, order.share, device)
    together = Together(order.share, plan.batch_size, data.training_count, lambda: None)
    with training_threads(device, plan.devices), quiet():
        trainer = make_trainer(plan, around, [together], validates=False)
        trainer.fit(module, datamodule=data, ckpt_path=order.state, weights_only=True)
    dist.destroy_process_group()


def _end_with_the_first() -> None:
    """Standard input ends when the first process does, whatever it dies of."""
    os.read(sys.stdin.fileno(), 1)  # not by the buffer, whose lock the interpreter would wait for when it ends
    os._exit(ExitCode.STOPPED)


def main() -> None:
    """Read the order, then follow it."""
    order = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    threading.Thread(target=_end_with_the_first, name="parent", daemon=True).start()
    follow(order, int(sys.argv[1]))


if __name__ == "__main__":
    main()
