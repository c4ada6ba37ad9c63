"""PatchCore's search of its memory bank at prediction: milliseconds of one CPU an image, beside the backbone's.

EfficientNet-Lite0 with random weights at 256 px (1,024 patches of 152 numbers). Banks are made of its own patches of
random images. Torch is what scores an experiment's images, onnxruntime an inference's. ::

    python -m benchmarks.bank_search [--rows N ...] [--backbone NAME --layers NAME ...] [--write]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from anomaly_api.parameters import PatchcoreParameters
from anomaly_runner.exporting.onnx_writer import write_onnx
from anomaly_runner.models.compiled import CompiledNetwork
from anomaly_runner.models.memory_models import build_memory_model
from anomaly_runner.models.nearest import nearest_rows
from anomaly_runner.models.patchcore import Patchcore
from anomaly_runner.models.threads import TorchThreads
from benchmarks.tables import Spread, Table, add_write, publish

SIDE, IMAGES, REPEATS = 256, 2, 5


def milliseconds(function: Callable[[], object]) -> Spread:
    """CPU times of an image: other programs on the machine do not count."""
    function()
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        function()
        found.append(time.process_time() - began)
    return Spread.of([1000 * seconds / IMAGES for seconds in found])


def earlier_search(patches: Tensor, bank: Tensor) -> Tensor:
    """The search as it was: several passes over the distances of 512 patches to all rows."""
    found = []
    for part in torch.split(patches, 512):
        squared = torch.matmul(part, bank.t()).mul_(-2)
        found.append(squared.add_(part.pow(2).sum(1, keepdim=True)).add_(bank.pow(2).sum(1)).min(1).indices)
    return torch.cat(found)


def in_onnxruntime(model: Patchcore, images: Tensor) -> Callable[[], object]:
    """The exported model, on one CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(model, images, Path(folder))
        file = Path(folder) / "model.onnx"
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"input": images.numpy()})


def main() -> None:
    """Print a line for each bank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--layers", nargs="+", default=["blocks.2", "blocks.4"])
    add_write(parser)
    arguments = parser.parse_args()
    chosen = PatchcoreParameters(backbone=arguments.backbone, layers=tuple(arguments.layers), pre_trained=False)
    model = build_memory_model(chosen, (SIDE, SIDE), TorchThreads(torch.device("cpu")), None).eval()
    assert isinstance(model, Patchcore)
    images = torch.randn(IMAGES, 3, SIDE, SIDE)
    with torch.inference_mode():
        backbone = CompiledNetwork(model.backbone.network)
        alone = milliseconds(lambda: backbone(images))
        patches = model.embed(images)
        lines = []
        for rows in arguments.rows:
            # as different from each other as patches are
            noise = patches.std(0) * 0.1 * torch.randn(rows, patches.shape[1])
            model.memory_bank = patches[torch.randint(len(patches), (rows,))] + noise
            lines.append([f"{rows:,}", alone.text(" ms"), *row(model, images, patches)])
    columns = ("Rows", "Backbone", "Search, torch", "as before", "same rows", "ONNX, backbone and search")
    table = Table(
        "bank-search", columns, lines, ("anomaly-operator", "torch", "onnxruntime-gpu"), f"{REPEATS} runs each."
    )
    publish([table], arguments.write)


def row(model: Patchcore, images: Tensor, patches: Tensor) -> list[str]:
    """The times of a bank."""
    bank = model.memory_bank
    same = float((nearest_rows(patches, bank) == earlier_search(patches, bank)).float().mean())
    now = milliseconds(lambda: nearest_rows(patches, bank))
    before = milliseconds(lambda: earlier_search(patches, bank))
    exported = milliseconds(in_onnxruntime(model, images))
    return [now.text(" ms"), before.text(" ms"), f"{same:.2%}", exported.text(" ms")]


if __name__ == "__main__":
    main()
