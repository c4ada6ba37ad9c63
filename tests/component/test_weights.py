"""Weights from a cluster's own cache: found, or reported as missing with their exact path."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Never

import pytest
import torch
import torchvision

from anomaly_api.model import Model
from anomaly_runner.errors import WeightsNotFound
from anomaly_runner.models.anomalib_model import BuildOptions, build_module, without_pretrained_weights
from anomaly_runner.models.backbone import Backbone, check_on_hub, choose_backbone
from anomaly_runner.models.catalog import QUANTISER, TEACHERS
from anomaly_runner.models.damaged_weights import is_damaged_file
from anomaly_runner.models.weights import Wanted, fetch_weights, use_cache, wanted_weights
from anomaly_runner.storage import FolderStore
from hack.demo.auxiliary import write_quantiser, write_teacher
from support.backbones import RESNET18
from support.fake_hub import serve_hub

HUB = Wanted("hub", "timm/tf_efficientnet_lite0.in1k")
PREFIX = "hub/models--timm--tf_efficientnet_lite0.in1k"


def fetch(root: Path, folder: Path, *wanted: Wanted) -> Path:
    return fetch_weights(FolderStore(root), wanted or [HUB], folder, lambda: None)


def write(root: Path, name: str, content: bytes = b"x") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


@pytest.fixture(autouse=True)
def restore_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, getattr(constants, name))
    for name in ("HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "unset")


def test_a_cache_is_used_by_the_libraries(tmp_path: Path) -> None:
    write(tmp_path, f"{PREFIX}/refs/main", b"abc\n")
    write(tmp_path, f"{PREFIX}/snapshots/abc/model.safetensors")
    fetch(tmp_path, tmp_path / "work")
    from huggingface_hub import constants

    assert str(tmp_path / "hub") == constants.HF_HUB_CACHE
    assert os.environ["TORCH_HOME"] == str(tmp_path / "torch")


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self._folder,)


def test_downloaded_weights_run_no_code(tmp_path: Path) -> None:
    """As CS-Flow's are loaded where there is no cache: torchvision does not ask torch for weights alone."""
    made, file = tmp_path / "made", tmp_path / "hub/checkpoints/weights.pth"
    write(tmp_path, "hub/checkpoints/weights.pth")
    torch.save({"weight": MakesFolder(made)}, file)
    code = "import anomaly_runner, torch; torch.hub.load_state_dict_from_url('https://example.org/weights.pth')"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_FORCE")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"TORCH_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not made.exists()
    assert "Weights only load failed" in done.stderr


@pytest.mark.parametrize(
    ("files", "path"),
    [
        ({}, "snapshots/REVISION/model.safetensors and no revision in .*refs/main"),
        ({"refs/main": b"abc"}, "snapshots/abc/model.safetensors"),
        ({"snapshots/abc/model.safetensors": b"x"}, "refs/main"),
        ({"refs/main": b"new", "snapshots/old/model.safetensors": b"x"}, "snapshots/new/model.safetensors"),
    ],
)
def test_missing_weights_name_their_path(tmp_path: Path, files: dict[str, bytes], path: str) -> None:
    for name, content in files.items():
        write(tmp_path, f"{PREFIX}/{name}", content)
    with pytest.raises(WeightsNotFound, match=f"{tmp_path}/{PREFIX}.*{path}|{path}"):
        fetch(tmp_path, tmp_path / "work")


