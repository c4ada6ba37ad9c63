"""PaDiM: one Gaussian for each patch position, over features of a frozen backbone.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", ICPR
2020. Numbers as anomalib's ``PadimModel``: nearest upsampling to the largest layer, channels drawn by the
seed, covariance + (0.01 + 1e-5) I, Mahalanobis distance, bilinear upsampling, Gaussian blur.

Means and covariances are updated a training step at a time (Chan, Golub, LeVeque, "Updating formulae and a
pairwise algorithm for computing sample variances", 1979), which is exact and as stable as two passes. Memory
is that of the fitted model, positions x channels^2 x 4 bytes, however many images there are; the covariances
become their inverses in place.
"""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_api.model import Tiling
from anomaly_api.parameters import PadimParameters
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.backbone import Backbone, BackboneChoice
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.models.smoothing import smooth, smoothing_matrix
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.models.tiling import Tiles

_PAPER_FEATURES = {"resnet18": 100, "wide_resnet50_2": 550}
_DEFAULT_FEATURES = 100
_REGULARISATION = 0.01 + 1e-5
_POSITIONS = 64
"""Patch positions worked on at once."""


class Padim(MemoryModel):
    """PaDiM for one input size.

    Buffers: ``idx`` (C,), channels kept, ascending over all layers together; ``mean`` (positions, 1, C);
    ``inv_covariance`` (positions, C, C).

    Raises:
        InvalidConfig: nFeatures is more than the layers have, or tiles that do not fit.
        WeightsNotFound: the backbone's weights could not be loaded.
    """

    idx: Tensor
    mean: Tensor
    inv_covariance: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        choice: BackboneChoice,
        parameters: PadimParameters,
        size: tuple[int, int],
        threads: TorchThreads,
        tiling: Tiling | None = None,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(choice, parameters.pre_trained)
        total = sum(self.backbone.channels)
        kept = feature_count(choice.name, parameters.n_features, total)
        self.register_buffer("idx", torch.randperm(total)[:kept].sort().values)
        self._firsts = list(accumulate(self.backbone.channels[:-1], initial=0))
        self._parts = self._cut()
        self.register_load_state_dict_post_hook(_cut_again)  # type: ignore[no-untyped-call]
        self._tiles = Tiles(size, tiling)
        self._tile_patches = self.backbone.sizes(*self._tiles.side)[0]
        self.patches = self._tiles.patches(self._tile_patches)
        positions = math.prod(self.patches)
        self.register_buffer("mean", torch.zeros(positions, 1, kept))
        self.register_buffer("inv_covariance", torch.empty(0))
        self.register_buffer("rows", smoothing_matrix(self.patches[0], size[0], "bilinear"))
        self.register_buffer("columns", smoothing_matrix(self.patches[1], size[1], "bilinear"))
        self._threads = threads
        self._seen = 0

    def _cut(self) -> list[slice]:
        """Which of the channels kept are each layer's."""
        ends = torch.searchsorted(self.idx, self.idx.new_tensor([*self._firsts, sum(self.backbone.channels)])).tolist()
        return [slice(start, end) for start, end in pairwise(ends)]

    def embed(self, images: Tensor) -> Tensor:
        """Chosen features of images (B, 3, H, W) at every position: (positions, B, C), float32."""
        chosen = self._tiles.embed(images, self._features)
        return chosen.permute(2, 3, 0, 1).reshape(math.prod(self.patches), -1, len(self.idx))

    def _features(self, tiles: Tensor) -> Tensor:
        layers = zip(self.backbone(tiles), self._parts, self._firsts, strict=True)
        chosen = [torch.index_select(layer, 1, self.idx[part] - first) for layer, part, first in layers]
        large = [functional.interpolate(layer, size=self._tile_patches, mode="nearest") for layer in chosen]
        return torch.cat(large, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw scores (B,) and raw maps (B, 1, H, W)."""
        delta = self.embed(images).contiguous() - self.mean  # laid out as the product reads it: a third faster
        squared = (torch.matmul(delta, self.inv_covariance) * delta).sum(2)
        distances = squared.clamp(0).sqrt().t().reshape(-1, 1, *self.patches)
        maps = smooth(distances, self.rows, self.columns)
        return maps.amax((1, 2, 3)), maps

    def observe(self, embeddings: Sequence[Tensor]) -> None:
        """Update means and scatter by a step's embeddings, parts of (positions, B, C)."""
        step = torch.cat(list(embeddings), 1)
        if not self._seen:
            positions, _, channels = step.shape
            self.inv_covariance = step.new_zeros(positions, channels, channels)
        before, self._seen = self._seen, self._seen + step.shape[1]
        share = before / self._seen

        def update(part: slice) -> None:
            self._update(step[part], part, share)

        self._everywhere(update)

    def _update(self, embeddings: Tensor, part: slice, share: float) -> None:
        count = embeddings.shape[1]
        mean = embeddings.mean(1, keepdim=True)
        shift = mean - self.mean[part]
        # scatter += sum (x - mean)(x - mean)^T + share * count * shift shift^T, as one product
        rows = torch.cat([embeddings - mean, shift * math.sqrt(share * count)], 1)
        self.inv_covariance[part].baddbmm_(rows.mT, rows)
        self.mean[part] += shift * (1 - share)

    def finish(self) -> None:
        """Scatter to inverse covariance, in place."""

        def invert(part: slice) -> None:
            covariance = self.inv_covariance[part].double() / (self._seen - 1)
            covariance.diagonal(dim1=1, dim2=2).add_(_REGULARISATION)
            self.inv_covariance[part] = torch.cholesky_inverse(torch.linalg.cholesky(covariance)).float()

        self._everywhere(invert)

    def _everywhere(self, work: Callable[[slice], None]) -> None:
        starts = range(0, self.mean.shape[0], _POSITIONS)
        for _ in self._threads.map(work, (slice(start, start + _POSITIONS) for start in starts)):
            pass


def _cut_again(model: Padim, _: object) -> None:
    model._parts = model._cut()


def feature_count(backbone: str, asked: int | None, total: int) -> int:
    """Channels that PaDiM keeps.

    Raises:
        InvalidConfig: more were asked for than there are.
    """
    count = asked or min(_PAPER_FEATURES.get(backbone, _DEFAULT_FEATURES), total)
    if count > total:
        raise InvalidConfig(f"model.padim.nFeatures is {count}, but the chosen layers have {total} channels in all")
    return count


def padim_bytes(positions: int, channels: int) -> int:
    """Bytes of a fitted model's Gaussians."""
    return positions * channels * (channels + 1) * 4
