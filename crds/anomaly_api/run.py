"""What passes between the operator and a pod.

In: a RunConfig (an annotation of the pod, which the kubelet writes to ``CONFIG_PATH``) and credentials by
environment variables.
Out: a RunSummary in the termination message (at most 4 KiB), a RunReport as report.json beside the
artifacts, the exit code (``reasons.ExitCode``), and ProgressUpdates pushed while running.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from anomaly_api.artifacts import ExportFormat
from anomaly_api.base import Contract
from anomaly_api.dataset import CropArea
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.model import Model
from anomaly_api.reasons import Reason
from anomaly_api.rules import exactly_one, first_set
from anomaly_api.status import (
    MAX_WARNINGS,
    Artifacts,
    Curve,
    Device,
    ImageCounts,
    Listing,
    MetricValues,
    MlflowStatus,
    Progress,
    Stage,
    StepFailure,
    StepName,
    ThresholdValues,
    Timestamp,
    TrainedBy,
)
from anomaly_api.storage import Location, LocationRole
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_status import SweepStatus

CONFIG_PATH = "/etc/anomaly/run.json"
"""Where the pod finds its RunConfig (JSON)."""
WORK_DIR = "/var/lib/anomaly"
"""Scratch space of the pod: pulled images, artifacts before they are published."""
TERMINATION_PATH = "/dev/termination-log"
TERMINATION_LIMIT = 4096
"""Bytes that the kubelet keeps of a termination message."""
PROGRESS_PATH = "/v1/progress"
"""Path at the operator to which pods POST their ProgressUpdates."""
PROGRESS_URL_ENV = "ANOMALY_PROGRESS_URL"
"""Environment variable with the URL to push ProgressUpdates to; unset means that none are pushed."""
PROGRESS_TOKEN_PATH = "/var/run/secrets/anomalyops.io/token"  # noqa: S105 - a path
"""File with the pod-bound token for the push (audience ``PROGRESS_AUDIENCE``, useless at the API server)."""
PROGRESS_AUDIENCE = "progress.anomalyops.io"

S3_SECRET_KEYS = {"AWS_ACCESS_KEY_ID": True, "AWS_SECRET_ACCESS_KEY": True, "AWS_SESSION_TOKEN": False}
"""Keys of a credentialsSecret for S3, and whether each is required."""
MLFLOW_SECRET_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Optional keys of a credentialsSecret for MLflow; the tracking server's become environment variables of the same
names, the registry's those of ``registry_env``."""

REPORT = "report.json"
"""File name of the RunReport in a run's folder of artifacts; a folder that has it is complete."""
FAILURE = "failure.json"
"""File name of the RunReport of a sweep's trial that failed: nothing but why."""
MODEL_MANIFEST = "model.json"
"""File name of the ModelManifest in a run's folder of artifacts."""
NODE_CACHE_PATH = "/mnt/node-cache"
"""Where the node's cache folder (of this namespace) is mounted, if the resource asks for it."""
CA_KEY = "ca.crt"
"""Key of a caConfigMap."""
CA_DIR = "/etc/anomaly-ca"
"""Folder with ``<role>/ca.crt`` for each location whose S3 endpoint has a private certificate authority."""


def s3_env(role: LocationRole, key: str) -> str:
    """Return the environment variable for a key of the S3 credentials of one location of the run."""
    return f"ANOMALY_{role.upper()}_{key}"


def registry_env(key: str) -> str:
    """Return the environment variable for a key of the credentials of the model registry."""
    return f"ANOMALY_MODEL_{key}"


def ca_path(role: LocationRole) -> str:
    """Return the path of the CA certificates (PEM) for one location's S3 endpoint."""
    return f"{CA_DIR}/{role.value}/{CA_KEY}"


def mount_path(role: LocationRole) -> str:
    """Return the path at which a location on a persistent volume claim is mounted in the pod."""
    return f"/mnt/{role.value}"


RunSpec = ExperimentSpec | InferenceSpec
"""What a run does: train, test and export a model, or score images with one."""


class RunIdentity(Contract):
    """Which resource a run belongs to, and which of its runs it is."""

    kind: Literal["AnomalyExperiment", "AnomalyInference"]
    """Kind of the resource."""
    namespace: str
    """Its namespace."""
    name: str
    """Its name."""
    uid: str
    """Its UID."""
    number: Annotated[int, Field(ge=2)] | None = None
    """Number of the run; unset for the first."""

    @property
    def folder(self) -> str:
        """Folder of the run's artifacts below the output location: each run of a resource has its own."""
        run = self.uid if self.number is None else f"{self.uid}-{self.number}"
        return f"{self.namespace}/{self.name}/{run}"


