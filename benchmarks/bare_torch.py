"""Only the network: anomalib's torch model fed from memory, the lower bound for anything that runs it in torch.

Gradient models take the same optimiser steps as the benchmark's other sides; PaDiM and PatchCore pass each training
image through the backbone once. Then every test image is scored (PaDiM and PatchCore: passed through the backbone).
Run by runner_experiment.py in a separate process; prints ``{"train": SECONDS, "predict": SECONDS}`` last.
"""

import json
import sys
import time
import warnings
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


def read(files: list[Path], side: int) -> Tensor:
    """Read images as float32 (N, 3, side, side), 0..1."""
    opened = (Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BILINEAR) for file in files)
    return torch.stack([torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1) for image in opened])


def one_pass(module: Any, images: Tensor, batch: int, _: int, __: Path) -> Network:
    """Pass the images through the backbone, and return it."""
    network: Network = module.model.feature_extractor.eval()
    with torch.inference_mode():
        for part in torch.split(images, batch):
            network(part)
    return network


def fastflow(module: Any, images: Tensor, batch: int, epochs: int, _: Path) -> Network:
    """Train with Adam on the flow's loss, and return the network."""
    network: Network = module.model.train()
    loss, adam = module.loss, module.configure_optimizers()
    for _epoch in range(epochs):
        for part in torch.split(images, batch):
            adam.zero_grad()
            loss(*network(part)).backward()
            adam.step()
    return network.eval()


def efficientad(module: Any, images: Tensor, batch: int, epochs: int, folder: Path) -> Network:
    """Pass the images through the teacher, then train student and autoencoder with Adam, and return the network."""
    model = module.model.train()
    module.prepare_pretrained_model()
    files = sorted((folder / "weights/datasets/imagenette").rglob("*.jpg"))
    photographs = cycle(read(files, images.shape[-1]).to(images.device)[:, None])
    adam = torch.optim.Adam([*model.student.parameters(), *model.ae.parameters()], lr=module.lr)
    with torch.inference_mode():
        for part in torch.split(images, batch):
            model.teacher(part)
    for _epoch in range(epochs):
        for part in torch.split(images, batch):
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
    images, tests = (read(sorted(root.joinpath(part).rglob("*.png")), side) for part in ("train", "test"))
    module = build(name, side, False, folder)
    began = time.perf_counter()
    network = TRAINERS[name](module, images, batch, int(epochs), folder)
    trained = time.perf_counter()
    with torch.inference_mode():
        for part in torch.split(tests, 32):
            network(part)
    print(json.dumps({"train": trained - began, "predict": time.perf_counter() - trained}))


if __name__ == "__main__":
    main()
