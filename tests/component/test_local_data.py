"""Options of datasets end to end on small textures: valid areas, crops, bit depths and missing splits."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import ModelManifest, RunReport
from anomaly_api.storage import LocationRole
from anomaly_runner.data.fetch import list_experiment
from anomaly_runner.experiment import run_experiment
from anomaly_runner.local import run_locally
from anomaly_runner.manifests import read_resource
from anomaly_runner.storage import FolderStore
from anomaly_runner.system.digest import digest
from support.contexts import make_context
from support.fake_web import serve_files
from support.optional import not_none
from support.public_datasets import catalog, mnist_files
from support.textures import EXPERIMENT, INFERENCE, SIDE, Change, Document, write_manifest

MARGIN = 6


def results_folder(folder: Path, name: str = "textures") -> Path:
    return folder / "results/factory" / name / "local"


def report_of(folder: Path, name: str = "textures") -> RunReport:
    return RunReport.model_validate_json((results_folder(folder, name) / "report.json").read_bytes())


def scores(folder: Path, name: str = "textures") -> dict[str, float]:
    table = pyarrow.parquet.read_table(results_folder(folder, name) / "predictions.parquet").to_pylist()
    return {row["path"]: row["score"] for row in table}


def run(folder: Path, change: Change | None = None, text: str = EXPERIMENT) -> int:
    return run_locally(write_manifest(folder, text, change), folder)


def with_dataset(**fields: Any) -> Change:
    return lambda document: document["spec"]["dataset"].update(fields)


def images_of(folder: Path) -> list[Path]:
    return sorted(path for part in ("train", "test") for path in (folder / "data/textures" / part).rglob("*.png"))


def valid_area() -> NDArray[np.uint8]:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[MARGIN:-MARGIN, MARGIN:-MARGIN] = 255
    return mask


def add_noise_outside(folder: Path) -> None:
    """Add noise outside of the valid area, different in every image."""
    for index, path in enumerate(images_of(folder)):
        noise = np.random.default_rng(index).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
        with Image.open(path) as image:
            kept = np.where(valid_area()[..., None] > 0, np.asarray(image), noise)
        Image.fromarray(kept).save(path)


CROP = {"left": 2, "top": 2, "width": 56, "height": 52}


@pytest.mark.parametrize("crop", [{}, {"cropArea": CROP}], ids=["whole", "cropped"])
def test_pixels_outside_of_the_valid_area_have_no_effect(textures: Path, crop: dict[str, dict[str, int]]) -> None:
    Image.fromarray(valid_area()).save(textures / "data/textures/valid_area.png")
    ask = with_dataset(validAreaMask="valid_area.png", **crop)
    assert run(textures, ask) == 0
    before = scores(textures)
    add_noise_outside(textures)
    assert run(textures, ask) == 0
    assert scores(textures) == before
    manifest = ModelManifest.model_validate_json((results_folder(textures) / "model.json").read_bytes())
    mask = not_none(manifest.valid_area_mask)
    assert mask.sha256 == digest(results_folder(textures) / mask.file)
    (textures / "data/textures/valid_area.png").unlink()
    assert run(textures, text=INFERENCE) == 0
    assert scores(textures, "look") == pytest.approx(before, rel=1e-5)


def test_a_changed_valid_area_of_a_model_is_refused(textures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(valid_area()).save(textures / "data/textures/valid_area.png")
    assert run(textures, with_dataset(validAreaMask="valid_area.png")) == 0
    Image.fromarray(255 - valid_area()).save(results_folder(textures) / "valid_area.png")
    assert run(textures, text=INFERENCE) == 16
    assert "valid_area.png" in capsys.readouterr().err


def test_a_missing_valid_area_is_refused(textures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(textures, with_dataset(validAreaMask="nowhere.png")) == 11
    assert "validAreaMask nowhere.png is missing in" in capsys.readouterr().err


def test_12_bit_images_score_like_8_bit_images(textures: Path) -> None:
    """The same images with 12 bits give the same scores, except for the rounding to 8 bits."""
    for path in images_of(textures):
        with Image.open(path) as image:
            grey = image.convert("L")
        grey.save(path)
    assert run(textures) == 0
    expected = scores(textures)
    for path in images_of(textures):
        with Image.open(path) as image:
            Image.fromarray((np.asarray(image) / 255 * 4095).round().astype(np.uint16)).save(path)
    assert run(textures, lambda document: document["spec"]["transforms"].update(bitDepth=12)) == 0
    assert scores(textures) == pytest.approx(expected, rel=1e-2)
    assert run(textures, text=INFERENCE) == 0
    assert scores(textures, "look") == pytest.approx(scores(textures), rel=1e-5)


def test_without_good_test_images_some_training_images_are_used(textures: Path) -> None:
    for path in (textures / "data/textures/test/good").iterdir():
        path.unlink()
    assert run(textures, with_dataset(splits={"goodTestFraction": 0.3})) == 0
    report = report_of(textures)
    assert not_none(report.summary.images).train == 6
    assert sum(path.startswith("train/") for path in scores(textures)) == 2
    assert any("2 of the 8 good training images serve as such" in text for text in report.summary.warnings)


def test_a_fraction_of_the_images_is_used_and_named(textures: Path) -> None:
    assert run(textures, with_dataset(fraction=0.5)) == 0
    report = report_of(textures)
    counts = not_none(report.summary.images)
    assert (counts.train, counts.predicted) == (4, 2 + 2 + 1)
    used = set(scores(textures))
    assert report.dataset.startswith("MVTec AD (fraction 0.5 of each label): 4 good to learn from, 5 to test")
    assert report.dataset in (results_folder(textures) / "report.html").read_text()
    # Files that are not used are not even opened: without them the very same run is possible.
    for path in images_of(textures):
        key = str(path.relative_to(textures / "data/textures"))
        if key.startswith("test/") and key not in used:
            path.write_bytes(b"not an image")
    assert run(textures, with_dataset(fraction=0.5)) == 0
    assert report_of(textures).dataset_fingerprint == report.dataset_fingerprint


def test_a_table_of_the_images_stands_for_their_folders(textures: Path) -> None:
    assert run(textures) == 0
    expected = report_of(textures)
    root = textures / "data/textures"
    rows = [["file", "class", "subset", "annotation"]]
    for path in images_of(textures):
        split, label, name = path.relative_to(root).parts
        if split != "ground_truth":
            mask = root / "ground_truth" / label / name.replace(".png", "_mask.png")
            found = str(mask.relative_to(root)) if mask.exists() else ""
            rows.append([str(path.relative_to(root)), label.replace("good", "OK"), split, found])
    (root / "export.csv").write_text("\n".join(map(",".join, rows)))
    columns = {"path": "file", "label": "class", "split": "subset", "mask": "annotation"}
    table = {"path": "export.csv", "columns": columns, "goodLabel": "OK"}
    assert run(textures, with_dataset(table=table)) == 0
    listed = report_of(textures)
    assert not_none(listed.summary.metrics).image == not_none(expected.summary.metrics).image
    assert not_none(listed.summary.metrics).pixel == not_none(expected.summary.metrics).pixel
    assert listed.dataset == expected.dataset.replace("MVTec AD", "export.csv")
    assert listed.dataset_fingerprint == expected.dataset_fingerprint
    assert listed.dataset in (results_folder(textures) / "report.html").read_text()


def test_mnist_from_a_mirror(tmp_path: Path) -> None:
    """From published files to a report: the digit of the training scores lowest."""
    digits = mnist_files()
    with serve_files(digits) as web:

        def mnist(document: Document) -> None:
            document["spec"]["dataset"] = {
                "source": {"builtin": {"name": "mnist", "goodLabel": 1, "limit": 10, "mirror": web.url}}
            }
            document["spec"]["evaluation"] = {"visualization": {"enabled": False}}

        config = read_resource(write_manifest(tmp_path, EXPERIMENT, mnist), tmp_path)
        context = make_context(
            tmp_path / "work", run=config.run, stores={LocationRole.OUTPUT: FolderStore(tmp_path / "out")}
        )
        assert isinstance(config.spec, ExperimentSpec)
        listed = list_experiment(config.spec, context, catalog(digits))
        report = run_experiment(config, config.spec, listed, context).report
    assert not_none(report.summary.images).train == 10
    assert not_none(report.summary.images).predicted == 100
    assert not_none(report.summary.metrics).image["AUROC"] > 0.8
