"""What the contract says of models is what the runner does with them."""

from typing import get_args

from anomaly_api.model import ONE_PASS_MODELS, ModelName
from anomaly_runner.models.catalog import CATALOG


def test_every_model_is_in_the_catalogue() -> None:
    assert set(CATALOG) == set(get_args(ModelName))


def test_epochs_are_for_those_that_train_by_gradient() -> None:
    assert set(ONE_PASS_MODELS) == {name for name, entry in CATALOG.items() if not entry.by_gradient}