class SweepResult(Contract):
    """What a pod at the end of a sweep is told of the search: it makes the sweep's page from its trials' reports."""

    spec: Sweep
    """The sweep."""
    status: SweepStatus
    """What the search found."""
    failure: StepFailure | None = None
    """Why the sweep fails, if the search did."""


class RunConfig(Contract):
    """What a pod does, and for which resource, with every reference resolved."""

    rules = (exactly_one("experiment", "inference"),)

    run: RunIdentity
    """The resource."""
    experiment: ExperimentSpec | None = None
    """Train, test, export."""
    inference: InferenceSpec | None = None
    """Run a trained model, of model.location or model.mlflow (the operator resolves a reference to an experiment)."""
    step: StepName | None = None
    """The step that this pod does; unset where the run has no other."""
    listing: Listing | None = None
    """What an earlier step listed."""
    sweep: SweepResult | None = None
    """The search that came before, for the steps train and report of a sweep."""

    @property
    def spec(self) -> RunSpec:
        """The spec of the experiment or of the inference, whichever is set."""
        return first_set(self.experiment, self.inference)

    def locations(self) -> dict[LocationRole, Location]:
        """Return every folder that the run reads or writes, by role."""
        return self.spec.locations()


class ProgressUpdate(Contract):
    """Progress that a pod pushes while it works; losing an update does no harm."""

    run: RunIdentity
    """The resource."""
    stage: Stage
    """What the pod is doing."""
    progress: Progress
    """How far it is."""
    mlflow: MlflowStatus | None = None
    """The run in MLflow, once it exists."""
    device: Device | None = None
    """What the pod computes with, once it knows."""
    curve: Curve | None = None
    """The course of a training by gradient so far, whole each time: an update that is lost leaves no gap."""


class ProgressAnswer(Contract):
    """What the operator may answer to a ProgressUpdate, with status 200; most are answered by 204 and nothing.

    An answer that is lost or cannot be read changes nothing.
    """

    stop: Literal["Pruned"] | None = None
    """Pruned: end the training after the epoch at work; the run is Complete with that reason, and has no model."""
    message: Annotated[str, Field(max_length=512)] = ""
    """Why, for people."""


class RunSummary(Contract):
    """The pod's termination message: everything the status needs, within 4 KiB."""

    reason: Reason
    """Complete, Pruned if the operator ended the training, or why the run failed."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What failed and what to do about it, for people."""
    stage: Stage
    """Stage in which it ended."""
    metrics: MetricValues | None = None
    """Metrics by name."""
    thresholds: ThresholdValues | None = None
    """Thresholds found or used."""
    images: ImageCounts | None = None
    """Numbers of images by use and outcome."""
    curve: Curve | None = None
    """The course of a training by gradient, in MAX_STATUS_CURVE points at most."""
    artifacts: Artifacts | None = None
    """Where the results are."""
    mlflow: MlflowStatus | None = None
    """The run in MLflow."""
    device: Device | None = None
    """What the pod computed with."""
    trained_by: TrainedBy | None = None
    """The experiment whose model an inference used."""
    warnings: tuple[Annotated[str, Field(max_length=256)], ...] = ()
    """Problems that did not stop the run, the most important first."""
    listing: Listing | None = None
    """What the step check listed."""

    def to_termination_message(self) -> str:
        """Return JSON of at most TERMINATION_LIMIT bytes; warnings, message, addresses, then metrics are cut to fit.

        Where warnings are left out, the last one says how many, and where they are.
        """
        for summary in self._ever_shorter():
            text = summary.model_dump_json(by_alias=True, exclude_defaults=True)
            if len(text.encode()) <= TERMINATION_LIMIT:
                break
        return text

    def _ever_shorter(self) -> Iterator["RunSummary"]:
        """Yield the summary and what remains of it with ever less; the last one fits whatever it says."""
        yield self._with_warnings(MAX_WARNINGS)
        brief = self.model_copy(update={"message": self.message[:512]})
        yield brief._with_warnings(3)
        shortest = brief._with_warnings(0)
        yield shortest
        why = RunSummary(reason=self.reason, message=shortest.message, stage=self.stage)
        for summary in (shortest, why.model_copy(update={"artifacts": self.artifacts})):
            yield summary._with_addresses("root", "report", "model")
            yield summary._with_addresses("root")
        yield why

    def _with_warnings(self, number: int) -> "RunSummary":
        """The summary with at most so many warnings, of which the last one tells of those that are left out."""
        if len(self.warnings) <= number:
            return self
        kept = self.warnings[: max(number - 1, 0)]
        where = "report.json and the pod's log" if self.artifacts and self.artifacts.report else "the pod's log"
        told = f"warnings left out here: {len(self.warnings) - len(kept)}; all are in {where}"
        return self.model_copy(update={"warnings": (*kept, told)})

    def _with_addresses(self, *names: str) -> "RunSummary":
        """The summary with these addresses alone: the others begin with the root's, and the report names them."""
        if self.artifacts is None:
            return self
        kept = self.artifacts.model_dump(include={*names})
        return self.model_copy(update={"artifacts": Artifacts(**kept)})


