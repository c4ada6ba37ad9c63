"""Weights from a cluster's own cache: found, or missing with the exact path."""

import os

import pytest

from anomaly_api.model import Model
from anomaly_runner.errors import WeightsNotFound
from anomaly_runner.models.anomalib_model import Surroundings, build_module
from anomaly_runner.models.backbone import Backbone, choose_backbone
from anomaly_runner.storage import FolderStore
from anomaly_runner.weights import Wanted, bring_weights, wanted_weights

HUB = Wanted("hub", "timm/tf_efficientnet_lite0.in1k")
PREFIX = "hub/models--timm--tf_efficientnet_lite0.in1k"


def bring(root, folder, *wanted):
    return bring_weights(FolderStore(root), wanted or [HUB], folder, lambda: None)


def write(root, name, content=b"x"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


@pytest.fixture(autouse=True)
def restore_caches(monkeypatch):
    from huggingface_hub import constants

    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, getattr(constants, name))
    for name in ("HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"):
        monkeypatch.setenv(name, "unset")


def test_a_cache_is_used_by_the_libraries(tmp_path):
    write(tmp_path, f"{PREFIX}/refs/main", b"abc\n")
    write(tmp_path, f"{PREFIX}/snapshots/abc/model.safetensors")
    bring(tmp_path, tmp_path / "work")
    from huggingface_hub import constants

    assert str(tmp_path / "hub") == constants.HF_HUB_CACHE
    assert os.environ["TORCH_HOME"] == str(tmp_path / "torch")
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"


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
        write(tmp_path, f"{PREFIX}/{name}", content)
    with pytest.raises(WeightsNotFound, match=f"{tmp_path}/{PREFIX}.*{path}|{path}"):
        bring(tmp_path, tmp_path / "work")


@pytest.mark.parametrize("wanted", [Wanted("file", "torch/hub/checkpoints/x.pth"), Wanted("folder", "datasets/dtd")])
def test_files_and_folders(tmp_path, wanted):
    with pytest.raises(WeightsNotFound, match=f"{tmp_path}/{wanted.name}"):
        bring(tmp_path, tmp_path / "work", wanted)
    write(tmp_path, wanted.name + ("/a/1.png" if wanted.kind == "folder" else ""))
    assert bring(tmp_path, tmp_path / "work", wanted) == tmp_path


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ({"name": "padim"}, [("hub", "timm/resnet18.a1_in1k")]),
        ({"name": "padim", "padim": {"preTrained": False}}, []),
        ({"name": "cfa", "cfa": {"backbone": "resnet18"}}, [("file", "torch/hub/checkpoints/resnet18-f37072fd.pth")]),
        ({"name": "uflow"}, [("hub", "timm/cait_m48_448.fb_dist_in1k"), ("hub", "timm/cait_s24_224.fb_dist_in1k")]),
        ({"name": "draem"}, [("folder", "datasets/dtd")]),
        (
            {"name": "glass", "glass": {"backbone": "resnet18"}},
            [("hub", "timm/resnet18.a1_in1k"), ("folder", "datasets/dtd")],
        ),
        (
            {"name": "efficientad", "efficientad": {"modelSize": "medium"}},
            [
                ("file", "anomalib/pre_trained/efficientad_pretrained_weights/pretrained_teacher_medium.pth"),
                ("folder", "datasets/imagenette"),
            ],
        ),
        ({"name": "ganomaly"}, []),
    ],
)
def test_each_model_says_what_it_loads(model, wanted):
    assert [(want.kind, want.name) for want in wanted_weights(Model.model_validate(model))] == wanted


def test_a_backbone_that_has_no_repository():
    model = Model.model_validate({"name": "padim", "padim": {"backbone": "test_vit_no_such"}})
    with pytest.raises(WeightsNotFound, match="test_vit_no_such"):
        wanted_weights(model)


def test_a_file_that_was_cut_off_is_named_as_damaged(tmp_path):
    write(tmp_path, "hub/models--timm--resnet18.a1_in1k/refs/main", b"abc")
    write(tmp_path, "hub/models--timm--resnet18.a1_in1k/snapshots/abc/model.safetensors", b"x" * 99)
    bring(tmp_path, tmp_path / "work", Wanted("hub", "timm/resnet18.a1_in1k"))
    choice = choose_backbone("resnet18", ("layer1",))
    with pytest.raises(WeightsNotFound, match=r"timm/resnet18\.a1_in1k are damaged: fill the cache again"):
        Backbone(choice, pre_trained=True)


def test_a_page_in_place_of_weights_is_named_as_damaged(tmp_path):
    write(tmp_path, "torch/hub/checkpoints/resnet18-f37072fd.pth", b"<html>403 Forbidden</html>")
    bring(tmp_path, tmp_path / "work", Wanted("file", "torch/hub/checkpoints/resnet18-f37072fd.pth"))
    model = Model.model_validate({"name": "cfa", "cfa": {"backbone": "resnet18"}})
    with pytest.raises(WeightsNotFound, match=r"checkpoints/resnet18-f37072fd\.pth are damaged"):
        build_module(model, Surroundings((64, 64), 4, tmp_path, "object"))
