"""Models that load weights and pictures from S3, and one that needs none, in real pods."""

from pathlib import Path
from typing import Any

import pytest
import torch

from anomaly_runner.models.catalog import DTD, IMAGENETTE, TEACHERS
from hack.demo.auxiliary import write_pictures, write_teacher
from hack.demo.storage import upload_folder
from support.backbones import write_efficientnet_b5, write_resnet18
from support.demo import DemoNamespace, sample, small_experiment

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

BUCKET, STEPS = "auxiliary", 3
FRACTION = 0.4
"""Of the images: of the small digits, two of each class. Some of the models take seconds for each image on a CPU."""
SECONDS = 600
PARAMETERS: dict[str, dict[str, Any]] = {
    "cfa": {"backbone": "resnet18"},
    "csflow": {"crossConvHiddenChannels": 32, "nCouplingBlocks": 1},
    "dfm": {"backbone": "resnet18", "layer": "layer2", "preTrained": False},
    "draem": {},
}
ONE_PASS = ("dfm",)


@pytest.fixture(scope="module")
def weights(namespace: DemoNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a weights cache: networks with random weights, and pieces of photographs."""
    folder: Path = tmp_path_factory.mktemp("weights")
    write_teacher(folder / TEACHERS / "pretrained_teacher_small.pth")
    for pictures in (DTD, IMAGENETTE):
        write_pictures(folder / pictures / "photographs", 12)
    write_resnet18(folder)
    write_efficientnet_b5(folder, torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    namespace.s3.create(BUCKET)
    upload_folder(namespace.s3.client, folder, BUCKET)
    return f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def experiments(namespace: DemoNamespace, weights: str) -> list[str]:
    """Names of the experiments, all applied at once."""
    source = sample("mnist-padim")["spec"]["model"]["weights"]
    source["s3"]["uri"] = weights
    for name, parameters in PARAMETERS.items():
        manifest = small_experiment(name)
        spec = manifest["spec"]
        side = 128 if name == "csflow" else 64
        spec["transforms"]["inputSize"] = {"height": side, "width": side}
        spec["model"] = {"name": name, name: parameters, "weights": source}
        spec["export"] = {"types": ["onnx"]}
        spec["dataset"]["fraction"] = FRACTION
        if name not in ONE_PASS:
            spec["training"] = {"maxEpochs": 1, "trainBatchSize": 2}
        namespace.apply(manifest)
    efficientad = sample("gravel-efficientad")
    efficientad["spec"]["model"]["weights"]["s3"]["uri"] = weights
    efficientad["spec"] |= {"training": {"maxSteps": STEPS}, "export": {"types": []}}
    efficientad["spec"]["dataset"]["fraction"] = FRACTION
    efficientad["spec"]["evaluation"] = {"latency": {"enabled": False}}
    namespace.apply(efficientad)
    return [*PARAMETERS, "gravel-efficientad"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_is_trained_and_exported(namespace: DemoNamespace, experiments: list[str], name: str) -> None:
    assert name in experiments
    run = namespace.wait_until_complete("aexp", name, SECONDS)
    report = namespace.report(run)
    assert ("training" in report) == (name not in ONE_PASS)
    [export] = report["exports"]
    assert export["maxScoreDifference"] <= export["tolerance"]
    assert set(run["status"]["metrics"]["image"]) >= {"AUROC", "F1Score"}


def test_efficientad_finds_its_teacher_and_pictures(namespace: DemoNamespace, experiments: list[str]) -> None:
    assert "gravel-efficientad" in experiments
    run = namespace.wait_until_complete("aexp", "gravel-efficientad", SECONDS)
    assert namespace.report(run)["training"]["steps"] == STEPS
    assert set(run["status"]["metrics"]["image"]) >= {"AUROC", "F1Score"}
