"""The specs of a sweep's trials and of its end: what a person would have written for these values.

Specs are JSON as in manifests. A point has values by path: those of the parameters that apply, and, for one run of it,
those of its replicate and of its rung (``point | replicate_points(sweep)[replicate] | rung_point(sweep, rung)``).
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.model import MODEL_NAMES
from anomaly_api.sweep import MODEL_NAME, Sweep
from anomaly_api.sweep_exchange import watched_metric
from anomaly_api.sweep_space import normal

Json = dict[str, Any]

TIMED = ("performance.latencyMilliseconds", "performance.latencyMillisecondsP90", "performance.imagesPerSecond")
"""Metrics for which the trained model is timed."""
MEASURED_ON_EXPORTS = (*TIMED, "performance.modelBytes")
"""Metrics of the exported model, where there is one; the others need none."""

_MEASURED_FORMATS = ("onnx", "torchscript")
"""Formats that a run measures, the preferred first; another one only where there is neither."""


def trial_spec(spec: ExperimentSpec, point: Mapping[str, Any]) -> Json:
    """Return the spec of one trial: the sweep's spec with these values, publishing its report and metrics alone.

    A model is exported and timed only where an objective or a constraint measures that; nothing is registered, drawn
    or profiled. With pruning, every epoch is validated unless the spec says how many are, so that there is a curve.

    Args:
        spec: an experiment with a sweep.
        point: values by path.
    """
    document = with_values(as_written(spec), point)
    document["export"] = _export_of_a_trial(spec, document.get("export", {}))
    document["output"] = {**document["output"], "uploadArtifacts": False}
    put(document, "evaluation.latency.enabled", not _measured(spec).isdisjoint(TIMED))
    for path in ("output.keepCheckpoint", "evaluation.visualization", "training.profile", *_PARENTS_OWN):
        remove(document, path)
    if spec.run_policy.preflight != "Always":
        put(document, "runPolicy.preflight", "Never")  # the sweep itself was checked
    if _sweep(spec).pruning:
        _have_a_curve(spec, document)
    return document


def _have_a_curve(spec: ExperimentSpec, document: Json) -> None:
    """Have every epoch validated, on the objective: the median stops trials, where the spec asks for no other way."""
    if spec.training.check_val_every_n_epoch is None:
        put(document, "training.checkValEveryNEpoch", 1)
    if spec.training.early_stopping is None:
        put(document, "training.earlyStopping.enabled", False)
    put(document, "training.earlyStopping.metric", watched_metric(_sweep(spec).objectives[0].metric))


_PARENTS_OWN = ("tracking.mlflow.registerModel", "tracking.mlflow.runName", "runPolicy.suspend", "runPolicy.rerun")
"""Fields that are about the experiment under its own name."""


def final_spec(spec: ExperimentSpec, point: Mapping[str, Any]) -> Json:
    """Return the spec of the run at the sweep's end: everything as the sweep's spec says, with these values.

    The field of fidelity keeps the spec's value; where there is none, it has the last one of the sweep's.

    Args:
        spec: an experiment with a sweep.
        point: values of the parameters by path, without those of replicates and rungs.
    """
    document = with_values(as_written(spec), point)
    fidelity = _sweep(spec).fidelity
    if fidelity and _value(spec.to_json_object(), fidelity.path) is None:
        put(document, fidelity.path, normal(fidelity.values[-1]))
    return document


def replicate_points(sweep: Sweep) -> tuple[Json, ...]:
    """Return the values by path of each replicate of a point, by its number; the last path's change fastest."""
    if sweep.replicates is None:
        return ({},)
    paths = [replicated.path for replicated in sweep.replicates.paths]
    values = product(*(replicated.values for replicated in sweep.replicates.paths))
    return tuple(dict(zip(paths, chosen, strict=True)) for chosen in values)


def rung_point(sweep: Sweep, rung: int) -> Json:
    """Return the value of the fidelity's field by its path; nothing for a sweep without one."""
    return {sweep.fidelity.path: normal(sweep.fidelity.values[rung])} if sweep.fidelity else {}


def as_written(spec: ExperimentSpec) -> Json:
    """Return the spec without its sweep and without what it leaves to the defaults."""
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True, exclude={"sweep"})


def with_values(document: Json, point: Mapping[str, Any]) -> Json:
    """Return a copy of a spec with these values, and without the parameters of models other than the chosen one."""
    changed: Json = normal(document)  # a copy; deepcopy would take most of a check's time
    chosen = point.get(MODEL_NAME, document["model"]["name"])
    for name in MODEL_NAMES:
        if name != chosen:
            changed["model"].pop(name, None)
    for path, value in point.items():
        if value is None:
            remove(changed, path)
        else:
            put(changed, path, normal(value))
    return changed


def put(document: Json, path: str, value: Any) -> None:
    """Set a field of an object, and make the objects that lead to it."""
    *parents, last = path.split(".")
    owner = document
    for step in parents:
        owner = owner.setdefault(step, {})
    owner[last] = value


def remove(document: Json, path: str) -> None:
    """Remove a field of an object, if it is there."""
    parent, _, last = path.rpartition(".")
    owner = _value(document, parent)
    if isinstance(owner, dict):
        owner.pop(last, None)


def _value(document: Json, path: str) -> Any:
    """Return the value of a field; None if it is not there."""
    found: Any = document
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _export_of_a_trial(spec: ExperimentSpec, export: Json) -> Json:
    """Return the block export: without formats, or with the one that the run measures."""
    if _measured(spec).isdisjoint(MEASURED_ON_EXPORTS):
        return {"types": []}
    types = export.get("types", list(spec.export.types))
    measured = [name for name in _MEASURED_FORMATS if name in types] or list(types)
    return export | {"types": measured[:1]}


def _measured(spec: ExperimentSpec) -> set[str]:
    """Return the metrics that decide about a trial."""
    sweep = _sweep(spec)
    metrics = [objective.metric for objective in sweep.objectives]
    return {*metrics, *(constraint.metric for constraint in sweep.constraints)}


def _sweep(spec: ExperimentSpec) -> Sweep:
    assert spec.sweep is not None, "the spec of a sweep"
    return spec.sweep
