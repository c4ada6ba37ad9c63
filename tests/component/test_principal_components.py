"""Few, equal or all-explaining training images end DFKDE and DFM with a reason, or work."""

from types import SimpleNamespace

import pytest
import torch

from anomaly_api.parameters import DfkdeParameters, DfmParameters, PadimParameters
from anomaly_runner.errors import DataInvalid, Diverged, InvalidConfig
from anomaly_runner.models.anomalib_model import import_quietly
from anomaly_runner.training.principal_components import check_enough_images, check_features

IMAGES, FEATURES = 8, 40


def features(seed: int = 0) -> torch.Tensor:
    return torch.randn(IMAGES, FEATURES, generator=torch.Generator().manual_seed(seed))


def network(bank: torch.Tensor, level: float = 1.0) -> SimpleNamespace:
    """A network of anomalib that has collected features in batches of three."""
    pca = import_quietly("anomalib.models.components").PCA(n_components=level)
    return SimpleNamespace(memory_bank=[bank[:3], bank[3:]], pca_model=pca)


@pytest.mark.parametrize("count", [2, 8, 15])
def test_fewer_images_than_components_are_told_with_the_field_and_both_numbers(count: int) -> None:
    with pytest.raises(InvalidConfig, match=rf"nPcaComponents is 16, but there are only {count}"):
        check_enough_images(DfkdeParameters(), count)
    check_enough_images(DfkdeParameters(n_pca_components=count), count)
    check_enough_images(DfmParameters(), count)


@pytest.mark.parametrize("parameters", [DfkdeParameters(), DfmParameters()])
@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_equal_images_are_told_even_where_their_features_differ_by_rounding(
    parameters: DfkdeParameters | DfmParameters, noise: float
) -> None:
    equal = features()[:1].repeat(IMAGES, 1) + noise * features(1)
    with pytest.raises(DataInvalid, match="the 8 training images are all alike"):
        check_features(parameters, network(equal))


def test_features_that_are_not_numbers_are_told() -> None:
    with pytest.raises(Diverged):
        check_features(DfmParameters(), network(torch.full((4, 4), torch.nan)))


def test_other_models_collect_what_they_like() -> None:
    check_features(PadimParameters(), SimpleNamespace())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_all_of_the_variance_is_all_components(seed: int, scale: float) -> None:
    """anomalib looks for a sum of shares of 1, which rounding may miss, and then leaves the last component out."""
    bank = features(seed) * scale
    prepared = network(bank)
    check_features(DfmParameters(pca_level=1), prepared)
    pca = prepared.pca_model
    pca.fit(bank.clone())
    assert pca.singular_vectors.shape == (FEATURES, IMAGES - 1)
    again = pca.inverse_transform(pca.transform(bank.clone())) + pca.mean
    torch.testing.assert_close(again / scale, bank / scale)


@pytest.mark.parametrize("level", [0.5, 0.97])
def test_a_share_of_the_variance_stays_anomalibs(level: float) -> None:
    prepared = network(features(), level)
    check_features(DfmParameters(pca_level=level), prepared)
    assert prepared.pca_model.n_components == level
