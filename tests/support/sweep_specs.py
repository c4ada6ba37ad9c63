"""Experiments with sweeps, for tests of what is made of them."""

from typing import Any

from anomaly_api.experiment import ExperimentSpec
from support.bad_manifests import base, merged

AUROC = {"metric": "image.AUROC", "goal": "maximize"}


def sweep_spec(*parameters: dict[str, Any], change: dict[str, Any] | None = None, **sweep: Any) -> ExperimentSpec:
    """Return the spec of the good sample (PaDiM) with a sweep.

    Args:
        parameters: of the sweep.
        change: of the sample's spec, a JSON merge patch.
        sweep: further fields of the sweep.
    """
    plain = merged(base("AnomalyExperiment")["spec"], change or {})
    return with_sweep(plain | {"sweep": {"parameters": parameters, "objectives": [AUROC]} | sweep})


def with_sweep(document: dict[str, Any]) -> ExperimentSpec:
    """Read a spec with a sweep."""
    return ExperimentSpec.model_validate(document)
