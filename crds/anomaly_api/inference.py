"""AnomalyInference: run a trained model over images."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from anomaly_api.artifacts import Output, Tracking
from anomaly_api.base import Contract
from anomaly_api.dataset import InputData
from anomaly_api.evaluation import Metrics, ScoreLevel, Visualization
from anomaly_api.primitives import BatchSize, HttpUrl, Name, Text
from anomaly_api.resource import ObjectMeta
from anomaly_api.rules import (
    Rule,
    at_most_one,
    exactly_one,
    immutable_once_started,
    not_yet,
    only_when,
    required_when,
)
from anomaly_api.scheduling import RunPolicy, Scheduling
from anomaly_api.status import RunStatus
from anomaly_api.storage import Location, LocationRole
from anomaly_api.threshold_goals import GoalSettings, goal_rules


class RegisteredModel(Contract):
    """A model in MLflow's registry: its newest version, unless version or alias selects another."""

    rules = (at_most_one("version", "alias"),)

    name: Text
    """Registered name."""
    version: Annotated[int, Field(ge=1)] | None = None
    """Version; with neither version nor alias it is the newest one when the run starts."""
    alias: Text | None = None
    """Alias, such as champion."""
    tracking_uri: HttpUrl | None = None
    """URL of the server; unset means tracking.mlflow.trackingUri."""
    credentials_secret: Name | None = None
    """Secret with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; unset means those
    of tracking.mlflow, if its server is the same."""


class TrainedModelSource(Contract):
    """Where the model comes from: exactly one of the fields."""

    rules = (exactly_one("experiment", "location", "mlflow"),)

    experiment: Name | None = None
    """An AnomalyExperiment in the same namespace; the inference waits until it is Complete."""
    location: Location | None = None
    """Folder of an experiment's artifacts (the one that holds model.json)."""
    mlflow: RegisteredModel | None = None
    """A registered model; one that an experiment registered (tracking.mlflow.registerModel)."""


class InferenceThreshold(GoalSettings):
    """The score from which an image or a pixel counts as anomalous."""

    rules = (
        required_when("value", "source", "custom"),
        only_when("value", "source", "custom"),
        *goal_rules("source"),
    )

    source: Literal["optimalF1", "training", "custom", "falseAlarmRate", "recall", "cost"] = "optimalF1"
    """optimalF1: best F1 on the labelled images of this run; training: the one found in training; custom: the value
    below; falseAlarmRate, recall and cost: found on the labelled images of this run, as in
    evaluation.threshold.method of an experiment. Where the images that one of them needs are missing, the training
    threshold is used, and the status says so."""
    type: ScoreLevel = "image"
    """Which score the threshold is for; the other level keeps its own training threshold."""
    value: Annotated[float, Field(gt=0)] | None = None
    """Percent of the training threshold: 100 decides as in training, 120 is more tolerant."""

    @property
    def percent(self) -> float:
        """Percent of the training threshold; 100 if unset."""
        return 100.0 if self.value is None else self.value


Runtime = Literal["onnx", "torchscript", "torch"]
Precision = Literal["float32", "tf32"]

_TRAINS_NOTHING = Rule(
    cel="!has(self.tracking.mlflow) || !has(self.tracking.mlflow.registerModel)",
    message="an inference trains no model that could be registered; set it in the experiment",
    field="tracking.mlflow.registerModel",
    holds=lambda owner: owner.tracking.mlflow is None or owner.tracking.mlflow.register_model is None,
)
_REGISTRY_IS_NAMED = Rule(
    cel="!has(self.model.mlflow) || has(self.model.mlflow.trackingUri) || has(self.tracking.mlflow)",
    message="set model.mlflow.trackingUri, or tracking.mlflow.trackingUri where that is the model's server too",
    field="model.mlflow.trackingUri",
    holds=lambda owner: (
        owner.model.mlflow is None or owner.model.mlflow.tracking_uri is not None or owner.tracking.mlflow is not None
    ),
)


class InferenceSpec(Contract):
    """Which model, over which images, and where the results go."""

    rules = (_TRAINS_NOTHING, _REGISTRY_IS_NAMED, not_yet("shards"), not_yet("parallelism"))

    model: TrainedModelSource
    """The model."""
    input: InputData
    """The images."""
    threshold: InferenceThreshold = InferenceThreshold()
    """How decisions are made."""
    metrics: Metrics = Metrics()
    """Which metrics are reported, where labels are known."""
    runtime: Runtime = "onnx"
    """What executes the model: onnx runs on onnxruntime in an image without torch; torchscript needs that export,
    torch needs output.keepCheckpoint of the experiment."""
    precision: Precision = "float32"
    """Of matrix multiplications and convolutions on GPUs: tf32 rounds their input to 10 bits of mantissa, which GPUs of
    compute capability 8.0 and later do faster, and moves scores away from those of the training."""
    batch_size: BatchSize = 32
    """Images per batch."""
    num_workers: Annotated[int, Field(ge=0, le=128)] | None = None
    """Threads that read and decode images; unset means one per CPU of the pod."""
    visualization: Visualization = Visualization()
    """Pictures of predictions."""
    output: Output
    """Where results go."""
    tracking: Tracking = Tracking()
    """Experiment trackers."""
    shards: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of parts that the images are divided into."""
    parallelism: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of parts that are processed at the same time."""
    scheduling: Scheduling = Scheduling()
    """Where and how the pod runs."""
    run_policy: RunPolicy = RunPolicy()
    """Suspension, retries, deadlines, clean-up."""

    @property
    def images(self) -> InputData:
        """The images that the run reads, under the name that both kinds share."""
        return self.input

    @property
    def registry_uri(self) -> str:
        """URL of the MLflow server with the registered model ``model.mlflow``."""
        servers = (self.model.mlflow, self.tracking.mlflow)
        return next(server.tracking_uri for server in servers if server and server.tracking_uri)

    def locations(self) -> dict[LocationRole, Location]:
        """Return every folder that the run reads or writes, by role."""
        found = {
            LocationRole.MODEL: self.model.location,
            LocationRole.INPUT: self.input.source.location,
            LocationRole.CACHE: self.input.cache.location if self.input.cache else None,
            LocationRole.OUTPUT: self.output,
        }
        return {role: location for role, location in found.items() if location is not None}


class AnomalyInference(Contract):
    """Scoring of images with a trained model."""

    kind_name: ClassVar[str] = "AnomalyInference"
    plural: ClassVar[str] = "anomalyinferences"
    short_name: ClassVar[str] = "ainf"
    crd_rules: ClassVar[tuple[Rule, ...]] = tuple(
        immutable_once_started(block)
        for block in (
            "model",
            "input",
            "threshold",
            "metrics",
            "runtime",
            "precision",
            "batch_size",
            "num_workers",
            "visualization",
            "output",
            "tracking",
            "scheduling",
        )
    )

    api_version: Literal["anomalyops.io/v1alpha1"] = "anomalyops.io/v1alpha1"
    kind: Literal["AnomalyInference"] = "AnomalyInference"
    metadata: ObjectMeta
    spec: InferenceSpec
    status: RunStatus | None = None
