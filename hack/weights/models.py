"""What models load, for models given on the command line: by name, or as the block of a manifest."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from pydantic import ValidationError

from anomaly_api.model import Model
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.models.weights import Wanted, wanted_weights


def wanted_of(models: Sequence[str], backbone: str | None) -> list[Wanted]:
    """Return everything that the models load, without duplicates.

    Args:
        models: names, or blocks in YAML.
        backbone: replaces the default backbone of each model that has one.

    Raises:
        InvalidConfig: there is no such model, or it cannot have these parameters.
        WeightsNotFound: timm knows no repository for the backbone's weights.
    """
    found = [_model(text, backbone) for text in models]
    if backbone and not any(hasattr(model.parameters, "backbone") for model in found):
        raise InvalidConfig(f"--backbone {backbone}: {' and '.join(model.name for model in found)} have none to choose")
    return list(dict.fromkeys(wanted for model in found for wanted in wanted_weights(model)))


def _model(text: str, backbone: str | None) -> Model:
    try:
        block = yaml.safe_load(text)
        model = Model.model_validate(block if isinstance(block, dict) else {"name": block})
        if not backbone or not hasattr(model.parameters, "backbone"):
            return model
        chosen = model.parameters.model_dump(by_alias=True) | {"backbone": backbone}
        return Model.model_validate({"name": model.name, model.name: chosen})
    except yaml.YAMLError as error:
        raise InvalidConfig(f"--model {text} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidConfig(f"--model {text}: {where}: {first['msg']}") from error
