"""Runs without a cluster: an experiment and the inference with its model, end to end on small textures."""

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pyarrow.parquet
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import IMAGEDESCRIPTION, TiffImageFile
from rich.console import Console
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import ExitCode
from anomaly_api.run import ModelManifest, RunReport
from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_runner.exporting import export, performance
from anomaly_runner.exporting.torchscript_writer import write_torchscript
from anomaly_runner.local import print_report, run_locally
from anomaly_runner.models import coreset_chunks
from anomaly_runner.system.digest import digest
from anomaly_runner.training import train
from support.optional import not_none
from support.textures import EXPERIMENT, INFERENCE, SIDE, Change, Document, texture, write_manifest

RESULTS = Path("results/factory")


def results(folder: Path, name: str = "textures") -> Path:
    return folder / RESULTS / name / "local"


def report_of(folder: Path, name: str = "textures") -> RunReport:
    return RunReport.model_validate_json((results(folder, name) / "report.json").read_bytes())


def metrics_of(report: RunReport) -> MetricValues:
    return not_none(report.summary.metrics)


def thresholds_of(report: RunReport) -> ThresholdValues:
    return not_none(report.summary.thresholds)


def experiment(folder: Path, change: Change | None = None) -> int:
    return run_locally(write_manifest(folder, EXPERIMENT, change), folder)