class ExportReport(Contract):
    """One exported model and how well it agrees with torch."""

    format: ExportFormat
    """Format."""
    precision: Literal["float32", "float16"] = "float32"
    """Floating-point type of its weights."""
    file: str
    """Path below the artifacts' root."""
    size_bytes: int
    """Size of the file."""
    max_score_difference: float
    """Largest absolute difference of a raw image score from torch's, over the images compared."""
    max_map_difference: float | None = None
    """Largest absolute difference of a raw pixel score; unset for models without maps."""
    tolerance: float | None = None
    """Largest accepted difference of an image score."""
    map_tolerance: float | None = None
    """Largest accepted difference of a pixel score."""
    images_compared: int
    """Number of real images that were compared."""


class PerformanceReport(Contract):
    """What the latency and the images per second of a model were measured with.

    From arrays to arrays in the host's memory: copies to and from a GPU count, reading and decoding files do not.
    """

    model: Literal["onnx", "torchscript", "torch"]
    """What was timed: the export that an inference loads, or the torch model where there is none."""
    precision: Literal["float32", "float16"] = "float32"
    """Floating-point type of its weights."""
    provider: str
    """What executed it: torch's device, or an execution provider of onnxruntime."""
    device: str
    """Name of the GPU, or CPU."""
    threads: int = 1
    """CPU threads that work on one image, or on one batch."""
    images_timed: int
    """Number of images that were timed one by one, in batches of one, after some that were not."""
    latency_range: tuple[float, float]
    """Shortest and longest of them, milliseconds."""
    batch_size: int
    """Images in a batch for the images per second."""
    parallel_batches: int
    """Batches at the same time for the images per second: one on a GPU, else one on each CPU."""


class UnreadableImage(Contract):
    """A broken file that was skipped."""

    path: str
    """Path below the dataset's root."""
    problem: str
    """What is wrong with it."""


class ConfusionMatrix(Contract):
    """Decisions against labels, counted in images; defect is the positive class."""

    true_negatives: int
    """Good images classified as good."""
    false_positives: int
    """Good images classified as anomalous (false alarms)."""
    false_negatives: int
    """Defect images classified as good (missed)."""
    true_positives: int
    """Defect images classified as anomalous."""


class LabelSummary(Contract):
    """Scores of the images of one label."""

    images: int
    """Number of images."""
    mean_score: float
    """Mean raw image score."""
    anomalous: int
    """Images classified as anomalous."""


class Mistake(Contract):
    """An image that was classified wrongly."""

    path: str
    """Path below the dataset's root."""
    label: str
    """good (a false alarm) or the kind of defect (missed)."""
    score: float
    """Raw image score."""


class ScoreHistogram(Contract):
    """Raw image scores, counted in bins of equal width."""

    edges: tuple[float, ...]
    """Bin edges, ascending, one more than bins; the last bin includes its upper edge."""
    good: tuple[int, ...]
    """Good images per bin."""
    defect: tuple[int, ...]
    """Defect images per bin."""
    unknown: tuple[int, ...] = ()
    """Images with unknown labels per bin; empty if there are none."""


class TrainingReport(Contract):
    """The course of gradient training."""

    epochs: int
    """Epochs that were completed, over all attempts."""
    steps: int
    """Updates of the weights."""
    batch_size: int
    """Images per step, as found or as requested."""
    devices: int = 1
    """Devices that shared the images of each step."""
    stopped_early: bool = False
    """Whether earlyStopping ended it."""
    pruned: str | None = None
    """Why the operator ended it; unset if it did not."""
    kept_epoch: int | None = None
    """Epoch (from 0) whose state was tested and exported."""
    resumed_from_step: int | None = None
    """Step of the earlier pod's checkpoint that training resumed from; unset if it started from the beginning."""
    history: dict[str, tuple[tuple[int, float], ...]] = Field(default_factory=dict)
    """Values by name (trainLoss, imageAUROC, syntheticImageAUROC of synthetic defects, ...): (step, value)."""


