"""What is wrong with a sweep, beyond what the API server can say: whether its values fit the spec.

Each value is put into the spec and the whole is validated, so that bounds and the rules between fields hold for the
trials. Values of the other parameters are chosen such that it works, if there are any.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from pydantic import ValidationError

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.model import MODEL_NAMES
from anomaly_api.sweep import MODEL_NAME, Sweep
from anomaly_api.sweep_fields import offer, unknown_field
from anomaly_api.sweep_points import Allowed, points
from anomaly_api.sweep_space import leads_into
from anomaly_api.sweep_trial import Json, as_written, with_values
from anomaly_api.sweep_values import Candidate, Dimension, dimensions

MOST_FAULTS = 20
"""Faults after which no more values are tried: each takes many."""
GPU_MEMORY = "performance.peakGpuMemoryBytes"


@dataclass(frozen=True)
class Fault:
    """A part of the sweep that cannot work, and why."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


def check_sweep(spec: ExperimentSpec) -> tuple[Fault, ...]:
    """Return what cannot work, whatever the search does; nothing for a spec without a sweep.

    Later checks need that the earlier ones found nothing: paths lead to fields, values are those of their parameters,
    the spec with each value is valid.
    """
    sweep = spec.sweep
    if sweep is None:
        return ()
    space = dimensions(sweep)
    written = as_written(spec)
    return (
        tuple(_path_faults(space))
        or (*_list_faults(space), *_model_faults(space), *_metric_faults(spec, sweep))
        or tuple(islice(chain(_value_faults(written, space), _start_faults(written, sweep, space)), MOST_FAULTS))
    )


def describe_faults(faults: Sequence[Fault]) -> str:
    """Describe faults in one line, at most five."""
    more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
    return "; ".join(map(str, faults[:5])) + more


def _path_faults(space: Sequence[Dimension]) -> Iterator[Fault]:
    for dimension in space:
        if problem := unknown_field(dimension.path):
            yield Fault(f"{dimension.place}.path", problem)


def _list_faults(space: Sequence[Dimension]) -> Iterator[Fault]:
    """Values that are listed twice, and conditions on values that never occur."""
    by_path = {dimension.path: dimension for dimension in space}
    for dimension in space:
        for candidate in dimension.repeated():
            yield Fault(f"{dimension.place}{candidate.place}", f"{candidate} is listed twice")
        if dimension.when is None:
            continue
        parent = by_path[dimension.when.path]
        for index, value in enumerate(dimension.when.values):
            if not parent.holds(value):
                yield Fault(f"{dimension.place}.when.in[{index}]", f"{parent.path} is never {json.dumps(value)}")


def _model_faults(space: Sequence[Dimension]) -> Iterator[Fault]:
    """Parameters of one model, where other models are tried too."""
    models = next((dimension for dimension in space if dimension.path == MODEL_NAME), None)
    for dimension in space:
        owner = dimension.path.split(".")[1]
        if models is None or not dimension.path.startswith("model.") or owner not in MODEL_NAMES:
            continue
        tried = _when_holds(dimension, {other.path: other for other in space}) or models.values()
        if others := [str(value) for value in tried if value != owner]:
            yield Fault(
                dimension.place,
                f"{dimension.path} exists for {owner} alone, and {', '.join(others)} would have it too: "
                f"add when: {{path: {MODEL_NAME}, in: [{owner}]}}",
            )


def _when_holds(dimension: Dimension, by_path: Mapping[str, Dimension]) -> Sequence[Any]:
    """Return the models for which a dimension exists, by its condition or those of what it depends on."""
    while dimension.when is not None:
        if dimension.when.path == MODEL_NAME:
            return dimension.when.values
        dimension = by_path[dimension.when.path]
    return ()


def _metric_faults(spec: ExperimentSpec, sweep: Sweep) -> Iterator[Fault]:
    """Objectives and constraints that no trial computes."""
    places = [(f"spec.sweep.objectives[{index}]", wanted.metric) for index, wanted in enumerate(sweep.objectives)]
    places += [(f"spec.sweep.constraints[{index}]", wanted.metric) for index, wanted in enumerate(sweep.constraints)]
    searched = [parameter.path for parameter in sweep.parameters]
    if not spec.scheduling.gpus.count and not any(leads_into(path, "scheduling.gpus") for path in searched):
        for place in (place for place, metric in places if metric == GPU_MEMORY):
            yield Fault(f"{place}.metric", f"{GPU_MEMORY} is not measured: scheduling.gpus.count is 0")
    decisive = ("evaluation.metrics", "dataset.task", "dataset.splits")
    if any(leads_into(path, field) for path in searched for field in decisive):
        return  # some trials may compute what others do not
    metrics = spec.evaluation.metrics
    computed: dict[str, Sequence[str]] = {
        "image": metrics.image,
        "pixel": metrics.pixel if spec.dataset.task == "segmentation" else (),
    }
    named = tuple(f"{level}{name}" for level, names in computed.items() for name in names)
    computed["synthetic"] = named if spec.dataset.splits.synthetic_defects else ()
    for place, metric in places:
        group, _, name = metric.partition(".")
        if name not in computed.get(group, (name,)):
            yield Fault(f"{place}.metric", f"{metric} is not computed: {_remedy(spec, group, name)}")