def inference(folder: Path, change: Change | None = None) -> int:
    return run_locally(write_manifest(folder, INFERENCE, change), folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the experiment has run; tests must only read it."""
    from support.textures import write_textures

    folder = tmp_path_factory.mktemp("trained")
    write_textures(folder / "data" / "textures")
    assert experiment(folder) == 0
    return folder


@pytest.fixture
def textures_and_model(trained: Path, tmp_path: Path) -> Path:
    """A copy of ``trained`` that a test may change."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def test_report(trained: Path) -> None:
    report = report_of(trained)
    assert report.summary.reason == "Complete"
    counts = not_none(report.summary.images)
    assert (counts.train, counts.predicted, counts.unreadable) == (8, 10, 0)
    assert set(report.labels) == {"good", "scratch", "unknown"}
    assert metrics_of(report).image["AUROC"] > 0.9
    assert metrics_of(report).pixel["AUROC"] > 0.9
    assert isinstance(report.config.spec, ExperimentSpec)
    stages = {"fetch", "dataset", "train", "predict", "evaluate", "visualize", "export", "measure"}
    assert set(report.seconds) == stages  # the report is a part of the last one, publish
    assert len(not_none(report.dataset_fingerprint)) == 64
    assert not_none(report.summary.device).provider.startswith("torch ")


def test_performance_is_that_of_the_exported_model(trained: Path) -> None:
    report = report_of(trained)
    found, measured = metrics_of(report).performance, not_none(report.performance)
    assert found.keys() == {
        "latencyMilliseconds",
        "latencyMillisecondsP90",
        "imagesPerSecond",
        "modelBytes",
        "peakMemoryBytes",
        "trainSeconds",
    }
    assert all(value > 0 for value in found.values())
    shortest, longest = measured.latency_range
    assert shortest <= found["latencyMilliseconds"] <= found["latencyMillisecondsP90"] <= longest
    assert found["modelBytes"] == (results(trained) / "model.onnx").stat().st_size
    assert found["trainSeconds"] == report.seconds["train"]
    assert (measured.model, measured.provider, measured.device) == ("onnx", "CPUExecutionProvider", "CPU")
    assert 3 <= measured.images_timed <= 100
    page = (results(trained) / "report.html").read_text()
    assert f"Latency: median of {measured.images_timed} single images" in page
    assert f"{found['latencyMilliseconds']:.4g} ms" in page


def test_the_table_on_the_terminal(trained: Path) -> None:
    report, terminal = report_of(trained), io.StringIO()
    print_report(report, Console(file=terminal, width=200))
    shown = terminal.getvalue()
    low, high = report.intervals["AUROC"]
    assert f"{metrics_of(report).image['AUROC']:.6f} (95 %: {low:.3f} to {high:.3f})" in shown
    assert f"{thresholds_of(report).pixel:.6g} (adaptive)" in shown
    assert f"{metrics_of(report).performance['modelBytes'] / 1e6:.2f} MB" in shown
    assert str(results(trained) / "report.html") in shown


def test_metrics_equal_scikit_learn_on_the_published_table(trained: Path) -> None:
    table = pyarrow.parquet.read_table(results(trained) / "predictions.parquet").to_pylist()
    known = [row for row in table if row["defect"] is not None]
    labels, scores = [row["defect"] for row in known], [row["score"] for row in known]
    report = report_of(trained)
    assert metrics_of(report).image["AUROC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    decided = np.array(scores) >= thresholds_of(report).image
    assert metrics_of(report).image["F1Score"] == pytest.approx(f1_score(labels, decided), abs=1e-9)


def test_csv_and_parquet_have_the_same_rows(trained: Path) -> None:
    table = pyarrow.parquet.read_table(results(trained) / "predictions.parquet").to_pylist()
    with (results(trained) / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [row["path"] for row in table]
    assert [float(row["score"]) for row in rows] == [row["score"] for row in table]
    unknown = next(row for row in rows if row["label"] == "unknown")
    assert (unknown["defect"], unknown["wrong"]) == ("", "")
    assert {row["anomalous"] for row in rows} <= {"true", "false"}


def image_results(folder: Path, name: str = "textures") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((results(folder, name) / "results.json").read_text())
    return content


def test_results_json_agrees_with_the_table(trained: Path) -> None:
    table = pyarrow.parquet.read_table(results(trained) / "predictions.parquet").to_pylist()
    found, threshold = image_results(trained), thresholds_of(report_of(trained)).image
    assert (found["threshold"], found["unnormalized_threshold"]) == (100, threshold)
    rows = found["observations"]
    assert [f"{row['image_path']}/{row['file_name']}" for row in rows] == [row["path"] for row in table]
    assert [row["unnormalized_score"] for row in rows] == [row["score"] for row in table]
    assert [row["prediction"] for row in rows] == [int(row["anomalous"]) for row in table]
    assert [row["anomaly_score"] for row in rows] == pytest.approx([100 * row["score"] / threshold for row in table])
    assert all((row["anomaly_probability"] >= 0.5) == bool(row["prediction"]) for row in rows)
    known = [row for row in rows if row["expectation"] != ""]
    truth, decided = [row["expectation"] for row in known], [row["prediction"] for row in known]
    assert found["f1_score"] == pytest.approx(f1_score(truth, decided), abs=1e-12)
    assert found["metrics"]["confusion_matrix"]["matrix"] == confusion_matrix(truth, decided).tolist()
    assert [row["is_correct"] for row in known] == [a == b for a, b in zip(truth, decided, strict=True)]


@pytest.mark.parametrize("normalization", ["minMax", "threshold"])
def test_a_custom_threshold_is_percent_of_the_training_threshold(textures_and_model: Path, normalization: str) -> None:
    file = results(textures_and_model) / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scoreNormalization": normalization}))

    def change(document: Document) -> None:
        document["spec"]["threshold"] = {"source": "custom", "value": 120}

    assert inference(textures_and_model, change) == 0
    trained = not_none(thresholds_of(report_of(textures_and_model)).image)
    found = image_results(textures_and_model, "look")
    assert found["threshold"] == pytest.approx(120, abs=1e-9)
    assert found["unnormalized_threshold"] == pytest.approx(1.2 * trained, rel=1e-12)
    table = pyarrow.parquet.read_table(results(textures_and_model, "look") / "predictions.parquet").to_pylist()
    limit = 120 if normalization == "threshold" else 0.5
    assert all(row["anomalous"] == (row["normalized_score"] >= limit) for row in table)
    assert {row["anomalous"] for row in table} == {True, False}


def test_model_json_holds_thresholds_and_digests(trained: Path) -> None:
    manifest = ModelManifest.model_validate_json((results(trained) / "model.json").read_bytes())
    assert manifest.thresholds == report_of(trained).summary.thresholds
    assert (manifest.input_height, manifest.input_width) == (SIDE, SIDE)
    assert manifest.exports[0].sha256 == digest(results(trained) / manifest.exports[0].file)
    assert set(manifest.score_range) == {"image", "pixel"}


def test_export_agrees_with_torch(trained: Path) -> None:
    export = report_of(trained).exports[0]
    assert export.images_compared == 10
    assert not_none(export.max_score_difference) < 1e-4
    assert not_none(export.max_map_difference) < 1e-4
    assert [file.name for file in results(trained).glob("model.onnx*")] == ["model.onnx"]


def test_pictures_name_label_score_and_decision(trained: Path) -> None:
    pictures = sorted(results(trained).glob("visualizations/*/*.jpg"))
    assert len(pictures) == 10
    assert {picture.parent.name for picture in pictures} == {"good", "scratch", "unknown"}
    assert all("_good_" in picture.name or "_anomalous_" in picture.name for picture in pictures)
    with Image.open(pictures[0]) as image:
        assert image.width > 3 * SIDE


def test_a_second_run_gives_identical_results(trained: Path, textures: Path) -> None:
    """A second run in another folder gives exactly the same scores and metrics."""
    assert experiment(textures) == 0
    first, second = report_of(trained), report_of(textures)
    assert metrics_of(first).image == metrics_of(second).image
    assert metrics_of(first).pixel == metrics_of(second).pixel
    assert first.summary.thresholds == second.summary.thresholds
    assert first.dataset_fingerprint == second.dataset_fingerprint
    tables = [(results(folder) / "predictions.csv").read_text() for folder in (trained, textures)]
    assert tables[0] == tables[1]


def test_inference_repeats_the_experiment_scores(textures_and_model: Path) -> None:
    assert inference(textures_and_model) == 0
    report = report_of(textures_and_model, "look")
    assert thresholds_of(report).source == "optimalF1"
    assert metrics_of(report).image["AUROC"] == metrics_of(report_of(textures_and_model)).image["AUROC"]
    assert metrics_of(report).pixel.keys() == {"AUROC", "AUPR", "F1Score"}
    costs = metrics_of(report).performance
    assert costs.keys() == {"imagesPerSecond", "peakMemoryBytes"}
    assert costs["imagesPerSecond"] == pytest.approx(10 / report.seconds["predict"], rel=1e-5)
    assert report.performance is None
    page = (results(textures_and_model, "look") / "report.html").read_text()
    assert "Images a second of the whole stage predict" in page
    digest = hashlib.sha256((results(textures_and_model) / "model.json").read_bytes()).hexdigest()
    used = not_none(report.summary.trained_by)
    assert (used.namespace, used.name, used.run, used.model_digest) == ("factory", "textures", 1, digest)
    assert "factory/textures, run 1 (" in page
    assert digest in page
    scores = {}
    for name in ("textures", "look"):
        table = pyarrow.parquet.read_table(results(textures_and_model, name) / "predictions.parquet").to_pylist()
        scores[name] = {row["path"]: row["score"] for row in table}
    for path, score in scores["look"].items():
        assert score == pytest.approx(scores["textures"][path], rel=1e-5)


def test_inference_on_a_flat_folder_uses_the_training_threshold(textures_and_model: Path) -> None:
    def flat(document: Document) -> None:
        document["spec"]["input"] |= {"layout": "flat", "category": "textures/test/scratch"}

    assert inference(textures_and_model, flat) == 0
    report = report_of(textures_and_model, "look")
    assert thresholds_of(report).image == thresholds_of(report_of(textures_and_model)).image
    assert thresholds_of(report).source == "training"
    assert metrics_of(report).image == {}
    assert "training threshold is used" in report.summary.warnings[0]


def test_inference_needs_no_torch(textures_and_model: Path) -> None:
    """Runs in a process in which torch and its companions cannot be imported."""
    manifest = write_manifest(textures_and_model, INFERENCE)
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'torchvision', 'timm', 'anomalib', 'lightning', 'onnx'}:\n"
        "            raise ImportError(name + ' is not in the inference image')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from pathlib import Path\n"
        "from anomaly_runner.local import print_report, run_locally\n"
        "sys.exit(run_locally(Path(sys.argv[1]), Path(sys.argv[2])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(manifest), str(textures_and_model)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not_none(report_of(textures_and_model, "look").summary.images).predicted == 10


def test_a_changed_model_file_is_refused(textures_and_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (results(textures_and_model) / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert inference(textures_and_model) == 16
    assert "SHA-256" in capsys.readouterr().err
    assert not results(textures_and_model, "look").exists()


def test_external_weights_of_an_export_are_downloaded_and_checked(
    textures_and_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = results(textures_and_model)
    assert inference(textures_and_model) == 0
    expected = (results(textures_and_model, "look") / "predictions.parquet").read_bytes()
    onnx.save_model(
        onnx.load(root / "model.onnx"), root / "model.onnx", save_as_external_data=True, location="model.onnx.data"
    )
    manifest = json.loads((root / "model.json").read_text())
    manifest["exports"][0] |= {
        "sha256": digest(root / "model.onnx"),
        "companions": {"model.onnx.data": digest(root / "model.onnx.data")},
    }
    (root / "model.json").write_text(json.dumps(manifest))
    shutil.rmtree(results(textures_and_model, "look"))
    assert inference(textures_and_model) == 0
    assert (results(textures_and_model, "look") / "predictions.parquet").read_bytes() == expected
    shutil.rmtree(results(textures_and_model, "look"))
    with (root / "model.onnx.data").open("ab") as file:
        file.write(b"x")
    assert inference(textures_and_model) == 16
    assert "model.onnx.data in" in capsys.readouterr().err
    (root / "model.onnx.data").unlink()
    assert inference(textures_and_model) == 16
    assert "model.onnx.data is missing" in capsys.readouterr().err


def test_a_damaged_manifest_is_refused(textures_and_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = results(textures_and_model) / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"formatVersion": 9}))
    assert inference(textures_and_model) == 16
    assert "model.formatVersion" in capsys.readouterr().err


def test_inference_before_the_experiment_is_refused(textures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inference(textures) == 10
    assert "run it first" in capsys.readouterr().err


def test_classification_with_a_checkpoint_and_without_export(textures: Path) -> None:
    def change(document: Document) -> None:
        document["spec"]["dataset"]["task"] = "classification"
        document["spec"]["output"]["keepCheckpoint"] = True
        document["spec"]["export"] = {"types": []}
        document["spec"]["evaluation"] = {"normalization": "threshold"}

    assert experiment(textures, change) == 0
    report = report_of(textures)
    assert metrics_of(report).pixel == {}
    assert report.exports == ()
    assert not (results(textures) / "visualizations").exists()
    from safetensors.numpy import load_file

    state = load_file(results(textures) / "model.safetensors")
    assert state["mean"].shape == (16 * 16, 1, 20)
    assert not_none(report.performance).model == "torch"
    assert metrics_of(report).performance["modelBytes"] == sum(array.nbytes for array in state.values())
    assert "The torch model on CPU (torch cpu)" in (results(textures) / "report.html").read_text()


def test_a_model_that_cannot_be_timed_is_published_without_latency(
    textures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> NoReturn:
        raise MemoryError("no room for a batch")

    monkeypatch.setattr(performance, "time_predictor", too_large)
    assert experiment(textures) == 0
    report = report_of(textures)
    assert report.performance is None
    assert metrics_of(report).performance.keys() == {"modelBytes", "peakMemoryBytes", "trainSeconds"}
    assert "not measured, for lack of memory: no room for a batch" in " ".join(report.summary.warnings)


def test_only_the_report_is_uploaded_and_no_latency_measured(textures: Path) -> None:
    def change(document: Document) -> None:
        document["spec"]["output"]["uploadArtifacts"] = False
        document["spec"]["evaluation"]["latency"] = {"enabled": False}

    assert experiment(textures, change) == 0
    assert [file.name for file in results(textures).iterdir()] == ["report.json"]
    report = report_of(textures)
    assert not_none(report.summary.artifacts).model is None
    assert metrics_of(report).performance.keys() == {"modelBytes", "peakMemoryBytes", "trainSeconds"}
    assert "measure" not in report.seconds


def test_a_coreset_that_had_to_be_built_of_chunks_is_told(
    textures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """8 images of 8 x 8 patches, in chunks of 64 as if there were a megabyte of memory."""
    monkeypatch.setattr(train, "free_for_fit", lambda *_: 1_000_000)
    monkeypatch.setattr(coreset_chunks, "FEWEST_ROWS", 64)
    monkeypatch.setattr(coreset_chunks, "MOST_ROWS", 64)

    def change(document: Document) -> None:
        document["spec"]["model"] = {"name": "patchcore", "patchcore": {"backbone": "resnet18", "preTrained": False}}
        document["spec"]["export"] = {"types": []}

    assert experiment(textures, change) == 0
    told = "512 training patches do not fit into memory"
    assert told in " ".join(report_of(textures).summary.warnings)
    assert told in caplog.text


def test_patchcore_from_images_to_inference(textures: Path) -> None:
    def change(document: Document) -> None:
        document["spec"]["model"] = {"name": "patchcore", "patchcore": {"backbone": "resnet18", "preTrained": False}}

    assert experiment(textures, change) == 0
    assert metrics_of(report_of(textures)).image["AUROC"] > 0.8
    assert inference(textures) == 0


def test_raw_outputs_at_the_images_resolution(textures: Path) -> None:
    def change(document: Document) -> None:
        document["spec"]["transforms"]["inputSize"] = {"height": 96, "width": 96}
        document["spec"]["evaluation"]["visualization"] = {"enabled": True, "rawOutputs": True}

    assert experiment(textures, change) == 0
    for suffix in ("heatmap", "segmentation"):
        files = sorted(results(textures).glob(f"visualizations/*/*_{suffix}.png"))
        assert len(files) == 10
        with Image.open(files[0]) as image:
            assert (image.size, image.mode) == ((SIDE, SIDE), "L")
    for row in image_results(textures)["observations"]:
        assert (results(textures) / row["prediction_heatmap"]).name.endswith("_heatmap.png")
        assert (results(textures) / row["prediction_mask"]).is_file()


def test_raw_outputs_cover_the_whole_image_and_scores_say_where_they_lie(textures: Path) -> None:
    """For a crop of images with EXIF orientation: nothing is found outside of the crop."""
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    for file in textures.glob("data/textures/*/*/*.png"):
        with Image.open(file) as image:
            turned = image.crop((0, 0, 64, 50)).rotate(90, expand=True)
        turned.save(file, exif=exif)
    crop = {"left": 10, "top": 4, "width": 48, "height": 40}

    def change(document: Document) -> None:
        document["spec"]["dataset"]["cropArea"] = crop
        document["spec"]["transforms"]["inputSize"] = {"height": 32, "width": 32}
        document["spec"]["evaluation"] |= {
            "visualization": {"enabled": True, "rawOutputs": True},
            "normalization": "threshold",
        }

    assert experiment(textures, change) == 0
    files = sorted(results(textures).glob("visualizations/scratch/*_scores.tiff"))
    assert len(files) == 5
    found = 0
    for file in files:
        with Image.open(file) as stored:
            assert isinstance(stored, TiffImageFile)
            assert stored.size == (32, 32)
            place = json.loads(stored.tag_v2[IMAGEDESCRIPTION])
            enlarged = stored.resize((place["width"], place["height"]), Image.Resampling.BILINEAR)
        assert place == crop | {"imageWidth": 64, "imageHeight": 50}
        scores = np.full((place["imageHeight"], place["imageWidth"]), np.nan)
        scores[4:44, 10:58] = np.asarray(enlarged)
        heat, segmentation = (
            np.asarray(Image.open(str(file).replace("scores.tiff", name)))
            for name in ("heatmap.png", "segmentation.png")
        )
        assert scores.shape == heat.shape == segmentation.shape == (50, 64)
        inside = np.zeros((50, 64), bool)
        inside[4:44, 10:58] = True
        assert not heat[~inside].any()
        assert not segmentation[~inside].any()
        assert np.mean((scores[inside] >= 100) != (segmentation[inside] > 0)) < 0.01
        found += int(np.count_nonzero(segmentation))
    assert found


@pytest.mark.parametrize(("level", "changes"), [("pixel", False), ("image", True)])
def test_the_threshold_type_is_where_heat_is_128(textures: Path, level: str, changes: bool) -> None:
    def change(document: Document) -> None:
        document["spec"]["evaluation"] = {
            "threshold": {"method": "manual", "image": 1.0, "pixel": 30.0},
            "thresholdType": level,
            "visualization": {"enabled": True, "rawOutputs": True},
            "normalization": "threshold",
        }

    assert experiment(textures, change) == 0
    differ, drawn = [], raw_outputs(textures)
    for scores, heat, found in drawn:
        assert np.mean((heat >= 128) != (scores >= 100)) < 0.01
        differ.append(not np.array_equal(scores >= 100, found))
    assert len(differ) == 10
    assert any(differ) == changes


def raw_outputs(
    folder: Path, name: str = "textures"
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]]:
    """Normalised scores, heat map and segmentation of each image."""
    for file in sorted(results(folder, name).glob("visualizations/*/*_scores.tiff")):
        heat, found = (
            np.asarray(Image.open(str(file).replace("scores.tiff", end))) for end in ("heatmap.png", "segmentation.png")
        )
        yield np.asarray(Image.open(file)), heat, found > 0


def test_an_inference_reports_the_configured_metrics(textures_and_model: Path) -> None:
    wanted = {"image": ["AUROC", "F1Max"], "pixel": ["AUPRO", "IoU"], "confidenceIntervals": False}
    assert inference(textures_and_model, lambda document: document["spec"].update(metrics=wanted)) == 0
    report = report_of(textures_and_model, "look")
    assert metrics_of(report).image.keys() == {"AUROC", "F1Max"}
    assert metrics_of(report).pixel.keys() == {"AUPRO", "IoU"}
    assert report.intervals == {}


def test_the_heat_map_uses_the_threshold_of_the_inference(textures_and_model: Path) -> None:
    """The heat map uses it even though 100 percent is still the training threshold."""

    def change(document: Document) -> None:
        document["spec"] |= {
            "threshold": {"source": "custom", "type": "pixel", "value": 60},
            "visualization": {"enabled": True, "rawOutputs": True},
        }

    assert (
        experiment(
            textures_and_model, lambda document: document["spec"]["evaluation"].update(normalization="threshold")
        )
        == 0
    )
    assert inference(textures_and_model, change) == 0
    drawn = list(raw_outputs(textures_and_model, "look"))
    assert sum(found.sum() for _, _, found in drawn) > sum((scores >= 100).sum() for scores, _, _ in drawn) > 0
    for scores, heat, found in drawn:
        assert np.mean((heat >= 128) != found) < 0.01
        assert np.array_equal(scores >= 60, found)


def test_only_wrong_predictions_get_pictures(textures: Path) -> None:
    def change(document: Document) -> None:
        document["spec"]["evaluation"] = {
            "threshold": {"method": "manual", "image": 1e9},
            "visualization": {"enabled": True, "onlyWrong": True},
        }

    assert experiment(textures, change) == 0
    pictures = [file.name for file in results(textures).glob("visualizations/*/*.jpg")]
    assert len(pictures) == 5
    assert all(name.endswith("_WRONG.jpg") for name in pictures)


def test_unreadable_images_are_skipped_named_and_counted(textures: Path) -> None:
    (textures / "data/textures/test/scratch/zzz.png").write_bytes(b"not an image")
    (textures / "data/textures/train/good/zzz.png").write_bytes(b"")
    (textures / "data/textures/test/good/zzz.png").symlink_to("/etc/hostname")
    assert (
        experiment(textures, lambda document: document["spec"]["dataset"].update(limits={"maxUnreadableImages": 3}))
        == 0
    )
    report = report_of(textures)
    assert not_none(report.summary.images).unreadable == 3
    assert {image.path for image in report.unreadable} == {
        "train/good/zzz.png",
        "test/good/zzz.png",
        "test/scratch/zzz.png",
    }
    assert "symbolic link" in next(image.problem for image in report.unreadable if image.path == "test/good/zzz.png")


def limited(place: str) -> Change:
    return lambda document: document["spec"][place].update(limits={"maxUnreadableImages": 3})


def test_files_whose_names_are_not_utf8_are_read(textures: Path) -> None:
    for folder in ("train/good", "test/good"):
        texture(1).save(os.fsencode(textures / "data/textures" / folder) + b"/pi\xe9ce.png", "PNG")
    for run, name in ((experiment, "textures"), (inference, "look")):
        assert run(textures) == 0
        rows = pyarrow.parquet.read_table(results(textures, name) / "predictions.parquet").to_pylist()
        assert "test/good/pi_UDCE9_ce.png" in {row["path"] for row in rows}
        assert report_of(textures, name).unreadable == ()


def test_one_unreadable_image_too_many_fails_and_names_it(textures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (textures / "data/textures/test/scratch/zzz.png").write_bytes(b"not an image")
    assert experiment(textures) == 11
    assert "test/scratch/zzz.png: not an image" in capsys.readouterr().err
    assert not results(textures).exists()


def test_a_missing_mask_counts_as_wholly_defective(textures: Path) -> None:
    (textures / "data/textures/ground_truth/scratch/002_mask.png").unlink()
    assert experiment(textures) == 0
    report = report_of(textures)
    assert report.missing_masks == ("test/scratch/002.png",)
    assert any("wholly defective" in warning for warning in report.summary.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "resnet19", "layers": ["layer1"]}, "did you mean"),
        ({"backbone": "resnet18", "layers": ["layer9"]}, "it has act1, layer1, layer2, layer3, layer4"),
        ({"backbone": "resnet18", "layers": ["layer1"], "nFeatures": 65}, "64 channels"),
    ],
)
def test_invalid_model_parameters_are_refused(
    textures: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    assert (
        experiment(textures, lambda document: document["spec"]["model"]["padim"].update({"nFeatures": 20} | change))
        == 10
    )
    assert message in capsys.readouterr().err


def test_an_invalid_manifest_is_one_line_with_field_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(document: Document) -> None:
        document["spec"]["model"]["padim"]["backbon"] = "x"
        document["spec"]["transforms"]["inputSize"]["height"] = 7

    assert experiment(tmp_path, change) == 10
    error = capsys.readouterr().err
    assert "spec.model.padim.backbon" in error
    assert "spec.transforms.inputSize.height" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["kind: Pod", "- a\n- b", "a: [", "\x00"])
def test_files_that_are_not_manifests_are_refused(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    assert run_locally(file, tmp_path) == 10
    assert "InvalidConfig" in capsys.readouterr().err


def test_too_little_memory_fails_before_the_training(
    textures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomaly_runner.training.memory_check.available_memory", lambda: 100_000_000)
    assert experiment(textures) == 13
    assert "0.10 GB are free" in capsys.readouterr().err


def test_nothing_is_left_in_the_local_folder(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {"data", "results", "textures.yaml"}


@pytest.mark.filterwarnings("ignore")  # of mlflow's own libraries
def test_mlflow_stores_parameters_metrics_and_files(textures: Path) -> None:
    def change(document: Document) -> None:
        document["spec"]["tracking"] = {"mlflow": {"trackingUri": "http://nowhere:5000", "experimentName": "lab"}}

    assert experiment(textures, change) == 0
    status = report_of(textures)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ_MLFLOW, str(textures / "mlflow.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    run = yaml.safe_load(done.stdout)
    assert run["status"] == "FINISHED"
    assert run["metrics"]["image_AUROC"] == metrics_of(status).image["AUROC"]
    scratch, wrong = status.metrics_by_defect["scratch"], not_none(status.confusion).false_positives
    costs = metrics_of(status).performance
    assert {name: run["metrics"][f"performance_{name}"] for name in costs} == costs
    assert run["metrics"]["image_AUROC/scratch"] == scratch.image["AUROC"]
    assert run["metrics"]["pixel_AUROC/scratch"] == scratch.pixel["AUROC"]
    assert run["metrics"]["image_false_positives"] == wrong
    ends = [run["metrics"][f"image_AUROC_{end}"] for end in ("low", "high")]
    assert ends == list(status.intervals["AUROC"])
    assert run["params"]["model.padim.backbone"] == "resnet18"
    assert run["tags"]["anomalyops.io/uid"] == "local"
    assert {"model", "report.json", "visualizations"} <= set(run["files"])
    assert {"model/MLmodel", "model/model.json", "model/model.onnx"} <= set(run["model"])
    assert run["inputs"] == [["textures", not_none(status.dataset_fingerprint)[:32]]]


@pytest.mark.filterwarnings("ignore")  # of mlflow's own libraries
def test_a_failed_export_keeps_all_other_results(
    textures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trained model and its results are kept, and the run is not retried."""

    def write_wrongly(model: torch.nn.Module, example: torch.Tensor, folder: Path) -> list[Path]:
        class Shifted(torch.nn.Module):
            def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return tuple(found + 1 for found in model(images))

        return write_torchscript(Shifted().eval(), example, folder)

    def change(document: Document) -> None:
        document["spec"]["tracking"] = {"mlflow": {"trackingUri": "http://nowhere:5000", "experimentName": "lab"}}
        document["spec"]["export"] = {"types": ["torchscript", "onnx"]}
        document["spec"]["output"].pop("keepCheckpoint", None)

    monkeypatch.setitem(export._WRITERS, "torchscript", write_wrongly)
    assert experiment(textures, change) == ExitCode.EXPORT_MISMATCH
    assert "the torchscript model disagrees with torch" in capsys.readouterr().err
    summary = report_of(textures).summary
    assert (summary.reason, summary.stage) == ("ExportMismatch", "export")
    assert not_none(summary.metrics).image["AUROC"] > 0.9
    assert not_none(summary.artifacts).exports.keys() == {"onnx"}
    assert not_none(report_of(textures).performance).model == "onnx"
    names = {path.name for path in results(textures).iterdir()}
    assert {"model.onnx", "model.safetensors", "predictions.parquet", "report.html"} <= names
    assert "model.pt" not in names
    assert "ExportMismatch" in (results(textures) / "report.html").read_text()
    assert inference(textures, lambda document: document["spec"].update(runtime="torch")) == 0
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ_MLFLOW, str(textures / "mlflow.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    run = yaml.safe_load(done.stdout)
    assert run["status"] == "FAILED"
    assert "disagrees" in run["tags"]["anomalyops.io/failure"]
    assert run["metrics"]["image_AUROC"] == not_none(summary.metrics).image["AUROC"]
    assert run["model"] == []


READ_MLFLOW = """
import sys, json
from mlflow.tracking import MlflowClient
client = MlflowClient("sqlite:///" + sys.argv[1])
run = client.search_runs([client.get_experiment_by_name("lab").experiment_id])[0]
print(json.dumps({"status": run.info.status, "metrics": run.data.metrics, "params": run.data.params,
                  "tags": run.data.tags, "files": [f.path for f in client.list_artifacts(run.info.run_id)],
                  "model": [f.path for f in client.list_artifacts(run.info.run_id, "model")],
                  "inputs": [[i.dataset.name, i.dataset.digest] for i in run.inputs.dataset_inputs]}))
"""
