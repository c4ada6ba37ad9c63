"""The status of both kinds: small, typed, written by the operator alone.

Conditions follow batch/v1 Jobs (Suspended, Complete, Failed: ``kubectl wait --for=condition=Complete``) and
kstatus (Reconciling, Stalled: Flux and Argo CD).
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.base import Contract
from anomaly_api.reasons import Reason
from anomaly_api.sweep_status import SweepStatus
from anomaly_api.training import WatchedMetric

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
MESSAGE_LIMIT = 1024
"""Characters of the longest message."""
Message = Annotated[str, Field(max_length=MESSAGE_LIMIT)]
MAX_CURVE = 256
"""Most points of a curve."""
MAX_WARNINGS = 8
"""Warnings that a status takes."""
MAX_STATUS_CURVE = 32
"""Most points of a curve in a status, and in a termination message."""


class Phase(StrEnum):
    """The state of a run, in one word."""

    PENDING = "Pending"
    WAITING = "Waiting"
    SUSPENDED = "Suspended"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


StepName = Literal["check", "search", "train", "report", "score"]
"""A step of a run. Each is one Job, but for search, which is many experiments: check looks at the data without a GPU;
train and score are the work itself; report shows what a search found where nothing is trained at its end."""


class Stage(StrEnum):
    """What the pod is doing."""

    STARTING = "starting"
    CHECK = "check"
    SEARCH = "search"
    FETCH = "fetch"
    DATASET = "dataset"
    TRAIN = "train"
    PREDICT = "predict"
    EVALUATE = "evaluate"
    VISUALIZE = "visualize"
    EXPORT = "export"
    MEASURE = "measure"
    PUBLISH = "publish"
    DONE = "done"


class ConditionType(StrEnum):
    """Types of conditions."""

    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DATA_READY = "DataReady"


class Condition(Contract):
    """One aspect of the state, with the fields of metav1.Condition."""

    type: ConditionType
    """The aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition is true."""
    reason: Reason
    """Reason in one word."""
    message: Message = ""
    """Explanation for people."""
    last_transition_time: Timestamp
    """When status last changed."""
    observed_generation: int = 0
    """Generation of the spec that the condition describes."""


class Progress(Contract):
    """Progress of the current stage."""

    completed: Annotated[int, Field(ge=0)] = 0
    """Units done."""
    total: Annotated[int, Field(ge=0)] = 0
    """Units in total; 0 if unknown."""
    unit: Annotated[str, Field(max_length=32)] = "images"
    """What is counted."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Percentage of the whole run that is done."""
    remaining_seconds: Annotated[int, Field(ge=0)] | None = None
    """Estimated seconds until the stage ends, from its pace so far."""


class Device(Contract):
    """What the pod computes with."""

    name: Annotated[str, Field(max_length=128)]
    """Name of the GPU, or CPU."""
    count: Annotated[int, Field(ge=1)] = 1
    """Number of GPUs that the pod sees, or of CPUs that it may use."""
    provider: Annotated[str, Field(max_length=64)]
    """What executes the model: torch cuda, torch cpu, or an execution provider of onnxruntime."""
    driver: Annotated[str, Field(max_length=64)] | None = None
    """Version of the GPU's driver."""
    cuda: Annotated[str, Field(max_length=16)] | None = None
    """Newest version of CUDA that the driver serves."""
    compute_capability: Annotated[str, Field(max_length=16)] | None = None
    """Compute capability of the GPU."""
    fallback: Annotated[str, Field(max_length=256)] | None = None
    """Why the CPU works although a GPU was asked for; unset if none was, or if it works."""


class MetricValues(Contract):
    """Metrics by name, full precision."""

    image: Annotated[dict[str, float], Field(max_length=32)] = Field(default_factory=dict)
    """Metrics of image scores."""
    pixel: Annotated[dict[str, float], Field(max_length=32)] = Field(default_factory=dict)
    """Metrics of pixel scores."""
    synthetic: Annotated[dict[str, float], Field(max_length=16)] | None = None
    """Metrics of the validation images with synthetic defects (splits.syntheticDefects) against the good ones:
    imageAUROC, pixelAUROC and others that need no threshold. They say nothing about real defects."""
    performance: Annotated[dict[str, float], Field(max_length=16)] = Field(default_factory=dict)
    """What the model and the run cost: latencyMilliseconds (median of single images) and latencyMillisecondsP90,
    imagesPerSecond, modelBytes, peakMemoryBytes, peakGpuMemoryBytes, trainSeconds. report.json says what they were
    measured with."""


