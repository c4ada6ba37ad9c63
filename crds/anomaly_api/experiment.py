"""AnomalyExperiment: train a model on images of good parts, test it, export it."""

from typing import ClassVar, Literal

from anomaly_api.artifacts import Export, Output, Tracking
from anomaly_api.base import Contract
from anomaly_api.dataset import Dataset
from anomaly_api.evaluation import Evaluation
from anomaly_api.model import ONE_PASS_MODELS, Model
from anomaly_api.resource import ObjectMeta
from anomaly_api.rules import Rule, at_most_one, default_when, immutable_once_started, unset_when
from anomaly_api.scheduling import RunPolicy, Scheduling
from anomaly_api.status import RunStatus
from anomaly_api.storage import Location, LocationRole
from anomaly_api.sweep import MODEL_NAME, Sweep
from anomaly_api.sweep_status import Trial
from anomaly_api.training import EPOCH_DEFAULTS, EPOCH_FIELDS, Training
from anomaly_api.transforms import Transforms

_SEES_IMAGES_ONCE = "it sees every training image once"

_REGISTERS_WHAT_IT_KEEPS = Rule(
    cel="!has(self.tracking.mlflow) || !has(self.tracking.mlflow.registerModel) || "
    "(self.output.uploadArtifacts && (size(self.export.types) > 0 || self.output.keepCheckpoint))",
    message="registerModel needs a model that is kept: export.types or output.keepCheckpoint, and "
    "output.uploadArtifacts",
    field="tracking.mlflow.registerModel",
    holds=lambda owner: (
        owner.tracking.mlflow is None
        or owner.tracking.mlflow.register_model is None
        or (owner.output.upload_artifacts and bool(owner.export.types or owner.output.keep_checkpoint))
    ),
)

_HAS_THE_GPUS_IT_TRAINS_ON = Rule(
    cel="!has(self.training.devices) || self.scheduling.gpus.count == 0 || has(self.scheduling.resourceClaims) || "
    "self.training.devices <= self.scheduling.gpus.count",
    message="devices may be at most scheduling.gpus.count, unless that is 0 or scheduling.resourceClaims has them",
    field="training.devices",
    holds=lambda owner: (
        owner.training.devices is None
        or owner.scheduling.gpus.count == 0
        or owner.scheduling.resource_claims is not None
        or owner.training.devices <= owner.scheduling.gpus.count
    ),
)


_HAS_EPOCHS_TO_PRUNE = Rule(
    cel="!has(self.sweep) || !has(self.sweep.pruning) || self.sweep.parameters.exists(p, p.path == 'model.name') || "
    f"!(self.model.name in [{', '.join(map(repr, ONE_PASS_MODELS))}])",
    message=f"pruning needs a model that is trained in epochs: {_SEES_IMAGES_ONCE}",
    field="sweep.pruning",
    holds=lambda owner: (
        owner.sweep is None
        or owner.sweep.pruning is None
        or any(parameter.path == MODEL_NAME for parameter in owner.sweep.parameters)
        or owner.model.name not in ONE_PASS_MODELS
    ),
)


class ExperimentSpec(Contract):
    """What to train, on which images, how to evaluate it, and where the results go."""

    rules = (
        *(
            unset_when("training", field, ("model", "name"), ONE_PASS_MODELS, _SEES_IMAGES_ONCE)
            for field in EPOCH_FIELDS
        ),
        *(
            default_when(f"training.{field}", default, ("model", "name"), ONE_PASS_MODELS, _SEES_IMAGES_ONCE)
            for field, default in EPOCH_DEFAULTS.items()
        ),
        _REGISTERS_WHAT_IT_KEEPS,
        _HAS_THE_GPUS_IT_TRAINS_ON,
        _HAS_EPOCHS_TO_PRUNE,
        at_most_one("sweep", "trial"),
    )

    dataset: Dataset
    """Images to learn from and to test on."""
    transforms: Transforms = Transforms()
    """Resizing and normalisation."""
    model: Model
    """The model and its parameters."""
    training: Training = Training()
    """Batch sizes and the course of training."""
    evaluation: Evaluation = Evaluation()
    """Threshold, metrics, pictures."""
    export: Export = Export()
    """Portable forms of the model."""
    output: Output
    """Where artifacts go."""
    tracking: Tracking = Tracking()
    """Experiment trackers."""
    scheduling: Scheduling = Scheduling()
    """Where and how the pod runs."""
    run_policy: RunPolicy = RunPolicy()
    """Suspension, retries, deadlines, clean-up."""
    sweep: Sweep | None = None
    """Run many trials over a search space."""
    trial: Trial | None = None
    """Which trial of which sweep this is: set by the operator on the experiments that it makes, and by it alone."""

    @property
    def images(self) -> Dataset:
        """The images that the run reads, under the name that both kinds share."""
        return self.dataset

    def locations(self) -> dict[LocationRole, Location]:
        """Return every folder that the run reads or writes, by role."""
        found = {
            LocationRole.DATASET: self.dataset.source.location,
            LocationRole.CACHE: self.dataset.cache.location if self.dataset.cache else None,
            LocationRole.WEIGHTS: self.model.weights,
            LocationRole.OUTPUT: self.output,
        }
        return {role: location for role, location in found.items() if location is not None}


class AnomalyExperiment(Contract):
    """Training, test and export of a model on images of good parts."""

    kind_name: ClassVar[str] = "AnomalyExperiment"
    plural: ClassVar[str] = "anomalyexperiments"
    short_name: ClassVar[str] = "aexp"
    crd_rules: ClassVar[tuple[Rule, ...]] = (
        *(
            immutable_once_started(block)
            for block in (
                "dataset",
                "transforms",
                "model",
                "training",
                "evaluation",
                "export",
                "output",
                "tracking",
                "scheduling",
                "trial",
            )
        ),
        # trials, budget and the objectives' targets are limits: a search goes on with others.
        immutable_once_started(
            "sweep",
            fields=("algorithm", "constraints", "replicates", "fidelity", "pruning", "start", "final"),
            of_lists=(
                *("parameters.path", "parameters.int", "parameters.float", "parameters.when"),
                *("objectives.metric", "objectives.goal"),
            ),
        ),
    )

    api_version: Literal["anomalyops.io/v1alpha1"] = "anomalyops.io/v1alpha1"
    kind: Literal["AnomalyExperiment"] = "AnomalyExperiment"
    metadata: ObjectMeta
    spec: ExperimentSpec
    status: RunStatus | None = None
