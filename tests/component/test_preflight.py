"""The check of a run finds what the run would end with: the same reason and the same message, on a laptop."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from anomaly_api.reasons import ExitCode
from anomaly_api.scheduling import Gpus, Scheduling
from anomaly_api.status import Listing, StepName
from anomaly_runner import local
from anomaly_runner.engine import execute
from anomaly_runner.local import check_locally, run_locally
from anomaly_runner.locations import local_stores
from anomaly_runner.manifests import read_resource
from anomaly_runner.system.quantity import parse_quantity
from anomaly_runner.termination import FinishedRun, capture_failures
from support.contexts import make_context
from support.optional import not_none
from support.textures import EXPERIMENT, INFERENCE, Document, write_manifest, write_textures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the experiment has run; tests must only read it."""
    folder = tmp_path_factory.mktemp("trained")
    write_textures(folder / "data" / "textures")
    assert run_locally(write_manifest(folder, EXPERIMENT), folder) == 0
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of ``trained`` that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


@pytest.fixture
def endings(monkeypatch: pytest.MonkeyPatch) -> list[FinishedRun]:
    """The outcomes of runs and checks, in their order."""
    seen: list[FinishedRun] = []
    end = local.print_end

    def remember(finished: FinishedRun, console: Any) -> int:
        seen.append(finished)
        return end(finished, console)

    monkeypatch.setattr(local, "print_end", remember)
    return seen


