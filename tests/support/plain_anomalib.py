"""One training by our runner and one by plain anomalib under Lightning's Trainer, from the same weights.

The weights are random, and both sides see the same images in the same order; each side has its own
reading, normalisation, constructor arguments, trainer arguments, steps and scoring. A comparison changes its process
(threads, environment) and needs a separate one.
"""

import itertools
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import lightning
import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.model import Model
from anomaly_runner.local import run_locally
from anomaly_runner.models.anomalib_model import BuildOptions, build_module, without_pretrained_weights
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.training import with_anomalib
from support.model_rows import ROWS, Comparison
from support.textures import EXPERIMENT, write_manifest

SEED = 11
WEIGHTS = {"s3": {"uri": "s3://weights"}}


@dataclass(frozen=True)
class Trainings:
    """Image scores (N,) of both sides, and the largest change of a weight in the reference's training."""

    ours: NDArray[np.float64]
    theirs: NDArray[np.float32]
    moved: float


def train_both(folder: Path, name: str, case: Comparison) -> Trainings:
    """Train ``name`` on the images of its row below ``folder``/data on both sides."""
    warnings.simplefilter("ignore")
    start: dict[str, torch.Tensor] = {}

    def build(model: Model, options: BuildOptions) -> Any:
        with nullcontext() if ROWS[name].weights_from_cache else without_pretrained_weights():
            module = build_module(model, options)
        start.update({name: value.clone() for name, value in module.state_dict().items()})
        return module

    with patch.object(with_anomalib, "build_module", build):
        ours = our_scores(folder, name, case)
    module = trained_by_anomalib(folder, name, case, start)
    theirs = their_scores(module, name, case, folder, ours)
    moved = max(float((value - start[key]).abs().max().detach()) for key, value in module.named_parameters())
    return Trainings(np.array(list(ours.values())), theirs, moved)


def needs_cache(name: str) -> bool:
    """Whether the model's run is given a cache: it has files of its own, or a backbone that is not made in memory."""
    return ROWS[name].weights_from_cache or any(weight.kind in ("file", "folder") for weight in CATALOG[name].weights)


def our_scores(folder: Path, name: str, case: Comparison) -> dict[str, float]:
    def experiment(document: dict[str, Any]) -> None:
        spec = document["spec"]
        training = {"trainBatchSize": case.batch} | case.training
        if CATALOG[name].by_gradient:
            training |= {"earlyStopping": {"enabled": False}}
        spec["dataset"] |= {"seed": SEED, "category": ROWS[name].category}
        spec |= {
            "model": {"name": name, name: case.ours} | ({"weights": WEIGHTS} if needs_cache(name) else {}),
            "training": training,
            "evaluation": {"latency": {"enabled": False}},
            "export": {"types": []},
        }
        spec["transforms"] = {"inputSize": {"height": case.side, "width": case.side}}

    shutil.rmtree(folder / "results", ignore_errors=True)
    assert run_locally(write_manifest(folder, EXPERIMENT, experiment), folder) == 0
    table = pq.read_table(folder / "results/factory/textures/local/predictions.parquet").to_pydict()
    return dict(zip(table["path"], table["score"], strict=True))


def pictures(paths: Iterable[Path], side: int) -> torch.Tensor:
    """Read images as float32 (N, 3, side, side), 0..1."""
    opened = (Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR) for path in paths)
    return torch.stack([torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1) for image in opened])


class OurImageOrder(lightning.LightningDataModule):  # type: ignore[misc]
    """Training images (0..1) as anomalib's batches, in the order of our runs, and good test images for validation."""

    def __init__(self, images: torch.Tensor, good: torch.Tensor, batch: int, shuffles: bool) -> None:
        super().__init__()
        self.images, self.good, self.train_batch_size, self.shuffles = images, good, batch, shuffles

    def train_dataloader(self) -> Self:
        return self

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.train_batch_size)

    def __iter__(self) -> Iterator[Any]:
        order = np.arange(len(self.images))
        if self.shuffles:
            order = np.random.default_rng([SEED, self.trainer.current_epoch]).permutation(len(self.images))
        for rows in np.split(order, range(self.train_batch_size, len(order), self.train_batch_size)):
            yield good_batch(self.images[rows].clone())

    def val_dataloader(self) -> list[Any]:
        return [good_batch(self.good)]


def good_batch(images: torch.Tensor) -> Any:
    from anomalib.data import ImageBatch

    return ImageBatch(
        image=images,
        gt_label=torch.zeros(len(images), dtype=torch.bool),
        gt_mask=torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool),
    )