class Curve(Contract):
    """A metric of a training by gradient over its epochs."""

    metric: WatchedMetric
    """earlyStopping.metric (imageAUROC unless it says otherwise) if validations compute it, else trainLoss."""
    synthetic: bool | None = None
    """True where the metric is one of validations with synthetic defects."""
    epochs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MAX_CURVE)] = ()
    """Number of epochs that were trained when the metric was computed, ascending."""
    values: Annotated[tuple[float, ...], Field(max_length=MAX_CURVE)] = ()
    """Value after each of them, rounded to six digits. Of a long curve, some points are kept: at equal distances, the
    best and the last."""

    @property
    def points(self) -> tuple[tuple[int, float], ...]:
        """Pairs of epochs and value."""
        return tuple(zip(self.epochs, self.values, strict=True))


class FalseAlarms(Contract):
    """What a threshold of method falseAlarmRate promises, whatever the distribution of the scores is.

    It holds for new good images that are like those that the threshold was found on (Vovk et al., "Algorithmic
    Learning in a Random World", 2005; Vovk, "Conditional validity of inductive conformal predictors", 2012).
    """

    good_images: Annotated[int, Field(ge=1)]
    """Good images that the threshold was found on; the model has learnt from none of them."""
    expected: float
    """Share of new good images that are false alarms, in expectation over such sets of good images; the largest
    multiple of 1 / (goodImages + 1) that is not above the rate asked for. Less where scores are equal."""
    low: float
    """Lower end of the 90 % interval of the true share (5 % quantile of its Beta distribution)."""
    high: float
    """Upper end of the 90 % interval of the true share (95 % quantile)."""


class ThresholdValues(Contract):
    """Thresholds of raw scores, full precision: anomalous when score >= threshold."""

    image: float | None = None
    """Threshold of the image score."""
    pixel: float | None = None
    """Threshold of the pixel score."""
    source: (
        Literal["adaptive", "manual", "falseAlarmRate", "recall", "cost", "optimalF1", "training", "custom"] | None
    ) = None
    """How they were found; for an inference, at the level that threshold.type names (the other is that of training)."""
    synthetic: bool | None = None
    """True where they were found with synthetic defects, here or in training; real ones may score otherwise."""
    false_alarms: FalseAlarms | None = None
    """What a threshold that was found by falseAlarmRate, here or in training, promises: of images, and of images with
    any pixel at the pixel threshold."""


class Artifacts(Contract):
    """Where the results are."""

    root: str | None = None
    """Folder of all artifacts of the run."""
    report: str | None = None
    """report.json."""
    html: str | None = None
    """report.html: the report for people, in one file."""
    model: str | None = None
    """model.json, which names the exports and carries the thresholds."""
    exports: Annotated[dict[str, str], Field(max_length=8)] = Field(default_factory=dict)
    """Exported models by format."""
    checkpoint: str | None = None
    """The model's state (safetensors)."""
    predictions: str | None = None
    """Table of predictions (Parquet; the same as CSV and results.json beside it)."""
    visualizations: str | None = None
    """Folder of pictures."""
    profile: str | None = None
    """Trace of some steps of the training (Chrome's format, gzip), with training.profile; operators.txt beside it."""
    sweep: str | None = None
    """sweep.html: what a search found, in one file; trials.parquet, trials.csv and optuna-journal.log beside it."""


class MlflowStatus(Contract):
    """The run in MLflow."""

    run_id: str
    """Identifier of the run."""
    url: str | None = None
    """Page of the run."""
    model: str | None = None
    """URI of the registered model's version, models:/NAME/VERSION."""


class TrainedBy(Contract):
    """The experiment whose model an inference used."""

    namespace: str
    """Namespace of the AnomalyExperiment."""
    name: str
    """Its name."""
    uid: str
    """Its UID: an experiment that is deleted and applied again trains another model."""
    run: Annotated[int, Field(ge=1)] | None = None
    """Number of the experiment's run that trained it; unset for a model of a release that did not count them."""
    model_digest: Annotated[str, Field(max_length=64)] | None = None
    """SHA-256 of model.json, once the inference has read it."""
    newer_run: Annotated[int, Field(ge=1)] | None = None
    """Number of a later run of the experiment that is Complete; runPolicy.rerun has the inference use its model."""


class ImageCounts(Contract):
    """Numbers of images by use and outcome."""

    train: int = 0
    """Images trained on."""
    validation: int = 0
    """Images scored to find the thresholds; 0 if the test set was used for that."""
    synthetic: int | None = None
    """Of these, images with a synthetic defect; unset if none were asked for."""
    predicted: int = 0
    """Images scored."""
    anomalous: int = 0
    """Images classified as anomalous."""
    unreadable: int = 0
    """Broken files that were skipped."""


class Listing(Contract):
    """What an earlier step listed, among the artifacts: the next one need not list it again."""

    file: Annotated[str, Field(max_length=64)]
    """File name below the folder of the run's artifacts."""
    sha256: Annotated[str, Field(max_length=64)]
    """Digest of the file: checked before it is read."""


