"""Forward passes of some of anomalib's models that exporters can trace for any batch size.

anomalib's own code bakes the batch size into the traced graph, or loops over the images of a batch in Python. The
forward passes here have the same arithmetic without that; the tests of all models compare both. Nothing here is
trained, and scores are the same, except for CFLOW-AD's reference (see ``TraceableCflow``).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly_api.model import ModelName


class RawScores(NamedTuple):
    """Scores (B,) and maps (B, 1, H, W), named as in anomalib's ``InferenceBatch``."""

    pred_score: Tensor
    anomaly_map: Tensor | None = None


class _Traceable(nn.Module):
    """Wraps a trained network of anomalib, and computes the same as its ``forward``."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network


class _TraceablePooled(_Traceable):
    """Base of models that score pooled features of one layer."""

    def _pooled(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) of images (B, 3, H, W)."""
        features: Tensor = self.network.feature_extractor(images)[self.network.layer]
        kernel = self.network.pooling_kernel_size
        return functional.avg_pool2d(features, kernel) if kernel > 1 else features


class TraceableDfm(_TraceablePooled):
    """DFM: reconstruction error of pooled features from their principal components (Ahuja et al., 2019)."""

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        features = self._pooled(images)
        centred = features.flatten(1) - self.network.pca_model.mean
        reduced = torch.matmul(centred, self.network.pca_model.singular_vectors)
        error = (centred - self.network.pca_model.inverse_transform(reduced)).square()
        return RawScores(error.sum(1), _as_map(error, features, images))


class TraceableFre(_TraceablePooled):
    """FRE: reconstruction error of a linear autoencoder of pooled features (Ndiour et al., ICIP 2022)."""

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        features = self._pooled(images)
        flat = features.flatten(1)
        error = (flat - self.network.fre_model(flat)).square()
        return RawScores(error.sum(1), _as_map(error, features, images))


def _as_map(error: Tensor, features: Tensor, images: Tensor) -> Tensor:
    """Maps (B, 1, H, W) from errors (B, C * h * w) of features (B, C, h, w), summed over channels and upsampled."""
    maps = error.reshape(-1, *features.shape[1:]).sum(1, keepdim=True)
    return functional.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)


