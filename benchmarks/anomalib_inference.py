"""Inference as anomalib's documentation shows it: ``Engine.predict`` over a folder, with its own checkpoint.

Run by inference_runtimes.py, ``train`` and ``predict`` each in a separate process; ``predict`` prints the seconds of
the loop last. It draws no pictures, and neither does the runner in that benchmark. ::

    python -m benchmarks.anomalib_inference train|predict MODEL FOLDER SIDE ARGUMENTS [IMAGES]
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.plain_anomalib import build, digits, engine

warnings.simplefilter("ignore")
BATCH = 32


def main() -> None:
    """Run ``train`` or ``predict``."""
    what, name, folder, side = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    model = build(name, side, pictures=False, folder=folder, given=json.loads(sys.argv[5]))
    if what == "train":
        train(model, folder, batch=1 if name == "efficientad" else BATCH)
    else:
        print("seconds", predict(model, folder, Path(sys.argv[6]), side))


def train(model: Any, folder: Path, batch: int) -> None:
    """Train for two steps, or one pass over the images, and write the checkpoint anomalib.ckpt."""
    bound = {} if model.trainer_arguments.get("max_epochs") == 1 else {"max_steps": 2}  # one pass for a memory bank
    trainer = engine(folder, **bound)
    trainer.fit(model=model, datamodule=digits(folder, batch))
    trainer.trainer.save_checkpoint(folder / "anomalib.ckpt")


def predict(model: Any, folder: Path, images: Path, side: int) -> float:
    """Return the seconds for all images of a folder."""
    from anomalib.data import PredictDataset
    from torch.utils.data import DataLoader

    dataset = PredictDataset(path=images, image_size=(side, side))
    loader = DataLoader(dataset, batch_size=BATCH, num_workers=2, collate_fn=dataset.collate_fn)
    trainer, state = engine(folder), folder / "anomalib.ckpt"
    began = time.perf_counter()
    trainer.predict(model=model, dataloaders=loader, ckpt_path=state, return_predictions=False)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