class StepFailure(Contract):
    """Why a step failed that the next one still tells of."""

    reason: Reason
    """Reason in one word."""
    message: Message = ""
    """Explanation for people."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class StepStatus(Contract):
    """A step of the run that is done, while others follow."""

    name: StepName
    """The step."""
    job_name: str
    """Name of its Job."""
    attempts: int = 0
    """Number of its pods."""
    start_time: Timestamp | None = None
    """When its Job could first create a pod."""
    completion_time: Timestamp | None = None
    """When its Job completed."""
    listing: Listing | None = None
    """What it listed."""
    failure: StepFailure | None = None
    """Of a search that failed: why. The run fails for it once the step report has told of it."""


class NodeTime(Contract):
    """How long the pods of a trial were on nodes, where they may hold GPUs."""

    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Of the pods that are gone or have ended, seconds."""
    since: Timestamp | None = None
    """Since when the present pod has been on a node; unset while none is."""
    until: Timestamp | None = None
    """When the last pod that is counted ended."""


class Display(Contract):
    """Rounded strings for the columns of kubectl get."""

    auroc: str | None = None
    """Image AUROC."""
    f1: str | None = None
    """Image F1 at the threshold."""
    objective: str | None = None
    """Of a trial, its value of the sweep's first objective; of a sweep, the best one."""
    progress: str | None = None
    """Stage, percentage of the whole run, and estimated time until the stage ends."""


class PastRun(Contract):
    """An earlier run of the resource; its artifacts are still there."""

    run: Annotated[int, Field(ge=1)]
    """Number of the run."""
    phase: Phase
    """Complete, Failed, or Suspended for a run whose spec was changed before it ended."""
    reason: Reason
    """Reason of its end."""
    message: Annotated[str, Field(max_length=256)] = ""
    """Explanation for people, shortened."""
    start_time: Timestamp | None = None
    """When the run's Job could first create a pod."""
    completion_time: Timestamp | None = None
    """When the run completed or failed."""
    artifacts: Artifacts | None = None
    """Where its results are."""
    display: Display | None = None
    """Its metrics as kubectl get showed them."""


class RunStatus(Contract):
    """Status of an AnomalyExperiment or AnomalyInference."""

    observed_generation: int = 0
    """Generation of the spec that this status describes."""
    run: Annotated[int, Field(ge=1)] | None = None
    """Number of the run that this status describes: a spec that is changed once a run is over runs again. Unset in
    statuses of releases that ran every resource once."""
    spec_digest: Annotated[str, Field(max_length=64)] | None = None
    """Digest of everything in the spec that the result of this run depends on."""
    rerun: Annotated[str, Field(max_length=256)] | None = None
    """runPolicy.rerun with which this run began."""
    phase: Phase = Phase.PENDING
    """The state of the run, in one word."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=8)] = ()
    """Suspended, Complete, Failed; Reconciling and Stalled for GitOps tools."""
    stage: Stage | None = None
    """What the pod is doing."""
    progress: Progress | None = None
    """Progress of the current stage."""
    start_time: Timestamp | None = None
    """When the run's Job could first create a pod."""
    completion_time: Timestamp | None = None
    """When the run completed or failed."""
    job_name: str | None = None
    """Name of the Job of the step at work, or of the last one."""
    attempts: int = 0
    """Number of pods that were created for the run, over all of its steps."""
    node_time: NodeTime | None = None
    """Of a trial: how long its pods were on nodes, from which its GPU-hours are counted."""
    steps: Annotated[tuple[StepStatus, ...], Field(max_length=4)] | None = None
    """Steps that are done and that others follow; unset for a run of one step."""
    metrics: MetricValues | None = None
    """Metrics by name."""
    thresholds: ThresholdValues | None = None
    """Thresholds found or used."""
    images: ImageCounts | None = None
    """Numbers of images by use and outcome."""
    curve: Curve | None = None
    """The course of a training by gradient that is over, in 32 points at most."""
    artifacts: Artifacts | None = None
    """Where the results are."""
    mlflow: MlflowStatus | None = None
    """The run in MLflow."""
    device: Device | None = None
    """What the last pod computes with."""
    trained_by: TrainedBy | None = None
    """The experiment whose model an inference used."""
    warnings: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=MAX_WARNINGS)] = ()
    """Problems that did not stop the run."""
    sweep: SweepStatus | None = None
    """How the sweep of an experiment goes."""
    display: Display | None = None
    """Rounded strings for kubectl get."""
    history: Annotated[tuple[PastRun, ...], Field(max_length=5)] | None = None
    """The last five runs before this one, the newest first."""
