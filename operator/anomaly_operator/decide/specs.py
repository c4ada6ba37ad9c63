"""Specs as types. A trial's is looked at ten times within a minute, and takes half a millisecond to validate."""

from functools import lru_cache

from anomaly_api.experiment import ExperimentSpec

KEPT = 512
"""Specs that are kept (count)."""


@lru_cache(maxsize=KEPT)
def experiment_spec(spec: bytes) -> ExperimentSpec:
    """Return the spec of an experiment, which is frozen: whoever gives the same JSON gets the same object.

    Raises:
        ValidationError: it is not valid.
    """
    return ExperimentSpec.model_validate_json(spec)
