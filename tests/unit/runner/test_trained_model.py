"""Which run of which experiment trained a model, as its model.json says."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from anomaly_api.run import ModelManifest
from anomaly_runner.scoring.trained_model import read_trained_model
from anomaly_runner.storage.folder import FolderStore

RUN = {"kind": "AnomalyExperiment", "namespace": "vision", "name": "screws", "uid": "3f0"}
MODEL = {
    "model": "padim",
    "inputHeight": 64,
    "inputWidth": 64,
    "normalization": "imagenet",
    "exports": [],
    "thresholds": {"source": "adaptive", "image": 1.0},
    "scoreNormalization": "minMax",
    "thresholdType": "image",
    "task": "classification",
}


@pytest.mark.parametrize(("run", "number"), [({}, 1), ({"number": 4}, 4)], ids=["the first", "a later one"])
def test_the_run_and_the_digest_of_the_file_as_it_lies_there(tmp_path: Path, run: dict[str, Any], number: int) -> None:
    manifest = ModelManifest.model_validate(MODEL | {"run": RUN | run})
    content = manifest.model_dump_json(by_alias=True, exclude_none=True).encode() + b"\n\n"
    (tmp_path / "model.json").write_bytes(content)
    found = read_trained_model(FolderStore(tmp_path)).trained_by
    assert (found.namespace, found.name, found.uid) == ("vision", "screws", "3f0")
    assert found.run == number
    assert found.model_digest == hashlib.sha256(content).hexdigest()
