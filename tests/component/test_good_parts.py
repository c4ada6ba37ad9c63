"""Good parts alone, end to end: what is left out, what the threshold promises, what travels with the model."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from anomaly_api.run import ModelManifest, RunReport
from anomaly_api.status import ThresholdValues
from anomaly_runner.local import check_locally, run_locally
from anomaly_runner.tracking.run_results import tracked_result
from support.optional import not_none
from support.textures import EXPERIMENT, INFERENCE, Change, Document, scratched, texture, write_manifest

LEARNT, HELD_OUT = 10, 30


def with_rate(document: Document) -> None:
    document["spec"]["dataset"]["splits"] = {"goodTestFraction": HELD_OUT / (LEARNT + HELD_OUT)}
    document["spec"]["evaluation"]["threshold"] = {"method": "falseAlarmRate", "falseAlarmRate": 0.1}


def write_good_parts(folder: Path) -> None:
    good = folder / "data/textures/train/good"
    good.mkdir(parents=True)
    for index in range(LEARNT + HELD_OUT):
        texture(index).save(good / f"{index:03d}.png")


def run(folder: Path, manifest: str, change: Change | None = None) -> RunReport:
    assert run_locally(write_manifest(folder, manifest, change), folder) == 0
    name = "textures" if manifest is EXPERIMENT else "look"
    return RunReport.model_validate_json((results(folder, name) / "report.json").read_bytes())


def results(folder: Path, name: str = "textures") -> Path:
    return folder / "results/factory" / name / "local"


def scores_of(folder: Path, name: str = "textures") -> dict[str, float]:
    table = pyarrow.parquet.read_table(results(folder, name) / "predictions.parquet").to_pydict()
    return dict(zip(table["path"], table["score"], strict=True))


def trained_in(folder: Path, change: Change) -> Path:
    """Write good parts into a folder, run the experiment there after ``change(document)``, and return the folder."""
    write_good_parts(folder)
    run(folder, EXPERIMENT, change)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good parts alone, and the experiment that has run; tests must only add to it."""
    return trained_in(tmp_path_factory.mktemp("good"), with_rate)


@pytest.fixture(scope="module")
def report(folder: Path) -> RunReport:
    return RunReport.model_validate_json((results(folder) / "report.json").read_bytes())


def test_it_ends_with_a_model_and_says_what_is_left_out(report: RunReport, folder: Path) -> None:
    assert report.summary.reason == "Complete"
    counts = not_none(report.summary.images)
    assert (counts.train, counts.validation, counts.predicted) == (LEARNT, 0, HELD_OUT)
    metrics = not_none(report.summary.metrics)
    assert (metrics.image, metrics.pixel) == ({}, {})
    left_out = (
        "no labelled image is defective: image AUROC, AUPR, F1Score, Precision, Recall and pixel AUROC, AUPR, F1Score "
        "are left out"
    )
    assert left_out in report.summary.warnings
    page = (results(folder) / "report.html").read_text()
    assert left_out in page
    assert (results(folder) / "model.onnx").is_file()


def test_the_threshold_keeps_its_promise_by_the_published_scores(report: RunReport, folder: Path) -> None:
    found = not_none(report.summary.thresholds)
    promise = not_none(found.false_alarms)
    # 0.1 * 31 = 3.1: of 31 places in order, three may be above the threshold, so two of the thirty are.
    assert (found.source, promise.good_images) == ("falseAlarmRate", 30)
    assert promise.expected == pytest.approx(3 / 31)
    scores = np.array(sorted(scores_of(folder).values()))
    assert scores[27] < not_none(found.image) <= scores[28]
    assert not_none(report.confusion).false_positives == 2


def test_the_model_carries_the_promise(folder: Path, report: RunReport) -> None:
    manifest = ModelManifest.model_validate_json((results(folder) / "model.json").read_bytes())
    assert manifest.thresholds == report.summary.thresholds


