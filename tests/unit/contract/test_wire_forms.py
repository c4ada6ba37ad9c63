"""The forms that other programs read: names in JSON, defaults of what may be left out, paths, exit codes.

Other releases wrote these documents or will read them, so the expected values are written out here.
"""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from anomaly_api import run
from anomaly_api.dataset import DataCache, Dataset
from anomaly_api.evaluation import Metrics
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec, InferenceThreshold
from anomaly_api.names import camel, snake
from anomaly_api.reasons import COMPLETED, FINAL_EXIT_CODES, ExitCode, Reason
from anomaly_api.resource import ObjectMeta, describe_invalid
from anomaly_api.run import (
    GoodScores,
    ModelManifest,
    ProgressAnswer,
    ProgressUpdate,
    RunConfig,
    RunIdentity,
    RunReport,
    RunSummary,
    SweepResult,
    ca_path,
    mount_path,
    registry_env,
    s3_env,
)
from anomaly_api.status import Artifacts, Curve, MetricValues, MlflowStatus, Progress, Stage, StepFailure
from anomaly_api.storage import Location, LocationRole, PersistentVolumeClaimLocation, S3Location
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_status import SweepStatus

RUN = {"kind": "AnomalyExperiment", "namespace": "factory", "name": "screws", "uid": "0-1"}
EXPERIMENT: dict[str, Any] = {
    "dataset": {"source": {"s3": {"uri": "s3://data"}}},
    "model": {"name": "padim"},
    "output": {"s3": {"uri": "s3://results"}},
}
INFERENCE: dict[str, Any] = {
    "model": {"experiment": "screws"},
    "input": {"source": {"s3": {"uri": "s3://today"}}},
    "output": {"s3": {"uri": "s3://results"}},
}
VOLUME = {"persistentVolumeClaim": {"claimName": "images", "path": "2024"}}


def test_places_and_names_that_operator_and_pod_share() -> None:
    assert (run.CONFIG_PATH, run.WORK_DIR, run.TERMINATION_PATH) == (
        "/etc/anomaly/run.json",
        "/var/lib/anomaly",
        "/dev/termination-log",
    )
    assert run.TERMINATION_LIMIT == 4096, "what the kubelet keeps"
    assert (run.PROGRESS_PATH, run.PROGRESS_URL_ENV, run.PROGRESS_AUDIENCE, run.PROGRESS_TOKEN_PATH) == (
        "/v1/progress",
        "ANOMALY_PROGRESS_URL",
        "progress.anomalyops.io",
        "/var/run/secrets/anomalyops.io/token",
    )
    assert (run.REPORT, run.FAILURE, run.MODEL_MANIFEST) == ("report.json", "failure.json", "model.json")
    assert (run.NODE_CACHE_PATH, run.CA_KEY, run.CA_DIR) == ("/mnt/node-cache", "ca.crt", "/etc/anomaly-ca")
    assert run.S3_SECRET_KEYS == {
        "AWS_ACCESS_KEY_ID": True,
        "AWS_SECRET_ACCESS_KEY": True,
        "AWS_SESSION_TOKEN": False,
    }
    assert run.MLFLOW_SECRET_KEYS == (
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
    )


@pytest.mark.parametrize("role", ["dataset", "weights", "model", "input", "output", "cache"])
def test_each_location_has_credentials_certificates_and_a_mount_of_its_own(role: str) -> None:
    location = LocationRole(role)
    assert s3_env(location, "AWS_ACCESS_KEY_ID") == f"ANOMALY_{role.upper()}_AWS_ACCESS_KEY_ID"
    assert ca_path(location) == f"/etc/anomaly-ca/{role}/ca.crt"
    assert mount_path(location) == f"/mnt/{role}"
    assert registry_env("MLFLOW_TRACKING_TOKEN") == "ANOMALY_MODEL_MLFLOW_TRACKING_TOKEN"


def test_each_run_has_a_folder_of_its_own() -> None:
    assert RunIdentity.model_validate(RUN).folder == "factory/screws/0-1"
    assert RunIdentity.model_validate(RUN | {"number": 2}).folder == "factory/screws/0-1-2"
    with pytest.raises(ValidationError):
        RunIdentity.model_validate(RUN | {"number": 1})


