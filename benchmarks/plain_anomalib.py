"""One experiment as anomalib's documentation shows it: Folder, ``Engine.fit``, ``Engine.test``, ``Engine.export``.

``fit`` also validates, which finds the threshold: validations are clocked by themselves, and are no part of ``train``.
Run by runner_experiment.py in a separate process; prints the seconds of ``train``, ``validate``, ``predict`` (with the
pictures, where they are drawn) and ``export`` as JSON last.
"""

import json
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.networks import arguments

warnings.simplefilter("ignore")


def build(name: str, side: int, pictures: bool, folder: Path, given: Mapping[str, Any] | None = None) -> Any:
    """Build a model with its own pre-processing and image metrics only, as there are no masks.

    ``given`` replaces the constructor's arguments that the benchmarks share.
    """
    import anomalib.models
    from anomalib.metrics import AUROC, Evaluator, F1Score

    metrics = [AUROC(fields=["pred_score", "gt_label"]), F1Score(fields=["pred_label", "gt_label"])]
    kind = {"padim": "Padim", "patchcore": "Patchcore", "fastflow": "Fastflow", "efficientad": "EfficientAd"}[name]
    model = getattr(anomalib.models, kind)
    extra = {"imagenet_dir": folder / "weights/datasets/imagenette"} if name == "efficientad" else {}
    pre_processor = model.configure_pre_processor((side, side))
    return model(
        **(given or arguments(name)),
        **extra,
        pre_processor=pre_processor,
        visualizer=pictures,
        evaluator=Evaluator(test_metrics=metrics),
    )


def digits(folder: Path, batch: int) -> Any:
    """Return the data module of the images below data/mnist; nines are good."""
    from anomalib.data import Folder

    return Folder(
        name="mnist",
        root=folder / "data/mnist",
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=[f"test/{digit}" for digit in range(9)],
        num_workers=2,
        train_batch_size=batch,
        eval_batch_size=32,
        val_split_mode="same_as_test",
    )


def engine(folder: Path, **options: Any) -> Any:
    """Return anomalib's Engine, without logger and progress bar."""
    from anomalib.engine import Engine

    return Engine(default_root_dir=folder / "anomalib", logger=False, enable_progress_bar=False, **options)


def validation_clock() -> Any:
    """A callback whose ``seconds`` are those of all validations.

    A memory bank's coreset is picked when a validation starts, in a hook before its first epoch's: that is training.
    """
    from lightning import Callback

    class Clock(Callback):  # type: ignore[misc]
        seconds = began = 0.0

        def on_validation_epoch_start(self, *_: object) -> None:
            self.began = time.perf_counter()

        def on_validation_end(self, *_: object) -> None:
            self.seconds += time.perf_counter() - self.began

    return Clock()


def main() -> None:
    """Train, test, export."""
    name, folder, side, batch, epochs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    pictures = sys.argv[6] == "pictures"
    from anomalib.deploy import ExportType
    from lightning import seed_everything

    seed_everything(42)
    data = digits(folder, batch)
    model = build(name, side, pictures, folder)
    bound = {"max_epochs": int(epochs)} if int(epochs) else {}
    clock = validation_clock()
    trainer = engine(folder, callbacks=[clock], **bound)
    began = time.perf_counter()
    trainer.fit(model=model, datamodule=data)
    fitted = time.perf_counter()
    validated = clock.seconds
    trainer.test(model=model, datamodule=data, verbose=False)
    tested = time.perf_counter()
    trainer.export(model=model, export_type=ExportType.ONNX)
    exported = time.perf_counter()
    seconds = {"train": fitted - began - validated, "validate": validated}
    print(json.dumps(seconds | {"predict": tested - fitted, "export": exported - tested}))


if __name__ == "__main__":
    main()