def column(folder: Path, name: str, of: str = "textures") -> list[Any]:
    values: list[Any] = pyarrow.parquet.read_table(results(folder, of) / "predictions.parquet")[name].to_pylist()
    return values


def test_each_prediction_says_how_many_good_images_score_lower(folder: Path) -> None:
    scores = np.array(column(folder, "score"))
    expected = [float((scores < score).mean()) for score in scores]
    assert column(folder, "good_below") == pytest.approx(expected, abs=1e-12)
    observations = json.loads((results(folder) / "results.json").read_text())["observations"]
    assert [image["good_below"] for image in observations] == column(folder, "good_below")
    highest = f"higher than {100 * max(expected):.4g} % of the good images held out"
    assert highest in " ".join((results(folder) / "report.html").read_text().split())


def test_the_page_has_what_a_reader_needs_to_decide_anew(folder: Path, report: RunReport) -> None:
    page = (results(folder) / "report.html").read_text()
    data = json.loads(not_none(re.search(r'<script type="application/json" id="scores">(.*)</script>', page))[1])
    thresholds = not_none(report.summary.thresholds)
    assert (data["threshold"], data["method"]) == (thresholds.image, "falseAlarmRate")
    assert data["falseAlarms"] == not_none(thresholds.false_alarms).to_json_object()
    assert data["labels"][0]["images"] == HELD_OUT
    assert "9.677% of new good ones are false alarms in expectation" in page


def test_no_image_that_was_learnt_from_is_scored(folder: Path) -> None:
    scored = {path.rpartition("/")[2] for path in scores_of(folder)}
    assert len(scored) == HELD_OUT
    # A memory bank knows its own images: their scores would be far below those of others.
    assert all(path.startswith("train/good/") for path in scores_of(folder))


def test_an_inference_promises_anew_on_its_own_good_images(folder: Path) -> None:
    fresh = folder / "data/fresh"
    for index in range(9):
        (fresh / "good").mkdir(parents=True, exist_ok=True)
        texture(500 + index).save(fresh / f"good/{index}.png")
    (fresh / "scratch").mkdir()
    scratched(600)[0].save(fresh / "scratch/0.png")

    def change(document: Document) -> None:
        document["spec"]["input"]["category"] = "fresh"
        document["spec"]["threshold"] = {"source": "falseAlarmRate", "falseAlarmRate": 0.1}

    found: ThresholdValues = not_none(run(folder, INFERENCE, change).summary.thresholds)
    # The model's own distribution of good scores, not one of these images.
    held_out = np.array(column(folder, "score"))
    shares = [float((held_out < score).mean()) for score in column(folder, "score", "look")]
    assert column(folder, "good_below", "look") == pytest.approx(shares, abs=1.5 / HELD_OUT)
    assert column(folder, "good_below", "look")[-1] == 1.0, "the scratch scores higher than every good image"
    good = [score for path, score in scores_of(folder, "look").items() if path.startswith("good/")]
    assert found.source == "falseAlarmRate"
    assert not_none(found.false_alarms).expected == pytest.approx(0.1)
    assert max(good) < not_none(found.image) < max(good) * 1.001


def test_the_check_says_what_will_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_good_parts(tmp_path)
    assert check_locally(write_manifest(tmp_path, EXPERIMENT, with_rate), tmp_path) == 0
    assert (
        "10 to learn from, 30 to test on: 30 good; no labelled image is defective: image AUROC, AUPR, F1Score, "
        "Precision, Recall and pixel AUROC, AUPR, F1Score are left out" in " ".join(capsys.readouterr().out.split())
    )