# The table of exit codes: the Job's podFailurePolicy is made of it, and pods of other releases answer by it.
FINAL = {
    10: "InvalidConfig",
    11: "DataInvalid",
    12: "StorageDenied",
    13: "OutOfMemory",
    14: "Diverged",
    15: "WeightsNotFound",
    16: "ModelInvalid",
    17: "ExportMismatch",
    18: "TrackingDenied",
    137: "OutOfMemory",  # killed by the kernel
}
RETRIED = {
    1: "InternalError",
    20: "StorageUnavailable",
    21: "TrackingUnavailable",
    22: "GpuUnavailable",
    23: "DataChanged",
    143: "Preempted",
}


def test_an_exit_code_says_why_and_whether_a_retry_may_succeed() -> None:
    assert {int(code): str(code.reason) for code in ExitCode} == FINAL | RETRIED | {0: "Complete"}
    assert {int(code) for code in FINAL_EXIT_CODES} == FINAL.keys()
    assert {"Complete", "Pruned"} == COMPLETED


def test_a_reason_leads_back_to_its_exit_code() -> None:
    ours = {number: reason for number, reason in (FINAL | RETRIED).items() if number != 137}
    assert {int(ExitCode.of(Reason(reason))): reason for reason in ours.values()} == ours
    assert ExitCode.of(Reason.COMPLETE) == ExitCode.of(Reason.PRUNED) == 0


def test_every_reason_is_in_camel_case_and_named_after_itself() -> None:
    for reason in Reason:
        assert reason.name == "".join(f"_{one}" if one.isupper() else one.upper() for one in reason.value).lstrip("_")


def test_a_config_is_for_an_experiment_or_an_inference() -> None:
    experiment = RunConfig.model_validate({"run": RUN, "experiment": EXPERIMENT})
    inference = RunConfig.model_validate({"run": RUN, "inference": INFERENCE})
    assert isinstance(experiment.spec, ExperimentSpec)
    assert isinstance(inference.spec, InferenceSpec)
    assert set(experiment.locations()) == {LocationRole.DATASET, LocationRole.OUTPUT}
    assert set(inference.locations()) == {LocationRole.INPUT, LocationRole.OUTPUT}
    for wrong in ({}, {"experiment": EXPERIMENT, "inference": INFERENCE}):
        with pytest.raises(ValidationError, match="exactly one of experiment, inference must be set"):
            RunConfig.model_validate({"run": RUN} | wrong)


def test_a_config_is_read_as_the_operator_writes_it() -> None:
    sweep = {
        "parameters": [{"path": "model.padim.nFeatures", "choices": [10, 20]}],
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
    }
    document = {
        "run": RUN | {"number": 2},
        "experiment": EXPERIMENT,
        "step": "train",
        "listing": {"file": "listing.parquet", "sha256": "0" * 64},
        "sweep": {"spec": sweep, "status": {"asked": 3}, "failure": {"reason": "TrialsFailed", "message": "many"}},
    }
    found = RunConfig.model_validate(document)
    assert found.run.number == 2
    assert found.listing is not None
    assert (found.step, found.listing.file, found.listing.sha256) == ("train", "listing.parquet", "0" * 64)
    assert found.sweep == SweepResult(
        spec=Sweep.model_validate(sweep),
        status=SweepStatus(asked=3),
        failure=StepFailure(reason=Reason.TRIALS_FAILED, message="many"),
    )
    assert str(found.sweep.failure) == "TrialsFailed: many"
    written = found.to_json_object()
    assert written["run"] == RUN | {"number": 2}
    assert written["experiment"]["model"] == {"name": "padim"}
    assert RunConfig.model_validate(written) == found


def test_locations_have_their_roles() -> None:
    experiment = ExperimentSpec.model_validate(
        EXPERIMENT
        | {"dataset": {"source": VOLUME, "cache": {"persistentVolumeClaim": {"claimName": "cache"}}}}
        | {"model": {"name": "padim", "weights": {"s3": {"uri": "s3://weights"}}}}
    )
    images = Location(persistent_volume_claim=PersistentVolumeClaimLocation(claim_name="images", path="2024"))
    cache = Location(persistent_volume_claim=PersistentVolumeClaimLocation(claim_name="cache"))
    assert experiment.locations() == {
        LocationRole.DATASET: images,
        LocationRole.CACHE: cache,
        LocationRole.WEIGHTS: Location(s3=S3Location(uri="s3://weights")),
        LocationRole.OUTPUT: experiment.output,
    }
    assert images.place is images.persistent_volume_claim
    read = {"source": VOLUME, "cache": {"persistentVolumeClaim": {"claimName": "cache"}}}
    inference = InferenceSpec.model_validate(
        INFERENCE | {"model": {"location": {"s3": {"uri": "s3://models"}}}, "input": read}
    )
    assert inference.locations() == {
        LocationRole.MODEL: Location(s3=S3Location(uri="s3://models")),
        LocationRole.INPUT: images,
        LocationRole.CACHE: cache,
        LocationRole.OUTPUT: inference.output,
    }
    assert (inference.images, experiment.images) == (inference.input, experiment.dataset)