def files(folder: Path) -> dict[str, int]:
    return {path.as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_good_experiment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_manifest(folder, EXPERIMENT)
    before = files(folder)
    assert check_locally(manifest, folder) == 0
    shown = capsys.readouterr().out
    assert "8 to learn from, 10 to test on: 4 good, 5 of one kind of defect, 1 without a label, 5 masks\n" in shown
    assert re.search(r"test .* scratch .* 5", shown)
    assert files(folder) == before, "a check leaves nothing behind"


def test_a_good_inference(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_manifest(folder, INFERENCE)
    before = files(folder)
    assert check_locally(manifest, folder) == 0
    assert "10 to score: 4 good, 5 of one kind of defect, 1 without a label, 5 masks\n" in capsys.readouterr().out
    assert files(folder) == before


def typo_in_a_layer(spec: Document, folder: Path) -> None:
    spec["model"]["padim"]["layers"] = ["layer1", "leyer2"]


def too_many_features(spec: Document, folder: Path) -> None:
    spec["model"]["padim"]["nFeatures"] = 1000


def missing_images(spec: Document, folder: Path) -> None:
    spec["dataset"]["category"] = "texture"


def misspelt_good(spec: Document, folder: Path) -> None:
    root = folder / "data/textures/test"
    (root / "good").rename(root / "ok")


def broken_image(spec: Document, folder: Path) -> None:
    (folder / "data/textures/train/good/000.png").write_bytes(b"not an image")


def empty_image(spec: Document, folder: Path) -> None:
    (folder / "data/textures/test/scratch/004.png").write_bytes(b"")


def mask_of_another_shape(spec: Document, folder: Path) -> None:
    Image.new("L", (64, 32), 255).save(folder / "data/textures/ground_truth/scratch/000_mask.png")


def images_smaller_than_the_crop(spec: Document, folder: Path) -> None:
    spec["dataset"]["cropArea"] = {"left": 0, "top": 0, "width": 128, "height": 128}


def missing_valid_area(spec: Document, folder: Path) -> None:
    spec["dataset"]["validAreaMask"] = "area.png"


def missing_weights(spec: Document, folder: Path) -> None:
    spec["model"]["padim"]["preTrained"] = True
    spec["model"]["weights"] = {"s3": {"uri": "s3://weights"}}


def more_devices_than_the_model_takes(spec: Document, folder: Path) -> None:
    spec["training"], spec["scheduling"] = {"devices": 2}, {"gpus": {"count": 2}}


FAULTS = {
    typo_in_a_layer: "InvalidConfig",
    too_many_features: "InvalidConfig",
    missing_images: "DataInvalid",
    misspelt_good: "DataInvalid",
    broken_image: "DataInvalid",
    empty_image: "DataInvalid",
    mask_of_another_shape: "DataInvalid",
    images_smaller_than_the_crop: "DataInvalid",
    missing_valid_area: "DataInvalid",
    missing_weights: "WeightsNotFound",
    more_devices_than_the_model_takes: "InvalidConfig",
}
Fault = Callable[[Document, Path], None]


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", value))
def test_a_check_of_an_experiment_ends_as_its_run_would(
    fault: Fault, reason: str, folder: Path, endings: list[FinishedRun]
) -> None:
    manifest = write_manifest(folder, EXPERIMENT, lambda document: fault(document["spec"], folder))
    assert check_locally(manifest, folder) == run_locally(manifest, folder) != 0
    check, run = (ending.summary for ending in endings)
    assert (check.reason, check.message) == (run.reason, run.message)
    assert check.reason == reason


def test_missing_masks_are_told_and_are_no_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "data/textures/ground_truth")
    assert check_locally(write_manifest(folder, EXPERIMENT), folder) == 0
    assert "5 of one kind of defect, 1 without a label, no masks\n" in capsys.readouterr().out


def test_an_image_that_is_learnt_from_and_tested_on_is_told_before_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    textures = folder / "data/textures"
    learnt, tested = (sorted((textures / part / "good").iterdir())[0] for part in ("train", "test"))
    shutil.copy(learnt, tested)
    assert check_locally(write_manifest(folder, EXPERIMENT), folder) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "of the images looked at: 1 images to validate or test on equal images to learn from" in shown


def model_without_the_form(spec: Document, folder: Path) -> None:
    spec["runtime"] = "torchscript"


def missing_model_file(spec: Document, folder: Path) -> None:
    next(folder.glob("results/**/model.onnx")).unlink()


def damaged_model_file(spec: Document, folder: Path) -> None:
    next(folder.glob("results/**/model.onnx")).write_bytes(b"x")


def damaged_manifest(spec: Document, folder: Path) -> None:
    file = next(folder.glob("results/**/model.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"formatVersion": 2}))


def broken_input(spec: Document, folder: Path) -> None:
    (folder / "data/textures/test/good/000.png").write_bytes(b"not an image")


def no_input(spec: Document, folder: Path) -> None:
    spec["input"]["category"] = "elsewhere"


@pytest.mark.parametrize(
    ("fault", "reason"),
    {
        model_without_the_form: "ModelInvalid",
        missing_model_file: "ModelInvalid",
        damaged_model_file: "ModelInvalid",
        damaged_manifest: "ModelInvalid",
        broken_input: "DataInvalid",
        no_input: "DataInvalid",
    }.items(),
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_check_of_an_inference_ends_as_its_run_would(
    fault: Fault, reason: str, folder: Path, endings: list[FinishedRun]
) -> None:
    manifest = write_manifest(folder, INFERENCE, lambda document: fault(document["spec"], folder))
    assert check_locally(manifest, folder) == run_locally(manifest, folder) != 0
    check, run = (ending.summary for ending in endings)
    assert (check.reason, check.message) == (run.reason, run.message)
    assert check.reason == reason


def test_too_little_memory(folder: Path, endings: list[FinishedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    """The number that is free is another in another process; all else in the message is the same."""
    small = int(parse_quantity("300Mi"))
    monkeypatch.setattr("anomaly_runner.training.memory_check.available_memory", lambda: small)
    monkeypatch.setattr("anomaly_runner.preflight.experiment.available_memory", lambda: small)
    manifest = write_manifest(folder, EXPERIMENT)
    assert check_locally(manifest, folder) == run_locally(manifest, folder) == ExitCode.OUT_OF_MEMORY
    check, run = (re.sub(r"[\d.]+ GB are free", "", ending.summary.message) for ending in endings)
    assert check == run
    assert "raise scheduling.resources.limits.memory" in check


def on_a_volume(folder: Path, work: Path, step: StepName, listing: Listing | None = None) -> FinishedRun:
    """One step of an experiment in a pod whose images and results are on volumes."""
    config = read_resource(write_manifest(folder, EXPERIMENT), folder)
    identity = config.run.model_copy(update={"uid": "0-1"})
    spec = not_none(config.experiment)
    spec = spec.model_copy(update={"scheduling": Scheduling(gpus=Gpus(count=0))})
    config = config.model_copy(update={"run": identity, "experiment": spec, "step": step, "listing": listing})
    work.mkdir()
    context = make_context(work, run=identity, stores=local_stores(folder, config))
    return capture_failures(lambda: execute(config, context), context)


@pytest.mark.parametrize("key", ["train/good/003.png", "ground_truth/scratch/001_mask.png"])
@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "replaced"])
def test_files_on_a_volume_are_verified_as_they_are_read(folder: Path, tmp_path: Path, key: str, deleted: bool) -> None:
    checked = on_a_volume(folder, tmp_path / "1", "check")
    assert checked.exit_code is ExitCode.DONE, checked.summary
    file = folder / "data/textures" / key
    content = file.read_bytes()
    file.unlink()
    if not deleted:
        file.write_bytes(content)  # another time of its last change is enough
    trained = on_a_volume(folder, tmp_path / "2", "train", checked.summary.listing)
    assert trained.exit_code is ExitCode.DATA_CHANGED
    assert trained.summary.message.startswith(f"{file} was replaced or deleted")
    assert not list(folder.glob("results/**/listing.parquet"))


def test_what_was_listed_on_a_volume_is_used(folder: Path, tmp_path: Path) -> None:
    checked = on_a_volume(folder, tmp_path / "1", "check")
    shutil.copy(folder / "data/textures/train/good/000.png", folder / "data/textures/train/good/999.png")
    trained = on_a_volume(folder, tmp_path / "2", "train", checked.summary.listing)
    assert trained.exit_code is ExitCode.DONE, trained.summary
    assert not_none(trained.summary.images).train == 8