class TraceableDfkde(_Traceable):
    """DFKDE: Gaussian kernel density of pooled features after PCA; image scores only."""

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores of images (B, 3, H, W)."""
        features = self.network.feature_extractor(images)
        pooled = torch.cat([functional.adaptive_avg_pool2d(found, 1).flatten(1) for found in features.values()])
        classifier = self.network.classifier
        reduced = torch.matmul(pooled - classifier.pca_model.mean, classifier.pca_model.singular_vectors)
        scaled, _ = classifier.pre_process(reduced, classifier.max_length)
        density = classifier.kde_model
        projected = torch.matmul(scaled, density.bw_transform)
        squared = (projected[:, None] - density.dataset).square().sum(2)  # (B, training images)
        likelihood = ((-squared / 2).exp() * density.norm).mean(1)
        # 1e-300: anomalib's guard against log(0)
        return RawScores(classifier.compute_probabilities((likelihood + 1e-300).log()))


class _Coordinates(nn.Module):
    """Appends each position's row and column, -1..1, to feature maps, as anomalib's ``AddCoords``.

    That multiplies matrices of integers, which CUDA cannot, on the CPU. A TorchScript program computes on the device of
    its images, so here the coordinates are real numbers on the device of the features.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C + 2, h, w) of features (B, C, h, w), in their precision."""
        rows, columns = (
            torch.arange(length, dtype=torch.float32, device=features.device) / (length - 1) * 2 - 1
            for length in features.shape[2:]
        )
        shape = (features.shape[0], 1, *features.shape[2:])
        placed = [rows[:, None].expand(shape), columns.expand(shape)]
        return torch.cat([features, *(place.to(features.dtype) for place in placed)], 1)


class TraceableCfa(_Traceable):
    """CFA: distances to the memory bank (Lee et al., IEEE Access 2022).

    They are computed in float32 in any precision of the model, because they are differences of large numbers.
    """

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        network.descriptor.layer.add_coords = _Coordinates()

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        network = self.network
        features = network.descriptor(list(network.feature_extractor(images).values())).float()
        patches, bank = features.flatten(2).transpose(1, 2), network.memory_bank.float()
        squared = patches.square().sum(2, keepdim=True) + bank.square().sum(0) - 2 * torch.matmul(patches, bank)
        maps = network.anomaly_map_generator(
            distance=squared.clamp_min(0), scale=features.shape[-2:], image_size=images.shape[-2:]
        )
        return RawScores(maps.amax((1, 2, 3)), maps)


class TraceableCflow(_Traceable):
    """CFLOW-AD: each patch is scored by its likelihood in all layers (Gudovskiy et al., WACV 2022).

    anomalib divides likelihoods by the largest in the batch, so that an image's score depends on the other images of
    its batch. Here they are divided by the largest of some training images (``calibrate``), so that scores of different
    batches are comparable.

    Buffer: ``peaks`` (layers,), that largest log-likelihood of each layer.
    """

    peaks: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.register_buffer("peaks", torch.zeros(len(network.pool_layers)))

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set ``peaks`` to each layer's largest log-likelihood of these images (B, 3, H, W)."""
        self.peaks = torch.stack([likelihood.max() for likelihood in self._log_likelihoods(images)])

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        likelihoods = self._log_likelihoods(images)
        layers = [
            functional.interpolate(
                (likelihood - peak).exp(), size=images.shape[-2:], mode="bilinear", align_corners=True
            )
            for likelihood, peak in zip(likelihoods, self.peaks, strict=True)
        ]
        maps = len(layers) - torch.stack(layers).sum(0)
        return RawScores(maps.amax((1, 2, 3)), maps)

    def _log_likelihoods(self, images: Tensor) -> list[Tensor]:
        """Log-likelihood of each patch, divided by the number of channels: (B, 1, h, w) for each layer."""
        features = self.network.encoder(images)
        layers = zip(self.network.pool_layers, self.network.decoders, strict=True)
        return [self._of_layer(features[name], decoder) for name, decoder in layers]

    def _of_layer(self, features: Tensor, decoder: nn.Module) -> Tensor:
        """Log-likelihoods (B, 1, h, w) of one layer's features (B, C, h, w), computed by its flow."""
        from anomalib.models.image.cflow.utils import get_logp, positional_encoding_2d

        channels, rows, columns = features.shape[1:]
        # the flow is conditioned on a patch's position, whose encoding is the same for each image of the batch
        place = positional_encoding_2d(self.network.condition_vector, rows, columns).to(features)
        places = place.permute(1, 2, 0).expand(features.shape[0], -1, -1, -1).reshape(-1, place.shape[0])
        latent, volume = decoder(features.permute(0, 2, 3, 1).reshape(-1, channels), [places])
        likelihood: Tensor = get_logp(channels, latent, volume) / channels
        return likelihood.reshape(-1, 1, rows, columns)


