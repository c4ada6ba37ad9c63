"""PatchCore: the distance of each patch to the nearest one in a coreset of training patches.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022. The computation is that of anomalib's
``PatchcoreModel``: 3 x 3 average pooling, bilinear upsampling to the largest layer, image score weighted by the
nearest patch's own neighbourhood (equation 7 of the paper).

One deviation: the distance to the nearest patch is computed from the difference of both, not from
``x^2 + y^2 - 2xy``. That expansion finds the nearest patch fast, but gives a patch that is in the memory bank a
distance of up to 1e-3 of its norm to itself, which varies between runtimes.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from anomaly_api.model import Tiling
from anomaly_api.parameters import PatchcoreParameters
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.backbone import Backbone, BackboneChoice
from anomaly_runner.models.base import MemoryEstimate, MemoryModel
from anomaly_runner.models.compiled import is_exporting
from anomaly_runner.models.coreset import k_center_greedy, projected
from anomaly_runner.models.coreset_chunks import MOST_ROWS, ChunkedCoreset, CoresetSize
from anomaly_runner.models.nearest import nearest_in_graph, nearest_rows, squared_distances_by_rows
from anomaly_runner.models.smoothing import smooth, smoothing_matrix
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.models.tiling import Tiles
from anomaly_runner.system.machine import gigabytes


class Patchcore(MemoryModel):
    """PatchCore for one input size.

    Buffers: ``memory_bank`` (M, D), patches of the coreset; ``rows`` and ``columns``, the matrices of ``smoothing``.

    Args:
        choice: the backbone and its layers.
        parameters: the manifest's parameters.
        size: rows and columns of the images.
        seed: of the coreset's random projection.
        check: called while the coreset is picked, with the number of patches picked so far; may raise to stop.
        threads: used to pick the coreset.
        tiling: None for whole images.

    Raises:
        InvalidConfig: tiles do not fit into the images.
        WeightsNotFound: the backbone's weights could not be loaded.
    """

    memory_bank: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        choice: BackboneChoice,
        parameters: PatchcoreParameters,
        size: tuple[int, int],
        seed: int,
        check: Callable[[int], None],
        *,
        threads: TorchThreads,
        tiling: Tiling | None = None,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(choice, parameters.pre_trained)
        self._tiles = Tiles(size, tiling)
        self._tile_patches = self.backbone.sizes(*self._tiles.side)[0]
        self.patches = self._tiles.patches(self._tile_patches)
        self.register_buffer("memory_bank", torch.empty(0))
        self.register_buffer("rows", smoothing_matrix(self.patches[0], size[0], "nearest"))
        self.register_buffer("columns", smoothing_matrix(self.patches[1], size[1], "nearest"))
        self._neighbors = parameters.num_neighbors
        self.ratio = parameters.coreset_sampling_ratio
        self._seed = seed
        self._check = check
        self._threads = threads
        self._coreset = parameters.coreset
        self._chunk = MOST_ROWS if parameters.coreset == "Chunked" else sys.maxsize
        self._patches = self._collection()

    def embed(self, images: Tensor) -> Tensor:
        """Return the features of every patch of images (B, 3, H, W): (B x patches, D), float32."""
        joined = self._tiles.embed(images, self._features)
        return joined.permute(0, 2, 3, 1).reshape(-1, sum(self.backbone.channels))

    def _features(self, tiles: Tensor) -> Tensor:
        """Features of tiles (B, 3, h, w), all layers at the largest one's size: (B, D, rows, columns)."""
        # locally aware patches: each is averaged over its 3 x 3 neighbourhood (section 3.1 of the paper)
        pooled = [functional.avg_pool2d(layer, 3, 1, 1) for layer in self.backbone(tiles)]
        large = [
            pooled[0],
            *(functional.interpolate(layer, size=self._tile_patches, mode="bilinear") for layer in pooled[1:]),
        ]
        return torch.cat(large, 1)

    def observe(self, embeddings: Sequence[Tensor]) -> None:
        """Keep the patches of a training step, parts of (B x patches, D)."""
        self._patches.add(embeddings)

    def finish(self) -> None:
        """Reduce the training patches to their coreset.

        Raises:
            InvalidConfig: the coreset would be empty.
        """
        rows = self._patches.rows
        self.memory_bank = self._patches.finish()
        if len(self.memory_bank) == 0:
            raise InvalidConfig(f"coresetSamplingRatio {self.ratio} of {rows} patches leaves none")

    def adapt_to_memory(self, images: int, free: int) -> str:
        """Build the coreset of chunks if it was asked for, or if all patches do not fit and nothing was asked for."""
        size = self._size(images)
        fits = size.exact_bytes() <= free
        if self._coreset == "Exact" or (self._coreset == "Auto" and fits):
            return ""
        self._chunk = size.largest_chunk(free)
        self._patches = self._collection()
        if size.rows <= self._chunk or (self._coreset == "Chunked" and self._chunk == MOST_ROWS):
            return ""
        if self._coreset == "Chunked":
            return (
                f"PatchCore's coreset is built of chunks of {self._chunk:,} patches, not of {MOST_ROWS:,}: "
                f"{gigabytes(free)} are free; with more memory other patches are kept (model.patchcore.coreset)"
            )
        return (
            f"{size.rows:,} training patches do not fit into memory ({gigabytes(size.exact_bytes())} needed, "
            f"{gigabytes(free)} free): PatchCore's coreset is built of chunks of {self._chunk:,} patches, which cover "
            "them a little less evenly (model.patchcore.coreset)"
        )

    def _collection(self) -> ChunkedCoreset:
        """A new, empty collection of training patches."""
        return ChunkedCoreset(self._pick, self.ratio, self._chunk)

    def _pick(self, patches: Tensor, count: int) -> Tensor:
        """The coreset (count, D) of patches (N, D): compared projected where that is shorter, kept as they are."""
        return patches[k_center_greedy(projected(patches, self._seed), count, self._check, self._threads)]

    def _size(self, images: int) -> CoresetSize:
        return CoresetSize(images * math.prod(self.patches), sum(self.backbone.channels), self.ratio)

    def memory_estimate(self, images: int) -> MemoryEstimate:
        """Memory for the patches of the images during the fit, and for their coreset."""
        size = self._size(images)
        number = 4 * size.channels
        if size.rows <= self._chunk:
            return MemoryEstimate(fitted=size.picked * number, reading=size.rows * number, peak=size.exact_bytes())
        return MemoryEstimate(
            fitted=size.picked * number,
            reading=(size.kept + self._chunk) * number,
            peak=size.chunked_bytes(self._chunk),
        )

    def fitted_shapes(self, images: int) -> Mapping[str, tuple[int, ...]]:
        """Shape of the memory bank, which has a share of the images' patches."""
        return {"memory_bank": (int(images * math.prod(self.patches) * self.ratio), sum(self.backbone.channels))}

    def memory_advice(self, images: int) -> str:
        """Advice on what to change; not the coreset's ratio where all patches are held before it is picked."""
        less = "use fewer images, a smaller transforms.inputSize"
        if self._size(images).rows > self._chunk:
            return (
                f"the coreset of {images} training images is held: lower model.patchcore.coresetSamplingRatio, {less}"
            )
        return f"all patches of {images} training images are held: set model.patchcore.coreset to Chunked, {less}"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw scores (B,) and raw maps (B, 1, H, W) of images (B, 3, H, W)."""
        embedding = self.embed(images)
        nearest = (nearest_in_graph if is_exporting() else nearest_rows)(embedding, self.memory_bank)
        # from the difference: the expansion that finds the nearest patch is not exact enough, see the module's text
        distances = (embedding - self.memory_bank[nearest]).pow(2).sum(1).sqrt()
        distances, nearest = (found.reshape(-1, math.prod(self.patches)) for found in (distances, nearest))
        maps = smooth(distances.reshape(-1, 1, *self.patches), self.rows, self.columns)
        return self._image_scores(distances, nearest, embedding), maps

    def _image_scores(self, distances: Tensor, nearest: Tensor, embedding: Tensor) -> Tensor:
        """Scores (B,): the largest distance of a patch, weighted by its neighbourhood (equation 7 of the paper).

        Args:
            distances: (B, patches), distance of each patch to its nearest row of the memory bank.
            nearest: (B, patches), index of that row.
            embedding: (B x patches, D), the patches.
        """
        if self._neighbors == 1:
            return distances.amax(1)
        score, patch = distances.max(1)
        patch_features = embedding.reshape(-1, math.prod(self.patches), embedding.shape[1])
        worst = patch_features.gather(1, patch[:, None, None].expand(-1, 1, embedding.shape[1]))
        # neighbours of the worst patch's nearest row, of which that row itself is the first
        neighbour = self.memory_bank[nearest.gather(1, patch[:, None]).squeeze(1)]
        count = min(self._neighbors, self.memory_bank.shape[0])
        distances_by_row = torch.cat(squared_distances_by_rows(neighbour, self.memory_bank), 1)
        support = distances_by_row.topk(count, largest=False, dim=1).indices
        apart = (worst - self.memory_bank[support]).pow(2).sum(2).sqrt()
        # the weight is larger if these neighbours are far from the patch, too
        return (1 - functional.softmax(apart, 1))[:, 0] * score
