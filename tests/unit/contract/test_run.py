"""Data that passes between operator and pod: it fits its channel, and survives serialization unchanged."""

import yaml

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.reasons import FINAL_EXIT_CODES, ExitCode, Reason
from anomaly_api.run import TERMINATION_LIMIT, RunConfig, RunIdentity, RunSummary, s3_env
from anomaly_api.status import Artifacts, MetricValues, Stage
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


def test_every_exit_code_has_a_reason_and_final_ones_never_overlap_retried_ones() -> None:
    assert {code.reason for code in ExitCode} >= {Reason.COMPLETE, Reason.PREEMPTED, Reason.OUT_OF_MEMORY}
    assert {ExitCode.STORAGE_UNAVAILABLE, ExitCode.TRACKING_UNAVAILABLE, ExitCode.STOPPED}.isdisjoint(FINAL_EXIT_CODES)