class RunReport(Contract):
    """report.json: everything known about the run."""

    run: RunIdentity
    """The resource."""
    summary: RunSummary
    """As in the termination message, but complete."""
    config: RunConfig
    """Configuration of the run."""
    confusion: ConfusionMatrix | None = None
    """Decisions against labels."""
    labels: dict[str, LabelSummary] = Field(default_factory=dict)
    """By label: good, each kind of defect, unknown."""
    metrics_by_defect: dict[str, MetricValues] = Field(default_factory=dict)
    """By kind of defect: metrics of its images against the good ones, and of its pixels against all good pixels."""
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """95 % confidence intervals of image metrics."""
    histogram: ScoreHistogram | None = None
    """Distribution of the image scores."""
    mistakes: tuple[Mistake, ...] = ()
    """The worst mistakes: furthest on the wrong side of the threshold first, 100 at most."""
    thresholds_from: Literal["validation", "synthetic", "test", "manual", "model"] | None = None
    """Images that the thresholds were found on; synthetic: good validation images and synthetic defects; model: taken
    over from training. For an inference, this is about the
    level that threshold.type names; the other level keeps the model's threshold."""
    training: TrainingReport | None = None
    """The course of training, for models that train by gradient."""
    exports: tuple[ExportReport, ...] = ()
    """Exported models."""
    performance: PerformanceReport | None = None
    """What the model's performance was measured with."""
    dataset: str = ""
    """What was found: the layout, and the images of each split and label."""
    unreadable: tuple[UnreadableImage, ...] = ()
    """Broken files."""
    missing_masks: tuple[str, ...] = ()
    """Defect images without a mask; all their pixels count as defective."""
    score_range: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Smallest and largest raw score seen, for image and pixel."""
    started: Timestamp | None = None
    """Start of the pod that finished the run."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Wall-clock seconds per stage of that pod, until the report was written."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries; for an inference, also where the model came from."""
    dataset_fingerprint: str | None = None
    """SHA-256 over the sorted paths and contents of the images."""


class ExportedModel(Contract):
    """One file of a trained model."""

    format: ExportFormat
    """Format."""
    file: str
    """Path relative to the folder of model.json."""
    sha256: str
    """Digest of the file: checked before it is loaded."""
    companions: dict[str, str] = Field(default_factory=dict)
    """Further files that it needs, by path, with their digests (weights of OpenVINO, and those of ONNX if larger than
    2 GB)."""


class ModelFile(Contract):
    """A file beside model.json."""

    file: str
    """Path relative to the folder of model.json."""
    sha256: str
    """Digest of the file: checked before it is loaded."""


class GoodScores(Contract):
    """Image scores of good images that the model has not learnt from, as a table.

    Every score up to 1024 distinct ones; of more, the highest 256, and others at equal shares of the images.
    """

    images: Annotated[int, Field(ge=1)]
    """Number of good images: those that the thresholds were found on."""
    scores: Annotated[tuple[float, ...], Field(min_length=1, max_length=1024)]
    """Raw scores, ascending, each once."""
    lower: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, max_length=1024)]
    """Number of good images that score lower than each of them."""


class ModelManifest(Contract):
    """model.json: all that inference needs to know about a trained model; no code, no pickles."""

    format_version: Literal[1] = 1
    """Version of this file's format."""
    run: RunIdentity
    """The experiment that trained it."""
    model: str
    """Model family."""
    input_height: int
    """Rows of the model's input."""
    input_width: int
    """Columns of the model's input."""
    normalization: Literal["imagenet", "none"]
    """How pixel values are scaled; as in transforms.normalization."""
    bit_depth: int | None = None
    """As in transforms.bitDepth."""
    crop_area: CropArea | None = None
    """As in dataset.cropArea."""
    valid_area_mask: ModelFile | None = None
    """Image whose black pixels are ignored, as in dataset.validAreaMask."""
    localises: bool = True
    """Whether it outputs anomaly maps beside image scores."""
    exports: tuple[ExportedModel, ...]
    """Exported models."""
    checkpoint: ModelFile | None = None
    """The state (safetensors), to be loaded into the model that ``definition`` describes."""
    definition: Model | None = None
    """As in spec.model, with all defaults."""
    thresholds: ThresholdValues
    """Thresholds of raw scores from training."""
    good_scores: GoodScores | None = None
    """Distribution of the scores of good images; unset in models of earlier releases, and where no good image was held
    out."""
    score_range: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Smallest and largest raw score seen in training, for image and pixel (minMax normalisation)."""
    score_normalization: Literal["minMax", "threshold", "none"]
    """As in evaluation.normalization."""
    threshold_type: Literal["image", "pixel"]
    """As in evaluation.thresholdType."""
    task: Literal["segmentation", "classification"]
    """As in dataset.task."""

    @property
    def files(self) -> frozenset[str]:
        """Paths of all files that the manifest names."""
        exports = {name for model in self.exports for name in (model.file, *model.companions)}
        return frozenset(exports | {part.file for part in (self.checkpoint, self.valid_area_mask) if part})