def test_neither_builtin_images_nor_a_nodes_cache_are_a_location() -> None:
    source = {"builtin": {"name": "mvtec"}}
    found = Dataset.model_validate({"source": source, "category": "bottle", "cache": {"node": {}}})
    assert found.source.location is None
    assert found.source.place is found.source.builtin
    assert found.cache is not None
    assert found.cache.location is None
    spec = ExperimentSpec.model_validate(EXPERIMENT | {"dataset": {"source": source, "category": "bottle"}})
    assert set(spec.locations()) == {LocationRole.OUTPUT}
    volume = DataCache.model_validate({"persistentVolumeClaim": {"claimName": "cache"}})
    assert volume.location == Location(persistent_volume_claim=PersistentVolumeClaimLocation(claim_name="cache"))


REGISTERED = {"mlflow": {"name": "screws", "trackingUri": "http://registry"}}


@pytest.mark.parametrize(
    ("model", "tracking", "uri"),
    [
        (REGISTERED, {"mlflow": {"trackingUri": "http://tracking"}}, "http://registry"),
        ({"mlflow": {"name": "screws"}}, {"mlflow": {"trackingUri": "http://tracking"}}, "http://tracking"),
        (REGISTERED, {}, "http://registry"),
    ],
)
def test_a_registered_model_is_on_its_own_server_or_on_the_trackers(
    model: dict[str, Any], tracking: dict[str, Any], uri: str
) -> None:
    spec = InferenceSpec.model_validate(INFERENCE | {"model": model, "tracking": tracking})
    assert spec.registry_uri == uri


def test_small_answers_of_the_types() -> None:
    assert InferenceThreshold().percent == 100
    assert InferenceThreshold.model_validate({"source": "custom", "value": 120}).percent == 120
    both = Metrics.model_validate({"image": ["AUROC"], "pixel": ["AUPRO"]})
    assert both.of_task("segmentation") == both
    assert both.of_task("classification") == Metrics.model_validate({"image": ["AUROC"], "pixel": []})
    assert Curve(metric="imageAUROC", epochs=(1, 2), values=(0.5, 0.75)).points == ((1, 0.5), (2, 0.75))


def sweep_of(algorithm: str, **trials: int) -> Sweep:
    return Sweep.model_validate(
        {
            "parameters": [{"path": "model.padim.nFeatures", "choices": [10, 20]}],
            "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
            "algorithm": {"name": algorithm},
            "trials": trials,
        }
    )


def test_a_sweep_that_does_not_say_how_many_tries_20_points_or_the_whole_grid() -> None:
    assert sweep_of("tpe").most_trials == 20
    assert sweep_of("grid").most_trials == 100_000
    assert sweep_of("tpe", max=7).most_trials == sweep_of("grid", max=7).most_trials == 7


# model.json


MODEL: dict[str, Any] = {
    "run": RUN,
    "model": "padim",
    "inputHeight": 8,
    "inputWidth": 16,
    "normalization": "imagenet",
    "exports": [
        {"format": "openvino", "file": "model.xml", "sha256": "1", "companions": {"model.bin": "2"}},
        {"format": "onnx", "file": "model.onnx", "sha256": "3"},
    ],
    "thresholds": {"image": 1.5},
    "scoreNormalization": "minMax",
    "thresholdType": "pixel",
    "task": "segmentation",
}


def test_a_model_of_the_first_release_is_read() -> None:
    """What came later may be missing."""
    found = ModelManifest.model_validate_json(json.dumps(MODEL))
    assert (found.format_version, found.localises, found.bit_depth, found.crop_area) == (1, True, None, None)
    assert (found.checkpoint, found.definition, found.valid_area_mask, found.good_scores) == (None, None, None, None)
    assert found.score_range == {}
    assert found.files == {"model.xml", "model.bin", "model.onnx"}
    with pytest.raises(ValidationError):
        ModelManifest.model_validate(MODEL | {"formatVersion": 2})


