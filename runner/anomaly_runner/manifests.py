"""Read the RunConfig of a run: from the pod's mount, or, without a cluster, from a resource's YAML."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference, InferenceSpec, TrainedModelSource
from anomaly_api.resource import describe_invalid
from anomaly_api.run import RunConfig, RunIdentity
from anomaly_api.storage import Location, S3Location
from anomaly_api.sweep_check import check_sweep, describe_faults
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.locations import local_path
from anomaly_runner.publish import MANIFEST
from anomaly_runner.system.kubectl_yaml import read_documents
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID

Resource = AnomalyExperiment | AnomalyInference

_KINDS: dict[str, type[Resource]] = {
    "AnomalyExperiment": AnomalyExperiment,
    "AnomalyInference": AnomalyInference,
}


def read_config(file: Path) -> RunConfig:
    """Read the RunConfig that the operator mounted.

    Raises:
        InvalidConfig: the file is missing, or is not a RunConfig of this version.
    """
    try:
        return RunConfig.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InvalidConfig(f"cannot read {file}: {error.strerror}") from error
    except ValidationError as error:
        raise InvalidConfig(f"{file}: {describe_invalid(error, 'config')}") from error


def read_resource(file: Path, folder: Path) -> RunConfig:
    """Make the RunConfig of a resource's YAML, with its references resolved below the local folder.

    Raises:
        InvalidConfig: the file is not YAML, not of a known kind, or not valid (every fault with its field's path), or
            the experiment that an inference refers to has no results, or a sweep has points that cannot work.
    """
    try:
        resource = parse_resource(_load(file))
    except ValidationError as error:
        raise InvalidConfig(f"{file}: {describe_invalid(error, 'manifest')}") from error
    run = RunIdentity(
        kind=resource.kind, namespace=resource.metadata.namespace, name=resource.metadata.name, uid=LOCAL_UID
    )
    if isinstance(resource, AnomalyExperiment):
        if faults := check_sweep(resource.spec):
            raise InvalidConfig(f"{file}: {describe_faults(faults)}")
        return RunConfig(run=run, experiment=resource.spec)
    return RunConfig(run=run, inference=_resolve_model(resource.spec, run, folder))


def parse_resource(document: dict[str, Any]) -> Resource:
    """Read a resource as strictly as the API server: no value is converted to another type, nulls are unset fields.

    Raises:
        ValidationError: the API server would refuse it.
    """
    kind = _KINDS[document["kind"]]
    try:
        return kind.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        if any(fault["input"] is not None or fault["type"] == "extra_forbidden" for fault in error.errors()):
            raise
    return kind.model_validate_json(json.dumps(_without_nulls(document)), strict=True)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _load(file: Path) -> dict[str, Any]:
    """The one experiment or inference of a file; other kinds, such as Secrets beside it, mean nothing to a local run.

    Raises:
        InvalidConfig: there is none, or more than one, or the file cannot be read.
    """
    documents = [item for document in _documents(file) for item in _items(document)]
    found = [document for document in documents if document.get("kind") in _KINDS]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidConfig(f"{file} holds {', '.join(map(_title, found))}: a local run takes a file with one of them")
    if not documents:
        raise InvalidConfig(f"{file} does not hold a resource")
    kinds = ", ".join(repr(document.get("kind")) for document in documents)
    raise InvalidConfig(f"{file}: kind is {kinds}; expected {' or '.join(_KINDS)}")


def _items(document: Any) -> list[dict[str, Any]]:
    """The objects of a document, which may be a List of them."""
    if not isinstance(document, dict):
        return []
    items = document.get("items")
    if document.get("kind") == "List" and isinstance(items, list):
        return [item for item in items if isinstance(item, dict)]
    return [document]


def _title(document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    return f"{document['kind']} {metadata.get('name') if isinstance(metadata, dict) else '?'}"


def _documents(file: Path) -> list[Any]:
    try:
        return read_documents(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"cannot read {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{file} is not YAML: {' '.join(str(error).split())}") from error


def _resolve_model(spec: InferenceSpec, run: RunIdentity, folder: Path) -> InferenceSpec:
    """The spec with ``model.experiment`` replaced by the folder of that experiment's results."""
    if spec.model.experiment is None:
        return spec
    inside = Path(run.namespace) / spec.model.experiment / LOCAL_UID
    usual = local_path(spec.output) / inside
    found = usual if (folder / usual / MANIFEST).is_file() else _search(folder, inside)
    if found is None:
        raise InvalidConfig(f"the experiment {spec.model.experiment} has no results below {folder}: run it first")
    bucket = Location(s3=S3Location(uri=f"s3://{found.as_posix()}"))
    return _copy(spec, model=TrainedModelSource(location=bucket))


def _search(folder: Path, inside: Path) -> Path | None:
    found = sorted(folder.glob(f"**/{inside}/{MANIFEST}"))
    return found[0].parent.relative_to(folder) if found else None


def _copy(spec: InferenceSpec, **changes: BaseModel) -> InferenceSpec:
    return spec.model_copy(update=changes)
