"""Only the network: anomalib's torch model over inputs in memory, what anything that runs it in torch cannot go below.

Gradient models take the same optimiser steps as the benchmark's other sides; PaDiM and PatchCore pass as many training
images through the backbone. Then as many test images are scored (PaDiM and PatchCore: passed through the backbone).
At most KEPT images are read, before the clock begins, and used again and again, so that memory says nothing here.
Run by runner_experiment.py in a separate process; prints ``{"train": SECONDS, "predict": SECONDS}`` last.
"""

import json
import sys
import time
import warnings
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.plain_anomalib import build

warnings.simplefilter("ignore")
Network = torch.nn.Module
EVAL_BATCH = 32
KEPT = 128
"""Most images of a kind that are in memory."""


def read(files: list[Path], side: int) -> Tensor:
    """Read images as float32 (N, 3, side, side), 0..1."""
    opened = (Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BILINEAR) for file in files)
    return torch.stack([torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1) for image in opened])


def batches(files: list[Path], side: int, batch: int) -> list[Tensor]:
    """As many images as there are files, in batches that share the memory of the first ones."""
    kept = torch.split(read(files[: max(KEPT // batch, 1) * batch], side), batch)
    whole = [kept[place % len(kept)] for place in range(-(-len(files) // batch))]
    return [*whole[:-1], whole[-1][: (len(files) - 1) % batch + 1]]


def one_pass(module: Any, images: Sequence[Tensor], _: int, __: Path) -> Network:
    """Pass the images through the backbone, and return it."""
    network: Network = module.model.feature_extractor.eval()
    with torch.inference_mode():
        for part in images:
            network(part)
    return network


def fastflow(module: Any, images: Sequence[Tensor], epochs: int, _: Path) -> Network:
    """Train with Adam on the flow's loss, and return the network."""
    network: Network = module.model.train()
    loss, adam = module.loss, module.configure_optimizers()
    for _epoch in range(epochs):
        for part in images:
            adam.zero_grad()
            loss(*network(part)).backward()
            adam.step()
    return network.eval()


def efficientad(module: Any, images: Sequence[Tensor], epochs: int, folder: Path) -> Network:
    """Pass the images through the teacher, then train student and autoencoder with Adam, and return the network."""
    model = module.model.train()
    module.prepare_pretrained_model()
    files = sorted((folder / "weights/datasets/imagenette").rglob("*.jpg"))
    photographs = cycle(read(files, images[0].shape[-1]).to(images[0].device)[:, None])
    adam = torch.optim.Adam([*model.student.parameters(), *model.ae.parameters()], lr=module.lr)
    with torch.inference_mode():
        for part in images:
            model.teacher(part)
    for _epoch in range(epochs):
        for part in images:
            adam.zero_grad()
            sum(model(batch=part, batch_imagenet=next(photographs))).backward()
            adam.step()
    network: Network = model.eval()
    return network


TRAINERS = {"padim": one_pass, "patchcore": one_pass, "fastflow": fastflow, "efficientad": efficientad}


def main() -> None:
    """Train, then score."""
    name, folder, side, batch, epochs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    root = folder / "data/mnist"
    images, tests = (
        batches(sorted(root.joinpath(part).rglob("*.png")), side, size)
        for part, size in (("train", batch), ("test", 32))
    )
    module = build(name, side, False, folder)
    began = time.perf_counter()
    network = TRAINERS[name](module, images, int(epochs), folder)
    trained = time.perf_counter()
    with torch.inference_mode():
        for part in tests:
            network(part)
    print(json.dumps({"train": trained - began, "predict": time.perf_counter() - trained}))


if __name__ == "__main__":
    main()
