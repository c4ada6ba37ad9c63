"""PatchCore's coreset on the device, beside anomalib's there and beside ours on the CPU: points picked a second.

The patches are those of gravel in a ResNet-18 with random weights. Run by ``__main__`` in a process of its own.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anomaly_api.parameters import PatchcoreParameters
from anomaly_runner.models.coreset import k_center_greedy, projected
from anomaly_runner.models.memory_models import build_memory_model
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.system.machine import cpu_limit
from benchmarks.gpu.pictures import picture
from benchmarks.gpu.run import parsed, report
from hack.gpu.results import Measurement

SEED = 0
ON_CPU = 8
"""The CPU picks this many times fewer points."""


def main() -> None:
    """Measure all sides."""
    options = parsed()
    images = torch.stack([_input(index, options.side) for index in range(options.train)])
    patches = _patches(images, options.device)
    count = max(16, len(patches) // 100)
    sides: dict[str, tuple[Callable[[Tensor, int], object], Tensor, int]] = {
        "ours": (_ours, patches, count),
        "anomalib": (_anomalib, patches, count),
    }
    if options.device.type == "cuda":
        sides["ours on the CPU"] = (_ours, patches.cpu(), max(16, count // ON_CPU))
    for name, (pick, points, wanted) in sides.items():
        pick(points[:2000], 16)  # the first call loads kernels
        began = time.perf_counter()
        pick(points, wanted)
        seconds = time.perf_counter() - began
        note = f"{wanted} of {len(points)} patches"
        values = {"seconds": seconds, "picked/s": wanted / seconds}
        report(options, Measurement("PatchCore's coreset", f"{len(images)} images", name, values, note))


def _input(number: int, side: int) -> Tensor:
    return torch.from_numpy(np.asarray(picture(number, side), np.float32) / 255).permute(2, 0, 1)


def _patches(images: Tensor, device: torch.device) -> Tensor:
    parameters = PatchcoreParameters(backbone="resnet18", layers=("layer2", "layer3"), pre_trained=False)
    size = (images.shape[-2], images.shape[-1])
    torch.manual_seed(SEED)
    model = build_memory_model(parameters, size, TorchThreads(device), None).to(device).eval()
    torch.set_num_threads(cpu_limit())
    with torch.inference_mode():
        return torch.cat([model.embed(part.to(device)) for part in torch.split(images, 32)])


def _ours(patches: Tensor, count: int) -> None:
    torch.manual_seed(SEED)
    with torch.inference_mode():
        k_center_greedy(projected(patches, SEED), count, lambda _: None, TorchThreads(patches.device)).cpu()


def _anomalib(patches: Tensor, count: int) -> None:
    from anomalib.models.components import KCenterGreedy

    torch.manual_seed(SEED)
    with torch.inference_mode():
        KCenterGreedy(embedding=patches, sampling_ratio=(count + 0.5) / len(patches)).select_coreset_idxs()


if __name__ == "__main__":
    main()
