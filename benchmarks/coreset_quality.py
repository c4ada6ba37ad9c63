"""What a coreset of coresets loses: cover radius, scores and AUROC beside the coreset of all patches at once.

Gravel with faint painted defects, EfficientNet-Lite0 with its ImageNet weights as in the sample gravel-patchcore; new
pictures and a new coreset for each seed. "Projected" is the coreset of all patches by anomalib's projection. Each line
has means over the seeds; behind an AUROC is the standard error of its difference from the first line's. ::

    python -m benchmarks.coreset_quality [--seeds N] [--train N] [--ratio R] [--chunks N ...] [--write]
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from anomaly_runner.models import coreset_chunks
from anomaly_runner.models.coreset import k_center_greedy, projected, projected_always
from anomaly_runner.models.coreset_chunks import ChunkedCoreset
from anomaly_runner.models.nearest import nearest_rows
from anomaly_runner.models.patchcore import Patchcore
from anomaly_runner.models.threads import MICRO_BATCH, TorchThreads
from benchmarks.patches import as_input, patchcore
from benchmarks.tables import Table, add_write, publish

SIDE = 128
FAINT = 0.7
"""Opacity of the defects: at full opacity every coreset finds all of them."""
TEST = 30
"""Pictures of each kind."""


class Pictures:
    """The pictures of a seed."""

    def __init__(self, seed: int, train: int) -> None:
        from hack.demo.gravel import defective, gravel

        numbers = iter(range(10_000 * seed, 10_000 * (seed + 1)))
        self.train = torch.stack([as_input(gravel(next(numbers)), SIDE) for _ in range(train)])
        test, masks = [], []
        for kind in ("good", "scratch", "stain"):
            for number in (next(numbers) for _ in range(TEST)):
                good, (bad, mask) = gravel(number), defective("scratch" if kind == "good" else kind, number)
                opacity = 0.0 if kind == "good" else FAINT
                test.append(as_input(Image.blend(good, bad, opacity), SIDE))
                masks.append((np.asarray(mask) > 0) & (kind != "good"))
        self.test, self.masks = torch.stack(test), np.stack(masks)


def bank_of(patches: Tensor, seed: int, ratio: float, chunk: int, project: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The coreset of patches (N, D) in chunks."""
    threads = TorchThreads(torch.device("cpu"))

    def pick(some: Tensor, count: int) -> Tensor:
        return some[k_center_greedy(project(some, seed), count, lambda _: None, threads)]

    torch.manual_seed(seed)
    coreset = ChunkedCoreset(pick, ratio, chunk)
    coreset.add(torch.split(patches, 1024))
    return coreset.finish()


def scored(model: Patchcore, images: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image scores and maps."""
    found = [model(part) for part in torch.split(images, MICRO_BATCH)]
    return torch.cat([scores for scores, _ in found]).numpy(), torch.cat([maps for _, maps in found])[:, 0].numpy()


def measured(
    model: Patchcore, pictures: Pictures, patches: Tensor, reference: NDArray[np.float32] | None
) -> tuple[list[float], NDArray[np.float32]]:
    """Radius, mean distance, image AUROC, pixel AUROC and mean change of a score; and the scores."""
    distances = torch.linalg.norm(patches - model.memory_bank[nearest_rows(patches, model.memory_bank)], dim=1)
    scores, maps = scored(model, pictures.test)
    labels = pictures.masks.any((1, 2))
    changed = 0.0 if reference is None else float(np.abs(scores - reference).mean() / reference.mean())
    aurocs = [roc_auc_score(labels, scores), roc_auc_score(pictures.masks.ravel(), maps.ravel())]
    return [float(distances.max()), float(distances.mean()), *aurocs, changed], scores


def main() -> None:
    """Print a line for each way to pick the coreset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=40)
    parser.add_argument("--ratio", type=float, default=0.02)
    parser.add_argument("--chunks", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--times", type=int, nargs="+", default=[1, 2, 4], help="their share that chunks keep")
    add_write(parser)
    arguments = parser.parse_args()
    model = patchcore(SIDE, TorchThreads(torch.device("cpu")), layers=("blocks.1", "blocks.2"))
    assert isinstance(model, Patchcore)
    ways: dict[str, tuple[int, int, Callable[[Tensor, int], Tensor]]] = {"all at once": (1, 2, projected)}
    ways["all at once, projected as by anomalib"] = (1, 2, projected_always)
    for chunks in arguments.chunks:
        for times in arguments.times:
            ways[f"{chunks} chunks that keep {times} times their share"] = (chunks, times, projected)
    results: dict[str, list[list[float]]] = {name: [] for name in ways}
    with torch.inference_mode():
        for seed in range(1, arguments.seeds + 1):
            pictures = Pictures(seed, arguments.train)
            patches = torch.cat([model.embed(part) for part in torch.split(pictures.train, MICRO_BATCH)])
            reference = None
            for name, (chunks, times, project) in ways.items():
                coreset_chunks.OVERSAMPLING = times
                bank = partial(bank_of, patches, seed, arguments.ratio, len(patches) // chunks)
                model.memory_bank = bank(project)
                values, scores = measured(model, pictures, patches, reference)
                reference = scores if reference is None else reference
                results[name].append(values)
    rows = list(rows_of({name: np.array(values) for name, values in results.items()}))
    columns = (
        "Coreset",
        "Radius",
        "of the worst seed",
        "Mean distance",
        "Image AUROC",
        "Pixel AUROC",
        "Change of scores",
    )
    table = Table("coreset-quality", columns, rows, ("anomaly-operator", "torch"))
    publish([table], arguments.write)


def rows_of(results: Mapping[str, NDArray[np.float64]]) -> Iterator[list[str]]:
    """The rows, from the values (seeds, 5) of each way; radius and distance in units of the first way's."""
    exact = next(iter(results.values()))
    for name, values in results.items():
        _, _, image, pixel, changed = values.mean(0)
        radius, mean = (values[:, :2] / exact[:, :2]).mean(0)
        worst = (values[:, 0] / exact[:, 0]).max()
        aurocs = [f"{image:.3f}", f"{pixel:.3f}"]
        if values is not exact:
            apart = (values - exact)[:, 2:4].std(0, ddof=1) / np.sqrt(len(values))
            aurocs = [f"{auroc} ({error:.3f})" for auroc, error in zip(aurocs, apart, strict=True)]
        yield [name, f"{radius:.2f}", f"{worst:.2f}", f"{mean:.3f}", *aurocs, f"{changed:.1%}"]


if __name__ == "__main__":
    main()
