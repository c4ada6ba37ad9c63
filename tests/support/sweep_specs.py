"""Experiments with sweeps, for tests of what is made of them."""

from typing import Any

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.sweep import Sweep
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
    """Read a spec with a sweep, which is put in afterwards, as this version refuses manifests with one."""
    plain = ExperimentSpec.model_validate({name: block for name, block in document.items() if name != "sweep"})
    return plain.model_copy(update={"sweep": Sweep.model_validate(document["sweep"])})