@pytest.mark.parametrize("wanted", [Wanted("file", "torch/hub/checkpoints/x.pth"), Wanted("folder", "datasets/dtd")])
def test_files_and_folders(tmp_path: Path, wanted: Wanted) -> None:
    with pytest.raises(WeightsNotFound, match=f"{tmp_path}/{wanted.name}"):
        fetch(tmp_path, tmp_path / "work", wanted)
    write(tmp_path, wanted.name + ("/a/1.png" if wanted.kind == "folder" else ""))
    assert fetch(tmp_path, tmp_path / "work", wanted) == tmp_path


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
def test_each_model_lists_the_weights_that_it_loads(model: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    assert [(want.kind, want.name) for want in wanted_weights(Model.model_validate(model))] == wanted


def test_a_backbone_without_a_repository_is_refused() -> None:
    model = Model.model_validate({"name": "padim", "padim": {"backbone": "test_vit_no_such"}})
    with pytest.raises(WeightsNotFound, match="test_vit_no_such"):
        wanted_weights(model)


def test_a_truncated_file_is_reported_as_damaged(tmp_path: Path) -> None:
    write(tmp_path, "hub/models--timm--resnet18.a1_in1k/refs/main", b"abc")
    write(tmp_path, "hub/models--timm--resnet18.a1_in1k/snapshots/abc/model.safetensors", b"x" * 99)
    fetch(tmp_path, tmp_path / "work", Wanted("hub", "timm/resnet18.a1_in1k"))
    choice = choose_backbone("resnet18", ("layer1",))
    with pytest.raises(WeightsNotFound, match=r"timm/resnet18\.a1_in1k are damaged: fill the cache again"):
        Backbone(choice, pre_trained=True)


def saved(legacy: bool = False) -> bytes:
    """A file in torchvision's current or former format."""
    file = io.BytesIO()
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGED = {
    "a page in its place": lambda: b"<html>403 Forbidden</html>",
    "nothing": lambda: b"",
    "half": lambda: half(saved()),
    "its first bytes": lambda: saved()[:30_000],
    "half of an old one": lambda: half(saved(legacy=True)),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_of_torchvision_is_reported_as_damaged(tmp_path: Path, content: Callable[[], bytes]) -> None:
    write(tmp_path, RESNET18, content())
    fetch(tmp_path, tmp_path / "work", Wanted("file", RESNET18))
    model = Model.model_validate({"name": "cfa", "cfa": {"backbone": "resnet18"}})
    with pytest.raises(WeightsNotFound, match=r"checkpoints/resnet18-f37072fd\.pth are damaged"):
        build_module(model, BuildOptions((64, 64), 4, tmp_path, "object"))


@pytest.fixture(scope="module")
def loaded_late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that EfficientAD and DSR load when their training begins."""
    cache = tmp_path_factory.mktemp("late")
    write_teacher(cache / TEACHERS / "pretrained_teacher_small.pth")
    write_quantiser(cache / QUANTISER)
    return cache


@pytest.mark.parametrize(
    ("name", "file", "begin"),
    [
        ("efficientad", f"{TEACHERS}/pretrained_teacher_small.pth", "prepare_pretrained_model"),
        ("dsr", QUANTISER, "on_train_start"),
    ],
)
def test_damaged_weights_that_are_loaded_when_training_begins_are_reported(
    tmp_path: Path, loaded_late: Path, name: str, file: str, begin: str
) -> None:
    shutil.copytree(loaded_late, tmp_path, dirs_exist_ok=True)
    use_cache(tmp_path)
    with without_pretrained_weights():
        module = build_module(Model.model_validate({"name": name}), BuildOptions((64, 64), 1, tmp_path, "object"))
    getattr(module, begin)()
    write(tmp_path, file, half((tmp_path / file).read_bytes()))
    with pytest.raises(WeightsNotFound, match=f"the weights {file} are damaged: fill the cache again"):
        getattr(module, begin)()


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory"),
        PermissionError(13, "Permission denied"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("Error(s) in loading state_dict for ResNet: Missing key(s) in state_dict"),
    ],
)
def test_other_errors_are_not_reported_as_damage(error: Exception) -> None:
    assert not is_damaged_file(error)


NOWHERE = Model.model_validate({"name": "stfpm", "stfpm": {"backbone": "legacy_seresnet18"}})
"""timm has its weights from somewhere else than the hub."""


def test_a_backbone_without_a_repository_is_built_if_there_is_no_cache() -> None:
    with without_pretrained_weights():
        build_module(NOWHERE, BuildOptions((64, 64), 4, None, "object"))


def test_damaged_weights_without_a_repository_are_named_by_their_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*arguments: object, **options: object) -> Never:
        raise EOFError

    monkeypatch.setattr("timm.create_model", damaged)
    with pytest.raises(WeightsNotFound, match="the weights legacy_seresnet18 are damaged"):
        build_module(NOWHERE, BuildOptions((64, 64), 4, None, "object"))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_on_the_hub_are_found_without_a_download(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {name: b"x" * 1234}
    with serve_hub("timm/resnet18.a1_in1k", content) as url:
        use_hub(url, tmp_path, monkeypatch)
        assert check_on_hub("resnet18") == 1234
    assert not list(tmp_path.rglob(name))


def test_weights_that_the_hub_does_not_have_are_told_as_a_download_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub("timm/resnet18.a1_in1k", {}) as url:
        use_hub(url, tmp_path, monkeypatch)
        with pytest.raises(WeightsNotFound) as found:
            check_on_hub("resnet18")
        with pytest.raises(WeightsNotFound) as loaded:
            Backbone(choose_backbone("resnet18", ("layer1",)), pre_trained=True)
    assert without_ids(found.value) == without_ids(loaded.value)
    assert "for a cluster with no internet set model.weights" in str(found.value)


def without_ids(error: Exception) -> str:
    """The message without the number that each request has."""
    return re.sub(r"Request ID: \S+", "", str(error))


def use_hub(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
