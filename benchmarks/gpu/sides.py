"""Three ways to train a model and to score images with it: this runner, anomalib's Engine, and the network alone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml

from anomaly_api.status import Stage
from anomaly_runner.context import Context
from anomaly_runner.local import run_locally
from anomaly_runner.system.machine import cpu_limit
from benchmarks import bare_torch, networks
from benchmarks.plain_anomalib import build, engine

RESULTS = "results/bench/bench/local"
EVAL_BATCH = 32
CORESET_RATIO = 0.01
"""Of PatchCore: the default of 0.1 would take most of the benchmark's time, and coreset.py measures it by itself."""


@dataclass(frozen=True)
class Task:
    """A model, its images below ``folder``/data/gravel, and its weights in ``folder``/weights."""

    model: str
    folder: Path
    train: int
    test: int
    side: int
    device: torch.device

    @property
    def batch(self) -> int:
        """Images in a training step."""
        return networks.BATCHES.get(self.model, EVAL_BATCH)

    @property
    def epochs(self) -> int:
        """Passes over the training images; 0 for models without epochs."""
        return networks.EPOCHS.get(self.model, 0)

    @property
    def learnt(self) -> int:
        """Images that pass in the whole training."""
        return self.train * max(1, self.epochs)

    @property
    def parameters(self) -> dict[str, Any]:
        """The block ``model.NAME`` of a manifest."""
        more = {"coresetSamplingRatio": CORESET_RATIO} if self.model == "patchcore" else {}
        return networks.parameters(self.model) | more

    @property
    def arguments(self) -> dict[str, Any]:
        """The same parameters for anomalib's constructor."""
        more = {"coreset_sampling_ratio": CORESET_RATIO} if self.model == "patchcore" else {}
        return networks.arguments(self.model) | more


@dataclass(frozen=True)
class Spans:
    """When training and scoring began and ended, by ``perf_counter``."""

    train: tuple[float, float]
    predict: tuple[float, float]


def torch_defaults() -> None:
    """Set what the runner changes in a process back to torch's defaults: convolutions in TF32, any algorithm."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(cpu_limit())


def ours(task: Task, precision: str = "float32") -> Spans:
    """Run the experiment as a cluster would, from files to scores; it keeps its state and writes no pictures.

    Args:
        precision: of a training by gradient; scores are exact float32.
    """
    stages: list[tuple[str, float, float]] = []
    with _noted_stages(stages):
        code = run_locally(_manifest(task, precision), task.folder)
    if code:
        raise RuntimeError(f"the runner ended with exit code {code}")
    spans = {name: (began, ended) for name, began, ended in stages}
    learning = spans[Stage.TRAIN.value]
    # trainings by gradient decode the images in the stage before
    began = spans[Stage.DATASET.value][0] if task.epochs else learning[0]
    return Spans((began, learning[1]), spans[Stage.PREDICT.value])


@contextmanager
def _noted_stages(stages: list[tuple[str, float, float]]) -> Iterator[None]:
    enter = Context.stage

    @contextmanager
    def stage(context: Context, stage: Stage, total: int = 0, unit: str = "images") -> Iterator[None]:
        began = time.perf_counter()
        with enter(context, stage, total, unit):
            yield
            _synchronize()
        stages.append((stage.value, began, time.perf_counter()))

    with patch.object(Context, "stage", stage):
        yield


def _manifest(task: Task, precision: str) -> Path:
    stopping = {"earlyStopping": {"enabled": False}, "checkValEveryNEpoch": 1}
    by_gradient = {"maxEpochs": task.epochs, "precision": precision} | stopping
    size = {"height": task.side, "width": task.side}
    weights = {"weights": {"s3": {"uri": "s3://weights"}}} if task.model == "efficientad" else {}
    spec = {
        "dataset": {"source": {"s3": {"uri": "s3://data"}}, "category": "gravel", "task": "classification"},
        "transforms": {"inputSize": size},
        "model": {"name": task.model, task.model: task.parameters} | weights,
        "training": by_gradient if task.epochs else {},
        "export": {"types": []},
        "output": {"s3": {"uri": "s3://results"}, "keepCheckpoint": True},
    }
    metadata = {"name": "bench", "namespace": "bench"}
    kind = {"apiVersion": "anomalyops.io/v1alpha1", "kind": "AnomalyExperiment"}
    file = task.folder / "bench.yaml"
    file.write_text(yaml.safe_dump(kind | {"metadata": metadata, "spec": spec}))
    return file


def by_anomalib(task: Task) -> Spans:
    """Train and score as anomalib's documentation shows it: Folder, ``Engine.fit``, ``Engine.predict``; no pictures."""
    from anomalib.data import Folder, PredictDataset
    from torch.utils.data import DataLoader

    torch_defaults()
    workers, root = min(8, cpu_limit()), task.folder / "data/gravel"
    data = Folder(
        name="gravel",
        root=root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/scratch",
        num_workers=workers,
        train_batch_size=task.batch,
        eval_batch_size=EVAL_BATCH,
        val_split_mode="same_as_test",
    )
    model = build(task.model, task.side, pictures=False, folder=task.folder, given=task.arguments)
    bound = {"max_epochs": task.epochs} if task.epochs else {}
    trainer = engine(task.folder, accelerator="gpu" if task.device.type == "cuda" else "cpu", devices=1, **bound)
    began = time.perf_counter()
    trainer.fit(model=model, datamodule=data)
    _synchronize()
    fitted = time.perf_counter()
    dataset = PredictDataset(path=root / "test", image_size=(task.side, task.side))
    loader = DataLoader(dataset, batch_size=EVAL_BATCH, num_workers=workers, collate_fn=dataset.collate_fn)
    started = time.perf_counter()
    trainer.predict(model=model, dataloaders=loader, return_predictions=False)
    _synchronize()
    return Spans((began, fitted), (started, time.perf_counter()))


def bare(task: Task) -> Spans:
    """Train and run the network alone over images that are on the device already, in exact float32."""
    torch_defaults()
    torch.backends.cudnn.allow_tf32 = False
    root = task.folder / "data/gravel"
    images, tests = (
        bare_torch.read(sorted(root.joinpath(part).rglob("*.png")), task.side).to(task.device)
        for part in ("train", "test")
    )
    module = build(task.model, task.side, False, task.folder, task.arguments).to(task.device)
    began = time.perf_counter()
    network = bare_torch.TRAINERS[task.model](module, torch.split(images, task.batch), task.epochs, task.folder)
    _synchronize()
    trained = time.perf_counter()
    with torch.inference_mode():
        for part in torch.split(tests, EVAL_BATCH):
            network(part)
    _synchronize()
    return Spans((began, trained), (trained, time.perf_counter()))


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