def _remedy(spec: ExperimentSpec, group: str, name: str) -> str:
    if group == "synthetic":
        if not spec.dataset.splits.synthetic_defects:
            return "add dataset.splits.syntheticDefects"
        group, name = ("image" if name.startswith("image") else "pixel"), name[len("image") :]
    if group == "pixel" and spec.dataset.task != "segmentation":
        return f"dataset.task is {spec.dataset.task}, which has image metrics alone"
    return f"add {name} to evaluation.metrics.{group}"


def _value_faults(written: Json, space: Sequence[Dimension]) -> Iterator[Fault]:
    """Values with which the spec is invalid, whatever the other parameters are."""
    if _problem(written, space, {}):
        # No point works, so that every value is at fault together with the others: those that are alone come first.
        alone = [fault for each in space for fault in _dimension_faults(written, _with_ancestors(space, each), each)]
        if alone:
            yield from alone
            return
    for dimension in space:
        yield from _dimension_faults(written, space, dimension)


def _dimension_faults(written: Json, space: Sequence[Dimension], dimension: Dimension) -> Iterator[Fault]:
    tried = [(value, _value_problem(written, space, dimension, value)) for value in dimension.candidates]
    faults = [(value, problem) for value, problem in tried if problem]
    if len(faults) == len(tried) > 1 and len({problem for _, problem in faults}) == 1:
        yield Fault(dimension.place, f"no value works: {faults[0][1]}")
    else:
        yield from (Fault(f"{dimension.place}{value.place}", f"{value}: {problem}") for value, problem in faults)


def _value_problem(written: Json, space: Sequence[Dimension], dimension: Dimension, value: Candidate) -> str | None:
    """Try a value with each value of the parameter that it depends on."""
    allowed = {**_ancestors(space, dimension), dimension.path: (value,)}
    if dimension.when is None:
        return _problem(written, space, allowed, dimension.path)
    path = dimension.when.path
    for parent in allowed[path]:
        if problem := _problem(written, space, {**allowed, path: (parent,)}, dimension.path):
            return f"where {path} is {parent}: {problem}"
    return None


def _ancestors(space: Sequence[Dimension], dimension: Dimension) -> dict[str, Sequence[Candidate]]:
    """Return the values of the parameters that a dimension depends on with which it exists."""
    by_path = {other.path: other for other in space}
    found: dict[str, Sequence[Candidate]] = {}
    while dimension.when is not None:
        found[dimension.when.path] = [Candidate(value) for value in dimension.when.values]
        dimension = by_path[dimension.when.path]
    return found


def _with_ancestors(space: Sequence[Dimension], dimension: Dimension) -> list[Dimension]:
    """Return a dimension after those that it depends on."""
    kept = {*_ancestors(space, dimension), dimension.path}
    return [other for other in space if other.path in kept]


def _problem(written: Json, space: Sequence[Dimension], allowed: Allowed, path: str = "") -> str | None:
    """Return why no point works with the allowed values; None if one does.

    Args:
        written: the spec.
        space: the dimensions.
        allowed: values that some dimensions may have.
        path: the field in question: what is wrong there does not depend on others.
    """
    first = None
    for point in points(space, allowed):
        try:
            ExperimentSpec.model_validate_json(json.dumps(with_values(written, point)), strict=True)
        except ValidationError as error:
            faults = [(".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors(include_url=False)]
            own = [message for place, message in faults if path and leads_into(place, path)]
            if own:
                return own[0]
            first = first or "; ".join(f"{place}: {message}" if place else message for place, message in faults[:2])
        else:
            return None
    return first


def _start_faults(written: Json, sweep: Sweep, space: Sequence[Dimension]) -> Iterator[Fault]:
    """Start points outside the space, and those with which the spec is invalid, whatever they leave open is."""
    searched = {dimension.path: dimension for dimension in space if dimension.searched}
    for index, point in enumerate((sweep.start and sweep.start.points) or ()):
        place = f"spec.sweep.start.points[{index}]"
        outside = [Fault(f"{place}.{path}", problem) for path, problem in _outside(point, searched)]
        yield from outside
        if outside:
            continue
        needed = {key: values for path in point for key, values in _ancestors(space, searched[path]).items()}
        given = {path: (Candidate(value),) for path, value in point.items()}
        if problem := _problem(written, space, {**needed, **given}):
            yield Fault(place, problem)


def _outside(point: Json, searched: Mapping[str, Dimension]) -> Iterator[tuple[str, str]]:
    """Yield the path of each value that the space has not, and why."""
    for path, value in point.items():
        dimension = searched.get(path)
        if dimension is None:
            yield path, f"it is not searched{offer(path, tuple(searched))}"
        elif not dimension.holds(value):
            yield path, f"{json.dumps(value)} is not one of its values"
        elif dimension.when and dimension.when.path in point and not dimension.exists(point):
            yield path, f"it is not searched where {dimension.when.path} is {json.dumps(point[dimension.when.path])}"
