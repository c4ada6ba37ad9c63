"""Checks of the training images of models with principal components (DFKDE, DFM), which anomalib does not make.

With fewer images than components, anomalib's DFKDE is left without a model; of images that are all alike, the
components are rounding errors; and all of the variance, ``pcaLevel: 1``, may never be reached by a sum of shares.
"""

from typing import Any

import torch

from anomaly_api.parameters import DfkdeParameters, DfmParameters, ModelParameters
from anomaly_runner.errors import DataInvalid, Diverged, InvalidConfig

_ROUNDING = 1e-5
"""Largest difference of the features of equal images, relative to the largest feature: they are scored in batches."""


def check_enough_images(parameters: ModelParameters, count: int) -> None:
    """Check that ``count`` training images are enough for the components that DFKDE is asked for.

    Raises:
        InvalidConfig: there are fewer images than components.
    """
    if isinstance(parameters, DfkdeParameters) and count < parameters.n_pca_components:
        raise InvalidConfig(
            f"model.dfkde.nPcaComponents is {parameters.n_pca_components}, but there are only {count} training images: "
            f"add images, or lower nPcaComponents to at most {count}"
        )


def check_features(parameters: ModelParameters, network: Any) -> None:
    """Check the features that a DFKDE or DFM of anomalib has collected, and settle what "all components" is for DFM.

    Args:
        parameters: the model's parameters.
        network: anomalib's torch model before its ``fit``; its memory bank is a list of features (B, D).

    Raises:
        DataInvalid: the training images are all alike.
        Diverged: the features are not finite.
    """
    if not isinstance(parameters, DfkdeParameters | DfmParameters):
        return
    features = torch.vstack(network.memory_bank)
    if not bool(torch.isfinite(features).all()):
        raise Diverged("the features of the training images are not numbers: the backbone's weights overflow")
    if float((features.amax(0) - features.amin(0)).max()) <= _ROUNDING * float(features.abs().max()):
        raise DataInvalid(
            f"the {len(features)} training images are all alike: "
            f"{parameters.name.upper()} learns from how good images differ"
        )
    if isinstance(parameters, DfmParameters) and parameters.pca_level == 1:
        # Features less their mean have one dimension fewer than there are images. anomalib takes 1 for a share.
        network.pca_model.n_components = max(2, min(len(features) - 1, features.shape[1]))
