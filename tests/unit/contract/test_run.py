"""Data that passes between operator and pod: it fits its channel, and survives serialization unchanged."""

from typing import get_args

import yaml

from anomaly_api.evaluation import ImageMetric, PixelMetric
from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.reasons import FINAL_EXIT_CODES, ExitCode, Reason
from anomaly_api.run import TERMINATION_LIMIT, RunConfig, RunIdentity, RunSummary, s3_env
from anomaly_api.status import (
    MAX_STATUS_CURVE,
    Artifacts,
    Curve,
    Device,
    ImageCounts,
    MetricValues,
    MlflowStatus,
    Stage,
    ThresholdValues,
)
from anomaly_api.storage import LocationRole
from support.optional import not_none

IDENTITY = RunIdentity(kind="AnomalyExperiment", namespace="vision", name="screws", uid="u-1")


def test_a_run_config_survives_the_trip_through_json(sample_experiment: AnomalyExperiment) -> None:
    config = RunConfig(run=IDENTITY, experiment=sample_experiment.spec)
    assert RunConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config
    assert RunConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.to_json_object()))) == config


def test_locations_are_named_by_role(sample_experiment: AnomalyExperiment) -> None:
    locations = RunConfig(run=IDENTITY, experiment=sample_experiment.spec).locations()
    assert set(locations) == {LocationRole.DATASET, LocationRole.WEIGHTS, LocationRole.OUTPUT}
    assert not_none(locations[LocationRole.WEIGHTS].s3).uri == "s3://weights"
    assert s3_env(LocationRole.DATASET, "AWS_ACCESS_KEY_ID") == "ANOMALY_DATASET_AWS_ACCESS_KEY_ID"


def test_full_precision_survives_the_termination_message() -> None:
    third = 1 / 3
    summary = RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, metrics=MetricValues(image={"AUROC": third}))
    returned = RunSummary.model_validate_json(summary.to_termination_message())
    assert returned.metrics is not None
    assert returned.metrics.image["AUROC"] == third


def test_the_longest_summary_fits_the_termination_message() -> None:
    many = {f"metric-{i}": i / 7 for i in range(32)}
    wordy = RunSummary(
        reason=Reason.DATA_INVALID,
        message="ß" * 1024,
        stage=Stage.FETCH,
        metrics=MetricValues(image=many, pixel=many),
        artifacts=Artifacts(root="s3://" + "a" * 500, report="s3://" + "b" * 500),
        warnings=("ü" * 256,) * 8,
    )
    text = wordy.to_termination_message()
    assert len(text.encode()) <= TERMINATION_LIMIT
    assert RunSummary.model_validate_json(text).reason is Reason.DATA_INVALID


def every_result(root: str) -> RunSummary:
    """The summary of a run with every metric, every artifact and eight long warnings."""
    at = f"{root}/{{}}".format
    image, pixel = (dict.fromkeys(get_args(metric), 0.1234567890123456) for metric in (ImageMetric, PixelMetric))
    costs = ("latencyMilliseconds", "latencyMillisecondsP90", "imagesPerSecond", "modelBytes", "peakMemoryBytes")
    return RunSummary(
        reason=Reason.COMPLETE,
        stage=Stage.DONE,
        metrics=MetricValues(
            image=image,
            pixel=pixel,
            performance=dict.fromkeys((*costs, "peakGpuMemoryBytes", "trainSeconds"), 123456789012.0),
        ),
        thresholds=ThresholdValues(image=1 / 3, pixel=1 / 7, source="adaptive"),
        curve=Curve(metric="imageAUROC", epochs=tuple(range(10_000, 10_032)), values=(0.123456,) * MAX_STATUS_CURVE),
        images=ImageCounts(train=100_000, validation=10_000, predicted=100_000, anomalous=50_000, unreadable=100),
        artifacts=Artifacts(
            root=root,
            report=at("report.json"),
            html=at("report.html"),
            model=at("model.json"),
            exports={name: at(f"model.{name}") for name in ("onnx", "torchscript", "openvino")},
            checkpoint=at("model.safetensors"),
            predictions=at("predictions.parquet"),
            visualizations=at("visualizations"),
            profile=at("profile/trace.json.gz"),
        ),
        mlflow=MlflowStatus(run_id="a" * 32, url=f"https://mlflow.factory.example/#/experiments/12/runs/{'a' * 32}"),
        device=Device(name="NVIDIA H100 80GB HBM3", count=8, provider="torch cuda", driver="580.95.05", cuda="13.0"),
        warnings=("w" * 256,) * 8,
    )


def test_results_of_every_kind_fit_beside_warnings() -> None:
    summary = every_result("s3://factory-models/vision/screws/11111111-2222-3333-4444-555555555555")
    text = summary.to_termination_message()
    assert len(text.encode()) <= TERMINATION_LIMIT
    assert RunSummary.model_validate_json(text) == summary.model_copy(
        update={
            "warnings": ("w" * 256, "w" * 256, "warnings left out here: 6; all are in report.json and the pod's log")
        }
    )


def test_metrics_outlive_the_addresses_of_a_run_with_long_names() -> None:
    root = f"s3://{'b' * 63}/{'n' * 63}/{'x' * 63}/11111111-2222-3333-4444-555555555555"
    text = every_result(root).to_termination_message()
    assert len(text.encode()) <= TERMINATION_LIMIT
    returned = RunSummary.model_validate_json(text)
    assert returned.metrics == every_result(root).metrics
    assert returned.artifacts == Artifacts(root=root, report=f"{root}/report.json", model=f"{root}/model.json")


def test_a_pruned_run_is_no_failure() -> None:
    assert ExitCode.of(Reason.PRUNED) is ExitCode.of(Reason.COMPLETE) is ExitCode.DONE
    assert ExitCode.DONE.reason is Reason.COMPLETE


def test_every_exit_code_has_a_reason_and_final_ones_never_overlap_retried_ones() -> None:
    assert {code.reason for code in ExitCode} >= {Reason.COMPLETE, Reason.PREEMPTED, Reason.OUT_OF_MEMORY}
    assert {ExitCode.STORAGE_UNAVAILABLE, ExitCode.TRACKING_UNAVAILABLE, ExitCode.STOPPED}.isdisjoint(FINAL_EXIT_CODES)
