"""A model that loads files and pictures of its own, all of them from S3, in a real pod."""

from pathlib import Path

import pytest

from anomaly_runner.models.catalog import IMAGENETTE, TEACHERS
from hack.demo.auxiliary import write_pictures, write_teacher
from hack.demo.storage import upload_folder
from support.experiments import Cell, sample

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

BUCKET, STEPS = "auxiliary", 3


@pytest.fixture(scope="module")
def weights(cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a cache without a backbone: a teacher with random weights, and pieces of photographs."""
    folder: Path = tmp_path_factory.mktemp("weights")
    write_teacher(folder / TEACHERS / "pretrained_teacher_small.pth")
    write_pictures(folder / IMAGENETTE / "photographs", 12)
    cell.s3.create(BUCKET)
    upload_folder(cell.s3.client, folder, BUCKET)
    return f"s3://{BUCKET}"


def test_efficientad_finds_its_teacher_and_pictures(cell: Cell, weights: str) -> None:
    manifest = sample("gravel-efficientad")
    manifest["spec"]["model"]["weights"]["s3"]["uri"] = weights
    manifest["spec"] |= {"training": {"maxSteps": STEPS}, "export": {"types": []}}
    cell.apply(manifest)
    run = cell.complete("aexp", "gravel-efficientad")
    assert cell.report(run)["training"]["steps"] == STEPS
    assert set(run["status"]["metrics"]["image"]) >= {"AUROC", "F1Score"}