def pictures_in_our_order(module: Any) -> None:
    prepare = module.prepare_imagenette_data

    def drawn(dataset: Any) -> Iterator[list[torch.Tensor]]:
        for turn in itertools.count():
            for index in np.random.default_rng([SEED, turn]).permutation(len(dataset)):
                yield [dataset[index][0].unsqueeze(0)]

    def prepared(size: Any) -> None:
        prepare(size)
        module.imagenet_iterator = drawn(module.imagenet_loader.dataset)

    module.prepare_imagenette_data = prepared


def trained_by_anomalib(
    folder: Path,
    name: str,
    case: Comparison,
    start: dict[str, torch.Tensor],
) -> Any:
    import anomalib.models

    entry, side = CATALOG[name].anomalib, case.side
    assert entry is not None
    assert side is not None
    kind = getattr(anomalib.models, entry.name)
    torch.manual_seed(SEED)  # DRAEM and GLASS draw a part of their augmentations when they are built
    with without_pretrained_weights():
        files = {argument: folder / "weights" / place for argument, place in case.files.items()}
        pre_processor = kind.configure_pre_processor((side, side), **case.crop)
        module = kind(
            **case.theirs, **files, pre_processor=pre_processor, post_processor=False, evaluator=False, visualizer=False
        )
    module.load_state_dict(start)
    data = folder / "data" / ROWS[name].category
    images, good = (pictures(sorted((data / part / "good").iterdir()), side) for part in ("train", "test"))
    if name in ("draem", "glass"):
        augmenter = module.augmenter if name == "draem" else module.model.augmentor
        augmenter.anomaly_source_paths.sort()
    if name == "efficientad":
        pictures_in_our_order(module)
    if name == "cfa":  # anomalib computes its first centroids from images that are not normalised
        images, module.configure_callbacks = module.pre_processor(images), list
    bounds = {
        "max_epochs": case.training.get("maxEpochs", -1 if "maxSteps" in case.training else CATALOG[name].loop.passes),
        "max_steps": case.training.get("maxSteps", -1),
    }
    os.environ["XDG_CACHE_HOME"] = str(folder / "weights")
    torch.set_num_threads(cpu_limit())
    lightning.seed_everything(SEED)
    arguments = module.trainer_arguments | bounds | case.trainer
    trainer = lightning.Trainer(
        **arguments,
        accelerator="cpu",
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=True,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=OurImageOrder(images, good, case.batch, CATALOG[name].by_gradient))
    if CATALOG[name].loop.calibrates_after_training:
        with torch.no_grad():
            module.eval().on_validation_start()
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)
    return module.eval()


def their_scores(module: Any, name: str, case: Comparison, folder: Path, paths: Iterable[str]) -> NDArray[np.float32]:
    data, side = folder / "data" / ROWS[name].category, case.side
    assert side is not None
    with torch.inference_mode():
        images = module.pre_processor(pictures([data / path for path in paths], side))
        if name == "cflow":
            learnt = module.pre_processor(pictures(sorted((data / "train/good").iterdir()), side))
            return related_to(likelihoods(module, learnt), likelihoods(module, images), side)
        scores: NDArray[np.float32] = module.model(images).pred_score.reshape(-1).numpy()
        return scores


def likelihoods(module: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """The log-likelihoods (N, 1, h, w) of each of CFLOW's layers, as anomalib hands them to its generator of maps."""
    found: list[torch.Tensor] = []

    def record(_: Any, __: Any, given: dict[str, Any]) -> None:
        for values, rows, columns in zip(given["distribution"], given["height"], given["width"], strict=True):
            found.append(values.detach().clone().reshape(-1, 1, rows, columns))

    hook = module.model.anomaly_map_generator.register_forward_pre_hook(record, with_kwargs=True)
    module.model(images)
    hook.remove()
    return found


def related_to(learnt: list[torch.Tensor], found: list[torch.Tensor], side: int) -> NDArray[np.float32]:
    """Scores (N,) of CFLOW: probabilities relative to the most probable patch of the training images, over all layers.

    anomalib relates them to the most probable patch of the batch that they are in.
    """
    size, total = (side, side), np.zeros((len(found[0]), side, side), np.float32)
    for peak, layer in zip((layer.max() for layer in learnt), found, strict=True):
        enlarged = torch.nn.functional.interpolate((layer - peak).exp(), size, mode="bilinear", align_corners=True)
        total += enlarged[:, 0].numpy()
    scores: NDArray[np.float32] = (len(found) - total).max((1, 2))
    return scores
