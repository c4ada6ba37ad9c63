"""Read the RunConfig of a run: from the pod's mount, or, without a cluster, from a resource's YAML."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference, InferenceSpec, TrainedModelSource
from anomaly_api.resource import describe_invalid
from anomaly_api.run import RunConfig, RunIdentity
from anomaly_api.storage import Location, S3Location
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.locations import local_path
from anomaly_runner.publish import MANIFEST
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID

_KINDS: dict[str, type[AnomalyExperiment] | type[AnomalyInference]] = {
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
            the experiment that an inference refers to has no results.
    """
    document = _load(file)
    kind = _KINDS.get(str(document.get("kind")))
    if kind is None:
        raise InvalidConfig(f"{file}: kind is {document.get('kind')!r}; expected {' or '.join(_KINDS)}")
    try:
        resource: AnomalyExperiment | AnomalyInference = kind.model_validate(document)
    except ValidationError as error:
        raise InvalidConfig(f"{file}: {describe_invalid(error, 'manifest')}") from error
    run = RunIdentity(
        kind=resource.kind, namespace=resource.metadata.namespace, name=resource.metadata.name, uid=LOCAL_UID
    )
    if isinstance(resource, AnomalyExperiment):
        return RunConfig(run=run, experiment=resource.spec)
    return RunConfig(run=run, inference=_resolve_model(resource.spec, run, folder))


def _load(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"cannot read {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise InvalidConfig(f"{file} does not hold a resource")
    return document


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
