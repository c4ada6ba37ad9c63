"""Inference with anomalib in its three ways: ``Engine.predict``, ``TorchInferencer`` and ``OpenVINOInferencer``.

Run by inference_runtimes.py, each command in a separate process. ``engine`` scores batches of a folder with a
checkpoint; ``torch`` and ``openvino`` score one file after the other with an export, as their documentation shows. None
draws pictures or writes anything. ::

    python -m benchmarks.anomalib_inference train|engine|torch|openvino MODEL FOLDER SIDE ARGUMENTS [IMAGES]
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.networks import BATCHES
from benchmarks.plain_anomalib import build, digits, engine

warnings.simplefilter("ignore")
BATCH = 32


def main() -> None:
    """Run one command."""
    command, name, folder, side, given = sys.argv[1:6]
    root = Path(folder)
    os.chdir(root)  # OpenVINO's inferencer makes its cache in the working directory
    if command == "train":
        train(build(name, int(side), pictures=False, folder=root, given=json.loads(given)), name, root)
    elif command == "engine":
        model = build(name, int(side), pictures=False, folder=root, given=json.loads(given))
        by_engine(model, root, Path(sys.argv[6]), int(side))
    else:
        one_by_one(INFERENCERS[command](root), Path(sys.argv[6]))


def train(model: Any, name: str, folder: Path) -> None:
    """Train for two steps, or one pass over the images; write anomalib.ckpt and the exports below anomalib/weights."""
    from anomalib.deploy import ExportType

    bound = {} if model.trainer_arguments.get("max_epochs") == 1 else {"max_steps": 2}  # one pass for a memory bank
    trainer = engine(folder, **bound)
    trainer.fit(model=model, datamodule=digits(folder, BATCHES.get(name, BATCH)))
    trainer.trainer.save_checkpoint(folder / "anomalib.ckpt")
    for kind in (ExportType.TORCH, ExportType.OPENVINO):
        trainer.export(model=model, export_type=kind, export_root=folder / "anomalib")


def by_engine(model: Any, folder: Path, images: Path, side: int) -> None:
    """Score all images of a folder, in batches."""
    from anomalib.data import PredictDataset
    from torch.utils.data import DataLoader

    dataset = PredictDataset(path=images, image_size=(side, side))
    loader = DataLoader(dataset, batch_size=BATCH, num_workers=2, collate_fn=dataset.collate_fn)
    engine(folder).predict(
        model=model, dataloaders=loader, ckpt_path=folder / "anomalib.ckpt", return_predictions=False
    )


def torch_inferencer(folder: Path) -> Any:
    """anomalib's inferencer of its pickled export."""
    from anomalib.deploy import TorchInferencer

    os.environ["TRUST_REMOTE_CODE"] = "1"
    return TorchInferencer(folder / "anomalib/weights/torch/model.pt", device="cpu")


def openvino_inferencer(folder: Path) -> Any:
    """anomalib's inferencer of its OpenVINO export."""
    from anomalib.deploy import OpenVINOInferencer

    return OpenVINOInferencer(folder / "anomalib/weights/openvino/model.xml", device="CPU")


INFERENCERS: dict[str, Callable[[Path], Any]] = {"torch": torch_inferencer, "openvino": openvino_inferencer}


def one_by_one(inferencer: Any, images: Path) -> None:
    """Score one file after the other."""
    import torch

    with torch.inference_mode():
        for file in sorted(images.iterdir()):
            inferencer.predict(file)


if __name__ == "__main__":
    main()
