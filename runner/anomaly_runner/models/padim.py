"""PaDiM: one Gaussian for each patch position, over features of a frozen backbone.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", ICPR
2020. The computation is that of anomalib's ``PadimModel``: nearest upsampling to the largest layer, channels chosen
at random by the seed, covariance + (0.01 + 1e-5) I, Mahalanobis distance, bilinear upsampling, Gaussian blur.

Means and covariances are updated in each training step (Chan, Golub, LeVeque, "Updating formulae and a pairwise
algorithm for computing sample variances", 1979), which is exact and as stable as two passes. Memory is that of the
fitted model, positions x channels^2 x 4 bytes, for any number of images: one buffer holds the scatter matrices during
the fit, and the inverse covariances afterwards.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_api.model import Tiling
from anomaly_api.parameters import PadimParameters
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.backbone import Backbone, BackboneChoice
from anomaly_runner.models.base import MemoryEstimate, MemoryModel
from anomaly_runner.models.smoothing import smooth, smoothing_matrix
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.models.tiling import Tiles

_PAPER_FEATURES = {"resnet18": 100, "wide_resnet50_2": 550}
_DEFAULT_FEATURES = 100
_REGULARISATION = 0.01 + 1e-5
"""Added to the covariance's diagonal: the paper's epsilon, and the constant that anomalib adds before the inversion."""
_POSITIONS_AT_ONCE = 64
"""Number of patch positions that a thread works on at the same time."""


class Padim(MemoryModel):
    """PaDiM for one input size.

    Buffers: ``idx`` (C,), indices of the chosen channels in the concatenation of all layers, ascending; ``mean``
    (positions, 1, C); ``inv_covariance`` (positions, C, C), which holds the scatter matrices until ``finish``;
    ``rows`` and ``columns``, the matrices of ``smoothing``.

    Args:
        choice: the backbone and its layers.
        parameters: the manifest's parameters.
        size: rows and columns of the images.
        threads: fit the Gaussians of different positions in parallel.
        tiling: None for whole images.

    Raises:
        InvalidConfig: nFeatures is larger than the layers' number of channels, or tiles do not fit into the images.
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
        self._first_channels = list(accumulate(self.backbone.channels[:-1], initial=0))
        self._layer_slices = self._slices_of_layers()
        self.register_load_state_dict_post_hook(_update_layer_slices)  # type: ignore[no-untyped-call]
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

    def _slices_of_layers(self) -> list[slice]:
        """Range of each layer's channels in ``idx``."""
        bounds = self.idx.new_tensor([*self._first_channels, sum(self.backbone.channels)])
        return [slice(start, end) for start, end in pairwise(torch.searchsorted(self.idx, bounds).tolist())]

    def embed(self, images: Tensor) -> Tensor:
        """Return the chosen features of images (B, 3, H, W) at every position: (positions, B, C), float32."""
        chosen = self._tiles.embed(images, self._features)
        return chosen.permute(2, 3, 0, 1).reshape(math.prod(self.patches), -1, len(self.idx))

    def _features(self, tiles: Tensor) -> Tensor:
        """Chosen channels of tiles (B, 3, h, w), all at the largest layer's size: (B, C, rows, columns)."""
        # channels are chosen before upsampling, so that the others are never copied; of a layer there may be none
        layers = zip(self.backbone(tiles), self._layer_slices, self._first_channels, strict=True)
        chosen = [
            torch.index_select(layer, 1, self.idx[part] - first)
            for layer, part, first in layers
            if part.start < part.stop
        ]
        large = [functional.interpolate(layer, size=self._tile_patches, mode="nearest") for layer in chosen]
        return torch.cat(large, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw scores (B,) and raw maps (B, 1, H, W) of images (B, 3, H, W)."""
        delta = self.embed(images).contiguous() - self.mean  # contiguous: the product is a third faster
        # squared Mahalanobis distance (positions, B): one product for all images of a position
        squared = (torch.matmul(delta, self.inv_covariance) * delta).sum(2)
        distances = squared.clamp(0).sqrt().t().reshape(-1, 1, *self.patches)  # rounding may give less than 0
        maps = smooth(distances, self.rows, self.columns)
        return maps.amax((1, 2, 3)), maps

    def observe(self, embeddings: Sequence[Tensor]) -> None:
        """Update means and scatter matrices with the embeddings of a training step, parts of (positions, B, C)."""
        step = torch.cat(list(embeddings), 1)
        if not self._seen:
            positions, _, channels = step.shape
            self.inv_covariance = step.new_zeros(positions, channels, channels)
        before, self._seen = self._seen, self._seen + step.shape[1]
        share_before = before / self._seen

        def update(positions: slice) -> None:
            self._update(step[positions], positions, share_before)

        self._for_all_positions(update)

    def _update(self, embeddings: Tensor, positions: slice, share_before: float) -> None:
        """Merge a step into the means and scatter matrices of some positions (Chan, Golub, LeVeque).

        Args:
            embeddings: (positions, B, C), of these positions.
            positions: range of the positions.
            share_before: images of earlier steps as a share of all images up to this step, 0..1.
        """
        count = embeddings.shape[1]
        mean = embeddings.mean(1, keepdim=True)
        shift = mean - self.mean[positions]
        # scatter += sum (x - mean)(x - mean)^T + share_before * count * shift shift^T, as one product
        rows = torch.cat([embeddings - mean, shift * math.sqrt(share_before * count)], 1)
        self.inv_covariance[positions].baddbmm_(rows.mT, rows)
        self.mean[positions] += shift * (1 - share_before)

    def finish(self) -> None:
        """Turn the scatter matrices into inverse covariances, in place."""

        def invert(positions: slice) -> None:
            # float64, because with fewer images than channels only the regularisation makes the matrix invertible
            covariance = self.inv_covariance[positions].double() / (self._seen - 1)
            covariance.diagonal(dim1=1, dim2=2).add_(_REGULARISATION)
            self.inv_covariance[positions] = torch.cholesky_inverse(torch.linalg.cholesky(covariance)).float()

        self._for_all_positions(invert)

    def memory_estimate(self, images: int) -> MemoryEstimate:
        """Memory that the Gaussians need, which is the same for any number of images."""
        fitted = padim_bytes(self.mean.shape[0], self.mean.shape[2])
        return MemoryEstimate(fitted=fitted, reading=fitted, peak=fitted)

    def fitted_shapes(self, images: int) -> Mapping[str, tuple[int, ...]]:
        """Shape of the inverse covariances, which is the same for any number of images."""
        positions, _, channels = self.mean.shape
        return {"inv_covariance": (positions, channels, channels)}

    def memory_advice(self, images: int) -> str:
        """Advice on what to change so that the Gaussians need less memory."""
        return "lower model.padim.nFeatures or transforms.inputSize"

    def _for_all_positions(self, work: Callable[[slice], None]) -> None:
        starts = range(0, self.mean.shape[0], _POSITIONS_AT_ONCE)
        for _ in self._threads.map(work, (slice(start, start + _POSITIONS_AT_ONCE) for start in starts)):
            pass


def _update_layer_slices(model: Padim, _: object) -> None:
    """Update the ranges after a state is loaded, whose ``idx`` may come from another seed."""
    model._layer_slices = model._slices_of_layers()


def feature_count(backbone: str, asked: int | None, total: int) -> int:
    """Number of channels that PaDiM chooses: as configured, or as in the paper (R18-Rd100, WR50-Rd550), or up to 100.

    Raises:
        InvalidConfig: ``asked`` is larger than ``total``.
    """
    count = asked or min(_PAPER_FEATURES.get(backbone, _DEFAULT_FEATURES), total)
    if count > total:
        raise InvalidConfig(f"model.padim.nFeatures is {count}, but the chosen layers have {total} channels in all")
    return count


def padim_bytes(positions: int, channels: int) -> int:
    """Bytes of a fitted model's Gaussians: means and inverse covariances in float32."""
    return positions * channels * (channels + 1) * 4
