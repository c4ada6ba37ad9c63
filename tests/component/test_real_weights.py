"""The MNIST sample of ``make demo`` with real ImageNet weights and real digits, without a cluster."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from anomaly_api.run import RunReport
from support.optional import not_none

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's buckets: 100 nines for training, 30 test images of each digit, and 200 images for the inference."""
    from hack.demo.digits import write_inference_folders, write_mnist_folders
    from hack.demo.weights import write_efficientnet_lite0

    root = tmp_path_factory.mktemp("mnist")
    write_mnist_folders(root / "data/mnist", per_class=100)
    for kind in (root / "data/mnist/test").iterdir():
        for file in sorted(kind.iterdir())[30:]:
            file.unlink()
    write_inference_folders(root / "data/mnist-inference")
    write_efficientnet_lite0(root / "weights")
    return root


def run(manifest: Path, folder: Path, cpus: set[int] | None = None) -> Path:
    affinity = partial(os.sched_setaffinity, 0, cpus) if cpus else None
    done = subprocess.run(
        [sys.executable, "-m", "anomaly_runner", "run", str(manifest), "--local", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=affinity,
    )
    assert done.returncode == 0, done.stderr
    metadata: dict[str, str] = yaml.safe_load(manifest.read_text())["metadata"]
    return folder / "results" / metadata["namespace"] / metadata["name"] / "local"


def untracked(manifest: Path, folder: Path) -> Path:
    document = yaml.safe_load(manifest.read_text())
    del document["spec"]["tracking"]
    copy = folder / manifest.name
    copy.write_text(yaml.safe_dump(document))
    return copy


def test_the_samples_separate_nines_from_other_digits_identically_on_one_cpu_and_on_all(folder: Path) -> None:
    experiment = untracked(SAMPLES / "mnist-padim.yaml", folder)
    report = RunReport.model_validate_json((run(experiment, folder) / "report.json").read_bytes())
    assert not_none(report.summary.metrics).image["AUROC"] > 0.85
    assert report.exports[0].max_score_difference < 1e-4 * report.score_range["image"][1]

    first = (folder / "results/anomaly-demo/mnist-padim/local/predictions.csv").read_text()
    one_cpu = {min(os.sched_getaffinity(0))}
    again = RunReport.model_validate_json((run(experiment, folder, one_cpu) / "report.json").read_bytes())
    for level in ("image", "pixel"):
        metrics = (getattr(not_none(one.summary.metrics), level) for one in (report, again))
        assert next(metrics) == next(metrics)
    assert (folder / "results/anomaly-demo/mnist-padim/local/predictions.csv").read_text() == first

    inference = untracked(SAMPLES / "mnist-inference.yaml", folder)
    looked = RunReport.model_validate_json((run(inference, folder) / "report.json").read_bytes())
    assert not_none(looked.summary.images).predicted == 200
    assert looked.labels["unknown"].images == 100
    assert not_none(looked.summary.metrics).image["AUROC"] > 0.8


def test_weights_that_are_not_in_the_cache_fail_fast(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(folder / "data")
    manifest = untracked(SAMPLES / "mnist-padim.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "anomaly_runner", "run", str(manifest), "--local", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 15
    wanted = f"{tmp_path}/weights/hub/models--timm--tf_efficientnet_lite0.in1k/snapshots/REVISION/model.safetensors"
    assert wanted in done.stderr