def test_all_files_of_a_model_are_named() -> None:
    further = {
        "checkpoint": {"file": "model.safetensors", "sha256": "4"},
        "validAreaMask": {"file": "valid_area.png", "sha256": "5"},
    }
    found = ModelManifest.model_validate(MODEL | further)
    assert found.files == {"model.xml", "model.bin", "model.onnx", "model.safetensors", "valid_area.png"}
    assert ModelManifest.model_validate(found.to_json_object()) == found


@pytest.mark.parametrize("field", ["run", "model", "inputHeight", "exports", "thresholds", "task", "thresholdType"])
def test_a_model_says_all_that_inference_needs(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        ModelManifest.model_validate({name: value for name, value in MODEL.items() if name != field})


def test_a_table_of_good_scores_has_an_image_at_least() -> None:
    assert GoodScores(images=1, scores=(0.5,), lower=(0,)).images == 1
    for wrong in (
        {"images": 0, "scores": [0.5], "lower": [0]},
        {"images": 1, "scores": [], "lower": []},
        {"images": 1, "scores": [0.5], "lower": [-1]},
        {"images": 2000, "scores": [0.5] * 1025, "lower": [0]},
    ):
        with pytest.raises(ValidationError):
            GoodScores.model_validate(wrong)


# The termination message


def summary(root: str = "", **fields: Any) -> RunSummary:
    return RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, artifacts=Artifacts(root=root), **fields)


def length(made: RunSummary) -> int:
    return len(made.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True).encode())


def padded(made: RunSummary, size: int) -> RunSummary:
    """The summary with a root that is so long that the whole takes this many bytes."""
    assert made.artifacts is not None
    root = "r" * (size - length(made))
    return made.model_copy(update={"artifacts": made.artifacts.model_copy(update={"root": root})})


WARNINGS = tuple(f"{number}" * 100 for number in range(8))


def test_a_message_that_just_fits_is_whole_and_one_more_byte_costs_warnings() -> None:
    whole = padded(summary(warnings=WARNINGS, message="m" * 1000), 4096)
    assert whole.to_termination_message() == whole.model_dump_json(
        by_alias=True, exclude_none=True, exclude_defaults=True
    )
    longer = padded(summary(warnings=WARNINGS, message="m" * 1000), 4097)
    assert RunSummary.model_validate_json(longer.to_termination_message()) == longer.model_copy(
        update={
            "warnings": (*WARNINGS[:2], "warnings left out here: 6; all are in the pod's log"),
            "message": "m" * 512,
        }
    )


@pytest.mark.parametrize(("report", "where"), [(None, "the pod's log"), ("p", "report.json and the pod's log")])
def test_warnings_are_given_up_before_addresses_and_those_before_metrics(report: str | None, where: str) -> None:
    made = summary(warnings=WARNINGS, message="m" * 1000, metrics=MetricValues(image={"AUROC": 1 / 3}))
    told = (f"warnings left out here: 8; all are in {where}",)
    fits = padded(made.model_copy(update={"warnings": told, "message": "m" * 512}), 4096)
    assert fits.artifacts is not None
    others = {"report": report, "exports": {"onnx": "s3://a"} if report else None}
    too_long = made.model_copy(update={"artifacts": fits.artifacts.model_copy(update=others)})
    returned = RunSummary.model_validate_json(too_long.to_termination_message())
    assert returned == fits, "root and report alone are too long beside the metrics"


def test_a_single_warning_gives_way_to_the_addresses_too() -> None:
    made = summary(warnings=("w" * 256,), message="m" * 1000)
    told = ("warnings left out here: 1; all are in the pod's log",)
    fits = padded(made.model_copy(update={"warnings": told, "message": "m" * 512}), 4096)
    too_long = made.model_copy(update={"artifacts": fits.artifacts})
    assert RunSummary.model_validate_json(too_long.to_termination_message()) == fits


def test_a_summary_may_have_no_artifacts() -> None:
    metrics = MetricValues(image={f"m{number}": 1 / 3 for number in range(32)}, pixel={"x" * 4000: 1.0})
    made = RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, metrics=metrics, message="why")
    assert RunSummary.model_validate_json(made.to_termination_message()) == made.model_copy(update={"metrics": None})


def test_what_is_unset_takes_no_room() -> None:
    text = RunSummary(reason=Reason.DATA_INVALID, stage=Stage.DATASET).to_termination_message()
    assert text == '{"reason":"DataInvalid","stage":"dataset"}'