class TraceableGlass(_Traceable):
    """GLASS: the discriminator's score of each patch (Chen et al., ECCV 2024)."""

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        found, parts = self.network.forward_modules["feature_aggregator"](images), self.network.forward_modules
        layers = [self._patches(found[layer]) for layer in self.network.layers]
        rows, columns = map(int, layers[0].shape[-2:])
        pooled = [_pooled_to(parts["preprocessing"].output_dim, _by_patch(layer, rows, columns)) for layer in layers]
        features = _pooled_to(parts["preadapt_aggregator"].target_dim, torch.cat(pooled, 2)).squeeze(1)
        if self.network.pre_projection:
            features = self.network.projection(features)
        patches = self.network.discriminator(features).reshape(-1, rows, columns)
        return RawScores(patches.amax((1, 2)), self.network.anomaly_segmentor.convert_to_segmentation(patches))

    def _patches(self, features: Tensor) -> Tensor:
        """Neighbourhood of each position (B, C * side * side, h, w), from features (B, C, h, w)."""
        channels, rows, columns = map(int, features.shape[1:])
        side = self.network.patch_maker.patchsize
        patches = functional.unfold(features, side, padding=side // 2)
        return patches.reshape(-1, channels * side * side, rows, columns)


def _by_patch(layer: Tensor, rows: int, columns: int) -> Tensor:
    """Features (B * rows * columns, 1, C) of a layer (B, C, h, w), resized to (rows, columns)."""
    channels = int(layer.shape[1])
    sized = functional.interpolate(layer, size=(rows, columns), mode="bilinear", align_corners=False)
    return sized.permute(0, 2, 3, 1).reshape(-1, 1, channels)


def _pooled_to(length: int, features: Tensor) -> Tensor:
    """Reduce features (n, 1, C) to (n, 1, length) by adaptive average pooling."""
    return functional.adaptive_avg_pool1d(features, length)


class TraceableGeneralAd(_Traceable):
    """GeneralAD without its attention maps, which only training uses (Strater et al., ECCV 2024)."""

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        return RawScores(*self.network.score_features(self.network.feature_extractor(images)))


class TraceableRad(_Traceable):
    """RAD: distance of each patch to nearby patches of the most similar training images (arXiv:2601.22763).

    anomalib gathers these training images' patches for one image at a time. Here patches are compared with those of all
    training images, and a penalty keeps the less similar images from being the best match.
    """

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        rows, columns = (int(side) // self.network.patch_size for side in images.shape[-2:])
        features = self.network._extract_features(images)
        penalty = self._penalty(features[-1][1])
        layers = zip(features, self.network.patch_banks, self.network._layer_weights, strict=True)
        best = [weight * self._similarity(found, bank, penalty, rows, columns) for (found, _), bank, weight in layers]
        small = sum(self.network._layer_weights) - torch.stack(best).sum(0)
        maps = functional.interpolate(
            small.reshape(-1, 1, rows, columns), size=images.shape[-2:], mode="bilinear", align_corners=False
        )
        maps = self.network.blur(maps)
        return RawScores(self.network._image_score(maps), maps)

    def _penalty(self, class_tokens: Tensor) -> Tensor:
        """Penalty on the similarities with each training image: 0 for the most similar images, 3 for all others.

        Cosine similarities differ by at most 2, so that an image with penalty 3 is never the best match.

        Args:
            class_tokens: (B, C), from the last block.

        Returns:
            (1, B, N) for N training images.
        """
        similarity = functional.normalize(class_tokens, dim=-1) @ self.network.cls_banks[-1].T
        count = int(self.network.cls_banks.shape[1])
        nearest = similarity.topk(min(self.network.k_image, count), dim=1).indices
        return torch.full_like(similarity, 3.0).scatter(1, nearest, 0.0)[None]

    def _similarity(self, patches: Tensor, bank: Tensor, penalty: Tensor, rows: int, columns: int) -> Tensor:
        """Highest cosine similarity (B, L) of patches (B, L, C) with a bank (L, N, C), where L = rows * columns."""
        query = functional.normalize(patches, dim=-1).transpose(0, 1)
        if not self.network.use_positional_bank:
            # (L, B) for each position of the bank, which is compared with the patches of all positions
            places = [(query @ place.T - penalty).amax(-1) for place in bank]
            return torch.stack(places).amax(0).T
        grid, reach, best = query.reshape(rows, columns, *query.shape[1:]), self.network.pos_radius, []
        everywhere = torch.ones_like(query[:, :, 0]).reshape(rows, columns, -1)
        for down in range(-min(reach, rows - 1), min(reach, rows - 1) + 1):
            for right in range(-min(reach, columns - 1), min(reach, columns - 1) + 1):
                # the query is shifted instead of the bank, which is much larger; similarities are shifted back
                moved = _shifted(grid, -down, -right).flatten(0, 1)
                found = (torch.matmul(moved, bank.transpose(1, 2)) - penalty).amax(-1).reshape(rows, columns, -1)
                back, inside = (_shifted(places, down, right) for places in (found, everywhere))
                best.append(torch.where(inside > 0, back, -1.0).flatten(0, 1))
        return torch.stack(best).amax(0).clamp(min=-1).T


def _shifted(grid: Tensor, up: int, left: int) -> Tensor:
    """Shift a grid (rows, columns, ...) by ``up`` rows and ``left`` columns, and fill the edges with zeros."""
    rows, columns = int(grid.shape[0]), int(grid.shape[1])
    part = grid[max(0, up) : rows + min(0, up), max(0, left) : columns + min(0, left)]
    edges = (max(0, -left), max(0, left), max(0, -up), max(0, up))
    return functional.pad(part, (0, 0) * (grid.dim() - 2) + edges)


class TraceableSuperAdd(_Traceable):
    """SuperADD: distance of each patch to the nearest patch of the memory bank.

    Features of windows are concatenated along columns and then along rows; anomalib writes them into a canvas.
    """

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        layers = [
            self._distances(*found) for found in zip(self._features(images), self.network.memory_bank, strict=True)
        ]
        sized = functional.interpolate(
            torch.stack(layers, 1), size=images.shape[-2:], mode="bilinear", align_corners=False
        )
        maps = sized.mean(1, keepdim=True)
        if self.network.blur is not None:
            maps = self.network.blur(maps)
        pixels = maps.flatten(1)
        highest = pixels.topk(max(1, int(pixels.shape[1] * self.network.score_quantile)), dim=1).values
        return RawScores(highest.mean(1), maps)

    def _distances(self, features: Tensor, bank: Tensor) -> Tensor:
        """Distances (B, h, w) of features (B, h, w, C) to the nearest row of a bank (N, C), divided by C."""
        nearest: Tensor
        nearest, _ = self.network.nearest_neighbors_chunked(features.flatten(1, 2), bank, knn_neighbors=1)
        return nearest.reshape(-1, *map(int, features.shape[1:3])) / int(features.shape[-1])

    def _features(self, images: Tensor) -> list[Tensor]:
        """Features (B, h, w, C) of each layer."""
        windows = self.network.patch_exec
        down, across = (windows.axis_patch_split(int(side)) for side in images.shape[-2:])
        rows = []
        for (top, bottom), (first, last), _ in zip(*down, strict=True):
            parts = [
                self._window(images[..., top:bottom, left:right])[:, :, first:last, start:end]
                for (left, right), (start, end), _ in zip(*across, strict=True)
            ]
            rows.append(torch.cat(parts, 3))
        return list(torch.cat(rows, 2))

    def _window(self, images: Tensor) -> Tensor:
        """Features (layers, B, h, w, C) of one window."""
        backbone = self.network.backbone
        found = backbone.dino.forward_intermediates(
            images, indices=backbone.layers, norm=False, output_fmt="NLC", intermediates_only=True
        )
        side = int(images.shape[-1]) // backbone.model_patch_size
        return torch.stack([layer.reshape(-1, side, side, int(layer.shape[-1])) for layer in found])


class TraceableMhPatchcore(_Traceable):
    """MH-PatchCore: nearest neighbours of all patches in one step, because the memory bank is small."""

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        from anomalib.models.image.mh_patchcore.torch_model import _compute_anomaly_score, _squared_l2_distance

        features, bank = self.network.feature_extractor(images), self.network.memory_bank.bank
        patches = self.network.covariance(self.network.pca(self.network.generate_embedding(features))).to(bank.dtype)
        rows, columns = map(int, features[self.network.layers[0]].shape[-2:])
        distances, places = _squared_l2_distance(patches, bank).min(1)
        distances, places = distances.reshape(-1, rows * columns), places.reshape(-1, rows * columns)
        scores = _compute_anomaly_score(distances, places, patches, bank, self.network.num_neighbors)
        maps = self.network.anomaly_map_generator(distances.reshape(-1, 1, rows, columns), images.shape[-2:])
        return RawScores(scores, maps)


class TraceableAnomalyVfm(_Traceable):
    """AnomalyVFM: its scores and maps as ``RawScores``."""

    def forward(self, images: Tensor) -> RawScores:
        """Raw scores and maps of images (B, 3, H, W)."""
        return RawScores(*self.network(images))


def scriptable_winclip(network: Any) -> nn.Module:
    """Prepare WinCLIP for TorchScript, which reads all properties: two of them raise without reference images."""
    if not network._patch_embeddings.numel():
        network._patch_embeddings = torch.zeros(1)
        network._visual_embeddings = [torch.zeros(1) for _ in network.scales]
    module: nn.Module = network
    return module


TRACEABLE: Mapping[ModelName, Callable[[Any], nn.Module]] = {
    "cfa": TraceableCfa,
    "cflow": TraceableCflow,
    "dfm": TraceableDfm,
    "fre": TraceableFre,
    "dfkde": TraceableDfkde,
    "glass": TraceableGlass,
    "generalAd": TraceableGeneralAd,
    "rad": TraceableRad,
    "superAdd": TraceableSuperAdd,
    "mhPatchcore": TraceableMhPatchcore,
    "anomalyVfm": TraceableAnomalyVfm,
    "winclip": scriptable_winclip,
}
"""Wrappers of networks by model; networks of other models are traced without one."""