def test_a_rate_that_cannot_be_promised_ends_check_and_run_before_anything_is_learnt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_good_parts(tmp_path)

    def change(document: Document) -> None:
        with_rate(document)
        document["spec"]["evaluation"]["threshold"]["falseAlarmRate"] = 0.01

    manifest = write_manifest(tmp_path, EXPERIMENT, change)
    assert check_locally(manifest, tmp_path) == run_locally(manifest, tmp_path) == 10
    told = "needs 99 good test images, and there are 30, by which 0.032 can be promised at best"
    assert " ".join(capsys.readouterr().err.split()).count(told) == 2


def with_synthetic_defects(document: Document) -> None:
    spec = document["spec"]
    spec["dataset"]["splits"] = {
        "goodTestFraction": 0.75,
        "validationFraction": 0.5,
        "syntheticDefects": {"images": 20},
    }
    spec["evaluation"]["threshold"] = {"method": "recall", "recall": 0.9}


def by_gradient(document: Document) -> None:
    with_synthetic_defects(document)
    spec = document["spec"]
    spec["model"] = {"name": "fastflow", "fastflow": {"backbone": "resnet18", "preTrained": False, "flowSteps": 2}}
    spec["training"] = {"maxEpochs": 2, "earlyStopping": {"metric": "imageAUROC"}}
    spec["export"] = {"types": []}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good parts alone, and the experiment that was validated with synthetic defects."""
    return trained_in(tmp_path_factory.mktemp("synthetic"), with_synthetic_defects)


def test_synthetic_defects_are_named_wherever_a_number_comes_from_them(synthetic: Path) -> None:
    report = RunReport.model_validate_json((results(synthetic) / "report.json").read_bytes())
    counts, metrics = not_none(report.summary.images), not_none(report.summary.metrics)
    assert (counts.train, counts.validation, counts.synthetic, counts.predicted) == (10, 35, 20, 15)
    assert (metrics.image, metrics.pixel) == ({}, {})
    found = not_none(metrics.synthetic)
    assert found.keys() == {"imageAUROC", "imageAUPR", "pixelAUROC", "pixelAUPR"}
    assert all(0 <= value <= 1 for value in found.values())
    thresholds = not_none(report.summary.thresholds)
    assert (thresholds.source, thresholds.synthetic, report.thresholds_from) == ("recall", True, "synthetic")
    assert any("found with 20 synthetic defects" in warning for warning in report.summary.warnings)
    assert "35 to validate on (good 15, synthetic defect 20)" in report.dataset
    page = (results(synthetic) / "report.html").read_text()
    assert f'data-metric="synthetic-imageAUROC">{found["imageAUROC"]:.4f}<' in page
    assert "Chosen on good validation images and synthetic defects" in page
    tracked = tracked_result(report, results(synthetic), complete=True)
    assert tracked.metrics["synthetic_imageAUROC"] == found["imageAUROC"]
    assert "image_AUROC" not in tracked.metrics
    assert tracked.tags["anomalyops.io/syntheticDefects"] == "20"


def test_no_synthetic_defect_is_tested_on(synthetic: Path) -> None:
    assert set(column(synthetic, "label")) == {"good"}
    assert not [path for path in column(synthetic, "path") if "synthetic" in path]


def test_a_run_again_paints_the_same_defects(synthetic: Path, tmp_path: Path) -> None:
    write_good_parts(tmp_path)
    again = run(tmp_path, EXPERIMENT, with_synthetic_defects)
    before = RunReport.model_validate_json((results(synthetic) / "report.json").read_bytes())
    assert not_none(again.summary.metrics).synthetic == not_none(before.summary.metrics).synthetic
    assert again.summary.thresholds == before.summary.thresholds


def test_metrics_of_validations_during_training_are_named_synthetic(tmp_path: Path) -> None:
    write_good_parts(tmp_path)
    report = run(tmp_path, EXPERIMENT, by_gradient)
    assert not_none(report.training).history.keys() == {"trainLoss", "syntheticImageAUROC", "syntheticImageF1Max"}
    curve = not_none(report.summary.curve)
    assert (curve.metric, curve.synthetic) == ("imageAUROC", True)
