"""Names as cameras and people give them, from the folder to tables, pictures and MLflow."""

import csv
import json
from pathlib import Path

import pyarrow.parquet
import pytest

from anomaly_api.run import RunReport
from anomaly_runner.local import run_locally
from anomaly_runner.storage.folder import FolderStore, key_of
from anomaly_runner.system.names import file_name
from anomaly_runner.tracking.mlflow_names import metric_label
from support.textures import EXPERIMENT, INFERENCE, Document, scratched, texture, write_manifest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of mlflow's own libraries

LABELS = ["crack:deep", "100% + \"q\" & 'r'", "\u50b7", "\u6b20", "Gross?", "Gross!", "e\u0301 \U0001f600"]
NAMES = [
    "2024-05-01T12:30:00",
    "a#b?c=d&e",
    "back\\slash",
    "new\nline",
    "x" * 246,
    "\u5927" * 82,
    "\u00e9",
    "e\u0301",
    "A",
    "a",
    b"gr\xfc\xdfe".decode(errors="surrogateescape"),
    "_U003A_",
]


def save_defect(root: Path, label: str, name: str, index: int) -> None:
    image, mask = scratched(index)
    for folder in (root / "test" / label, root / "ground_truth" / label):
        folder.mkdir(parents=True, exist_ok=True)
    image.save(root / "test" / label / f"{name}.png")
    mask.save(root / "ground_truth" / label / f"{name}_mask.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which an experiment has run on images with odd names."""
    folder = tmp_path_factory.mktemp("odd")
    root = folder / "data/textures"
    for index, name in enumerate(NAMES):
        for split in ("train/good", "test/good"):
            (root / split).mkdir(parents=True, exist_ok=True)
            texture(index).save(root / split / f"{name}.png")
    for index, label in enumerate(LABELS):
        save_defect(root, label, "1:2", index)
        save_defect(root, label, NAMES[-2], index + 50)

    def change(document: Document) -> None:
        document["spec"]["evaluation"]["visualization"]["rawOutputs"] = True
        document["spec"]["tracking"] = {"mlflow": {"trackingUri": "http://mlflow", "experimentName": "a/b: c?"}}
        document["spec"]["export"] = {"types": ["onnx"]}

    assert run_locally(write_manifest(folder, EXPERIMENT, change), folder) == 0
    return folder


def results(folder: Path, name: str = "textures") -> Path:
    return folder / "results/factory" / name / "local"


def report_of(folder: Path, name: str = "textures") -> RunReport:
    return RunReport.model_validate_json((results(folder, name) / "report.json").read_bytes())


def test_every_image_is_in_both_tables(folder: Path) -> None:
    wanted = sorted(info.key for info in FolderStore(folder / "data/textures").list("test/"))
    table = pyarrow.parquet.read_table(results(folder) / "predictions.parquet").to_pylist()
    with (results(folder) / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["path"] for row in table) == sorted(row["path"] for row in rows) == wanted
    assert {row["label"] for row in rows} == {"good", *LABELS}
    found = json.loads((results(folder) / "results.json").read_text())["observations"]
    assert [f"{row['image_path']}/{row['file_name']}" for row in found] == [row["path"] for row in rows]


def test_every_image_has_its_mask_and_its_pictures(folder: Path) -> None:
    report, pictures = report_of(folder), results(folder) / "visualizations"
    assert not any("mask" in warning for warning in report.summary.warnings)
    assert {path.name for path in pictures.iterdir()} == {file_name(label) for label in ("good", *LABELS)}
    found = json.loads((results(folder) / "results.json").read_text())["observations"]
    assert all((results(folder) / row["prediction_heatmap"]).is_file() for row in found)
    assert len(list(pictures.rglob("*.jpg"))) == len(found)
    assert any("names of" in warning and "pictures" in warning for warning in report.summary.warnings)


def test_each_kind_of_defect_has_its_metrics_in_mlflow(folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("a/b: c?")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    values = report_of(folder).metrics_by_defect
    assert set(values) == set(LABELS)
    assert {label: run.data.metrics[f"image_AUROC/{metric_label(label)}"] for label in LABELS} == {
        label: values[label].image["AUROC"] for label in LABELS
    }
    assert any("MLflow" in warning for warning in report_of(folder).summary.warnings)


def test_a_flat_folder_of_them_is_scored(folder: Path) -> None:
    for index, name in enumerate(NAMES):
        (folder / "data/flat").mkdir(exist_ok=True)
        texture(200 + index).save(folder / "data/flat" / f"{name}.png")

    def change(document: Document) -> None:
        document["spec"]["input"] |= {"layout": "flat", "category": "flat"}
        document["spec"]["visualization"]["onlyWrong"] = False

    assert run_locally(write_manifest(folder, INFERENCE, change), folder) == 0
    with (results(folder, "look") / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert {row["path"] for row in csv.DictReader(file)} == {key_of(f"{name}.png") for name in NAMES}
