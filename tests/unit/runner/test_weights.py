"""Weights from a cluster's own cache: found, or missing with the exact path."""

import pytest

from anomaly_runner.errors import WeightsNotFound
from anomaly_runner.storage import FolderStore
from anomaly_runner.weights import bring_weights

REPOSITORY = "timm/tf_efficientnet_lite0.in1k"
PREFIX = "hub/models--timm--tf_efficientnet_lite0.in1k"


def bring(root, folder):
    bring_weights(FolderStore(root), REPOSITORY, "tf_efficientnet_lite0", folder, lambda: None)


def write(root, name, content=b"x"):
    (root / PREFIX / name).parent.mkdir(parents=True, exist_ok=True)
    (root / PREFIX / name).write_bytes(content)


@pytest.fixture(autouse=True)
def restore_hub(monkeypatch):
    from huggingface_hub import constants

    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, getattr(constants, name))
    monkeypatch.setenv("HF_HUB_CACHE", "unset")


def test_a_cache_is_used_by_the_hubs_client(tmp_path):
    write(tmp_path, "refs/main", b"abc\n")
    write(tmp_path, "snapshots/abc/model.safetensors")
    bring(tmp_path, tmp_path / "work")
    from huggingface_hub import constants

    assert str(tmp_path / "hub") == constants.HF_HUB_CACHE


@pytest.mark.parametrize(
    ("files", "path"),
    [
        ({}, "snapshots/REVISION/model.safetensors and no revision in .*refs/main"),
        ({"refs/main": b"abc"}, "snapshots/abc/model.safetensors"),
        ({"snapshots/abc/model.safetensors": b"x"}, "refs/main"),
        ({"refs/main": b"new", "snapshots/old/model.safetensors": b"x"}, "snapshots/new/model.safetensors"),
    ],
)
def test_missing_weights_name_the_path_that_was_wanted(tmp_path, files, path):
    for name, content in files.items():
        write(tmp_path, name, content)
    with pytest.raises(WeightsNotFound, match=f"{tmp_path}/{PREFIX}.*{path}|{path}"):
        bring(tmp_path, tmp_path / "work")


def test_a_backbone_that_has_no_repository(tmp_path):
    with pytest.raises(WeightsNotFound, match="resnet18"):
        bring_weights(FolderStore(tmp_path), None, "resnet18", tmp_path, lambda: None)