def test_names_in_the_message_are_those_of_manifests() -> None:
    text = RunSummary(
        reason=Reason.COMPLETE, stage=Stage.DONE, mlflow=MlflowStatus(run_id="5")
    ).to_termination_message()
    assert text == '{"reason":"Complete","stage":"done","mlflow":{"runId":"5"}}'


# Progress


def test_progress_is_pushed_and_answered() -> None:
    pushed = ProgressUpdate(
        run=RunIdentity.model_validate(RUN), stage=Stage.TRAIN, progress=Progress(completed=3, total=8, percent=20)
    )
    assert pushed.to_json_object() == {
        "run": RUN,
        "stage": "train",
        "progress": {"completed": 3, "total": 8, "unit": "images", "percent": 20},
    }
    assert (ProgressAnswer().stop, ProgressAnswer().message) == (None, "")
    assert ProgressAnswer.model_validate({"stop": "Pruned", "message": "others"}).stop == "Pruned"
    with pytest.raises(ValidationError):
        ProgressAnswer.model_validate({"stop": "Now"})
    assert Progress() == Progress(completed=0, total=0, unit="images", percent=0, remaining_seconds=None)


def test_a_report_needs_little() -> None:
    """An older one has fewer fields."""
    document = {"run": RUN, "summary": {"reason": "Complete", "stage": "done"}, "config": {"run": RUN}}
    document["config"] |= {"experiment": EXPERIMENT}  # type: ignore[operator]
    found = RunReport.model_validate(document)
    assert (found.labels, found.exports, found.mistakes, found.seconds, found.environment) == ({}, (), (), {}, {})
    assert (found.dataset, found.unreadable, found.missing_masks, found.score_range) == ("", (), (), {})
    assert found.summary.images is None


# What all types share


def test_types_are_frozen_closed_and_written_without_what_is_unset() -> None:
    location = S3Location(uri="s3://data")
    with pytest.raises(ValidationError, match="frozen"):
        location.uri = "s3://other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        S3Location.model_validate({"uri": "s3://data", "url": "x"})
    assert location.to_json_object() == {"uri": "s3://data"}
    full = {"uri": "s3://data", "credentialsSecret": "keys", "caConfigMap": "ca"}
    assert S3Location.model_validate(full).to_json_object() == full
    assert S3Location(uri="s3://data", credentials_secret="keys", ca_config_map="ca") == S3Location.model_validate(full)


def test_an_object_of_json_has_lists_and_plain_texts() -> None:
    found = SweepResult(
        spec=sweep_of("tpe"), status=SweepStatus(), failure=StepFailure(reason=Reason.TRIALS_FAILED)
    ).to_json_object()
    assert found["spec"]["objectives"] == [{"metric": "image.AUROC", "goal": "maximize"}]
    assert type(found["failure"]["reason"]) is str


def test_numbers_that_json_has_not_are_null() -> None:
    assert MetricValues(image={"AUROC": float("nan")}).model_dump_json(exclude_defaults=True) == (
        '{"image":{"AUROC":null}}'
    )


def test_names_of_fields_change_their_case_and_names_with_digits_do_not() -> None:
    assert (camel("train_batch_size"), snake("trainBatchSize")) == ("trainBatchSize", "train_batch_size")
    for word in ("l2bt", "padim", "seed"):
        assert camel(word) == snake(word) == word


def test_metadata_of_others_is_left_alone() -> None:
    found = ObjectMeta.model_validate({"name": "screws", "managedFields": [], "resourceVersion": "7"})
    assert (found.namespace, found.uid, found.generation, found.resource_version) == ("default", "", 0, "7")
    assert (found.labels, found.annotations, found.deletion_timestamp) == ({}, {}, None)


def test_faults_are_told_by_path_five_at_most() -> None:
    with pytest.raises(ValidationError) as two:
        ExperimentSpec.model_validate(EXPERIMENT | {"export": {"types": ["onnx", "x"]}, "output": None})
    assert describe_invalid(two.value).split("; ")[0].startswith("spec.export.types[1]: Input should be 'onnx'")
    with pytest.raises(ValidationError) as five:
        ExperimentSpec.model_validate(EXPERIMENT | dict.fromkeys("abcde", 1))
    assert describe_invalid(five.value, "here") == "; ".join(
        f"here.{field}: Extra inputs are not permitted" for field in "abcde"
    )
    with pytest.raises(ValidationError) as six:
        ExperimentSpec.model_validate(EXPERIMENT | dict.fromkeys("abcdef", 1))
    assert describe_invalid(six.value).endswith("spec.e: Extra inputs are not permitted (and 1 more)")
