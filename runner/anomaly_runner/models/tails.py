"""The last steps of some of anomalib's models, written for any batch size.

Their own code writes the batch's size into the graph when it is traced, or loops over its images in Python. The same
arithmetic, without both.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Raw(NamedTuple):
    """As anomalib's InferenceBatch."""

    pred_score: Tensor
    anomaly_map: Tensor | None = None


class _Tail(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def _pooled(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.feature_extractor(images)[self.network.layer]
        kernel = self.network.pooling_kernel_size
        return functional.avg_pool2d(features, kernel) if kernel > 1 else features


class DfmTail(_Tail):
    """DFM: feature reconstruction error of pooled features."""

    def forward(self, images: Tensor) -> Raw:
        """Raw scores and maps of images (B, 3, H, W)."""
        features = self._pooled(images)
        centred = features.flatten(1) - self.network.pca_model.mean
        reduced = torch.matmul(centred, self.network.pca_model.singular_vectors)
        error = (centred - self.network.pca_model.inverse_transform(reduced)).square()
        return Raw(error.sum(1), _as_map(error, features, images))


class FreTail(_Tail):
    """FRE: reconstruction error of pooled features."""

    def forward(self, images: Tensor) -> Raw:
        """Raw scores and maps of images (B, 3, H, W)."""
        features = self._pooled(images)
        flat = features.flatten(1)
        error = (flat - self.network.fre_model(flat)).square()
        return Raw(error.sum(1), _as_map(error, features, images))


def _as_map(error: Tensor, features: Tensor, images: Tensor) -> Tensor:
    maps = error.reshape(-1, *features.shape[1:]).sum(1, keepdim=True)
    return functional.interpolate(maps, size=images.shape[-2:], mode="bilinear", align_corners=False)


class DfkdeTail(nn.Module):
    """DFKDE: kernel density of pooled features."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Raw:
        """Raw scores of images (B, 3, H, W)."""
        features = self.network.feature_extractor(images)
        pooled = torch.cat([functional.adaptive_avg_pool2d(found, 1).flatten(1) for found in features.values()])
        classifier = self.network.classifier
        reduced = torch.matmul(pooled - classifier.pca_model.mean, classifier.pca_model.singular_vectors)
        scaled, _ = classifier.pre_process(reduced, classifier.max_length)
        density = classifier.kde_model
        projected = torch.matmul(scaled, density.bw_transform)
        squared = (projected[:, None] - density.dataset).square().sum(2)
        likelihood = ((-squared / 2).exp() * density.norm).mean(1)
        return Raw(classifier.compute_probabilities((likelihood + 1e-300).log()))


class CflowTail(nn.Module):
    """CFLOW: how unlikely each patch is, over all layers.

    anomalib relates likelihoods to the largest of the batch, so that an image's score depends on its neighbours. Here
    they are related to the largest of some training images (``calibrate``), which changes no order within a batch of
    one, and makes scores of different batches comparable.
    """

    peaks: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("peaks", torch.zeros(len(network.pool_layers)))

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Note each layer's largest log-likelihood of these images (B, 3, H, W)."""
        self.peaks = torch.stack([likelihood.max() for likelihood in self._log_likelihoods(images)])

    def forward(self, images: Tensor) -> Raw:
        """Raw scores and maps of images (B, 3, H, W)."""
        likelihoods = self._log_likelihoods(images)
        layers = [functional.interpolate((likelihood - peak).exp(), size=images.shape[-2:], mode="bilinear",
                                         align_corners=True)
                  for likelihood, peak in zip(likelihoods, self.peaks, strict=True)]  # fmt: skip
        maps = len(layers) - torch.stack(layers).sum(0)
        return Raw(maps.amax((1, 2, 3)), maps)

    def _log_likelihoods(self, images: Tensor) -> list[Tensor]:
        """Log-likelihood a channel of each patch, one (B, 1, h, w) a layer."""
        features = self.network.encoder(images)
        layers = zip(self.network.pool_layers, self.network.decoders, strict=True)
        return [self._of_layer(features[name], decoder) for name, decoder in layers]

    def _of_layer(self, features: Tensor, decoder: nn.Module) -> Tensor:
        from anomalib.models.image.cflow.utils import get_logp, positional_encoding_2d

        channels, rows, columns = features.shape[1:]
        place = positional_encoding_2d(self.network.condition_vector, rows, columns).to(features)
        places = place.permute(1, 2, 0).expand(features.shape[0], -1, -1, -1).reshape(-1, place.shape[0])
        latent, volume = decoder(features.permute(0, 2, 3, 1).reshape(-1, channels), [places])
        likelihood: Tensor = get_logp(channels, latent, volume) / channels
        return likelihood.reshape(-1, 1, rows, columns)


class GlassTail(nn.Module):
    """GLASS: what the discriminator says of each patch."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Raw:
        """Raw scores and maps of images (B, 3, H, W)."""
        found, parts = self.network.forward_modules["feature_aggregator"](images), self.network.forward_modules
        layers = [self._patches(found[layer]) for layer in self.network.layers]
        rows, columns = map(int, layers[0].shape[-2:])
        pooled = [_pooled_to(parts["preprocessing"].output_dim, _by_patch(layer, rows, columns)) for layer in layers]
        features = _pooled_to(parts["preadapt_aggregator"].target_dim, torch.cat(pooled, 2)).squeeze(1)
        if self.network.pre_projection:
            features = self.network.projection(features)
        patches = self.network.discriminator(features).reshape(-1, rows, columns)
        return Raw(patches.amax((1, 2)), self.network.anomaly_segmentor.convert_to_segmentation(patches))

    def _patches(self, features: Tensor) -> Tensor:
        """Each position's neighbourhood (B, C * side * side, h, w)."""
        channels, rows, columns = map(int, features.shape[1:])
        side = self.network.patch_maker.patchsize
        patches = functional.unfold(features, side, padding=side // 2)
        return patches.reshape(-1, channels * side * side, rows, columns)


def _by_patch(layer: Tensor, rows: int, columns: int) -> Tensor:
    """A layer's features at these many positions (B * rows * columns, 1, C)."""
    channels = int(layer.shape[1])
    sized = functional.interpolate(layer, size=(rows, columns), mode="bilinear", align_corners=False)
    return sized.permute(0, 2, 3, 1).reshape(-1, 1, channels)


def _pooled_to(length: int, features: Tensor) -> Tensor:
    return functional.adaptive_avg_pool1d(features, length)


class GeneralAdTail(_Tail):
    """GeneralAD: the same without the attention that only training looks at."""

    def forward(self, images: Tensor) -> Raw:
        """Raw scores and maps of images (B, 3, H, W)."""
        return Raw(*self.network.score_features(self.network.feature_extractor(images)))


TAILS: Mapping[str, Callable[[Any], nn.Module]] = {
    "cflow": CflowTail, "dfm": DfmTail, "fre": FreTail, "dfkde": DfkdeTail, "glass": GlassTail,
    "generalAd": GeneralAdTail,
}  # fmt: skip
