"""Tiles: cut and joined like anomalib's, with the same scores, and refused if they do not fit."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from anomaly_api.artifacts import Export
from anomaly_api.model import Model, Tiling
from anomaly_api.parameters import PadimParameters, PatchcoreParameters
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.exporting.export import export_all
from anomaly_runner.models.anomalib_model import BuildOptions, build_module, scoring_model, without_pretrained_weights
from anomaly_runner.models.backbone import choose_backbone
from anomaly_runner.models.check import check_model
from anomaly_runner.models.padim import Padim
from anomaly_runner.models.patchcore import Patchcore
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.models.tiling import Tiles
from anomaly_runner.scoring.checkpoint import load_checkpoint
from anomaly_runner.scoring.predict import ScoredBatch

SEED = 7
SIZE = (128, 96)
LAYERS = ("layer1", "layer2")
HALVES, APART = Tiling(tile_size=64, stride=32), Tiling(tile_size=32, stride=32)
THREADS = TorchThreads(torch.device("cpu"))
both = pytest.mark.parametrize("tiling", [HALVES, APART], ids=["overlapping", "apart"])


class AnomalibModels(NamedTuple):
    """anomalib's classes, typed here because anomalib does not type them."""

    tiler: Any
    padim: Any
    patchcore: Any


class Prediction(Protocol):
    """Outputs of anomalib's models."""

    pred_score: torch.Tensor
    anomaly_map: torch.Tensor


@pytest.fixture(scope="module")
def anomalib() -> AnomalibModels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from anomalib.data.utils.tiler import Tiler
        from anomalib.models.image.padim.torch_model import PadimModel
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    return AnomalibModels(Tiler, PadimModel, PatchcoreModel)


def images(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def compare(
    measured: Callable[[str], None],
    name: str,
    ours: torch.nn.Module,
    reference: Callable[[torch.Tensor], Prediction],
    tolerance: float,
) -> None:
    with torch.inference_mode():
        scores, maps = ours(images(5, seed=1))
        expected = reference(images(5, seed=1))
    scale = float(expected.anomaly_map.max())
    score = float((scores - expected.pred_score.reshape(-1)).abs().max()) / scale
    pixel = float((maps - expected.anomaly_map).abs().max()) / scale
    measured(f"{name} in tiles beside anomalib: scores differ by {score:.1e}, maps by {pixel:.1e}")
    assert score < tolerance
    assert pixel < tolerance


def padim(tiling: Tiling) -> Padim:
    torch.manual_seed(SEED)
    parameters = PadimParameters(pre_trained=False, n_features=40)
    return Padim(choose_backbone("resnet18", LAYERS), parameters, SIZE, THREADS, tiling).eval()


@both
def test_tiles_are_cut_and_joined_like_those_of_anomalib(anomalib: AnomalibModels, tiling: Tiling) -> None:
    ours, reference = Tiles(SIZE, tiling), anomalib.tiler(tiling.tile_size, tiling.stride)
    tiles = ours.tile(images(2))
    assert torch.equal(tiles, reference.tile(images(2)))
    features = torch.nn.functional.avg_pool2d(tiles, 8) + torch.arange(len(tiles))[:, None, None, None]
    assert (ours.untile(features) - reference.untile(features)).abs().max() < 1e-5


def test_the_last_tile_ends_with_the_image() -> None:
    tiles = Tiles((160, 96), Tiling(tile_size=64, stride=64))
    picture = images(2, size=(160, 96))
    cut = tiles.tile(picture)
    assert tiles.count == 3 * 2
    assert torch.equal(cut[5], picture[0, :, 96:, 32:])
    assert torch.allclose(tiles.untile(cut), picture)
    assert tiles.patches((16, 16)) == (40, 24)


@both
def test_padim_scores_as_anomalib_in_tiles(
    anomalib: AnomalibModels, measured: Callable[[str], None], tiling: Tiling
) -> None:
    torch.manual_seed(SEED)
    reference = anomalib.padim(backbone="resnet18", layers=list(LAYERS), pre_trained=False, n_features=40)
    reference.tiler = anomalib.tiler(tiling.tile_size, tiling.stride)
    reference.train()
    reference(images(12))
    reference.fit()
    ours = padim(tiling)
    ours.learn(torch.split(images(12), 5), THREADS)
    compare(measured, "PaDiM", ours, reference.eval(), 2e-5)


@both
def test_patchcore_scores_as_anomalib_in_tiles(
    anomalib: AnomalibModels, measured: Callable[[str], None], tiling: Tiling
) -> None:
    torch.manual_seed(SEED)
    reference = anomalib.patchcore(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False)
    reference.tiler = anomalib.tiler(tiling.tile_size, tiling.stride)
    torch.manual_seed(SEED)
    parameters = PatchcoreParameters(backbone="resnet18", pre_trained=False, coreset_sampling_ratio=0.1)
    choice = choose_backbone("resnet18", ("layer2", "layer3"))
    ours = Patchcore(choice, parameters, SIZE, SEED, lambda _: None, threads=THREADS, tiling=tiling).eval()
    reference.train()
    reference(images(6))
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference.subsample_embedding(sampling_ratio=0.1)
    torch.manual_seed(SEED)
    ours.learn(torch.split(images(6), 4), THREADS)
    compare(measured, "PatchCore", ours, reference.eval(), 1e-4)


@pytest.mark.parametrize("name", ["stfpm", "reverseDistillation"])
def test_anomalibs_models_work_with_these_tiles(
    anomalib: AnomalibModels, measured: Callable[[str], None], name: str
) -> None:
    options = {"layers": [*LAYERS, "layer3"], "backbone": "resnet18"}
    model = Model.model_validate({"name": name, name: options, "tiling": HALVES.model_dump(by_alias=True)})
    with without_pretrained_weights():
        module = build_module(model, BuildOptions(SIZE, 2, None, "object"))
    ours = scoring_model(model, module, SIZE).eval()
    tiles = module.model.tiler
    assert isinstance(tiles, Tiles)

    def reference(batch: torch.Tensor) -> Prediction:
        module.model.tiler = anomalib.tiler(64, 32)
        try:
            prediction: Prediction = module.model(batch)
            return prediction
        finally:
            module.model.tiler = tiles

    compare(measured, name, ours, reference, 1e-5)


def test_a_tiled_model_is_exported_for_any_batch_size_and_restored(tmp_path: Path) -> None:
    ours = padim(HALVES)
    ours.learn(torch.split(images(12), 5), THREADS)
    batch = Batch(tuple(Sample(f"{index}.png", "unknown") for index in range(3)), images(3, seed=2).numpy())
    with torch.inference_mode():
        scores, maps = ours(torch.from_numpy(batch.images))
    scored = ScoredBatch(batch, scores.numpy(), maps[:, 0].numpy())
    ranges = {"image": (0.0, float(scores.max())), "pixel": (0.0, float(maps.max()))}
    exports = export_all(ours, Export(types=["onnx", "torchscript"]), [scored], ranges, tmp_path)
    assert len(exports.verified) == 2
    for exported in exports.verified:
        assert exported.report.max_score_difference < 1e-4 * float(scores.max())
    save_file({name: value.contiguous() for name, value in ours.state_dict().items()}, tmp_path / "state.safetensors")
    definition = Model.model_validate(
        {
            "name": "padim",
            "padim": {"layers": list(LAYERS), "nFeatures": 40},
            "tiling": HALVES.model_dump(by_alias=True),
        }
    )
    again = load_checkpoint(definition, SIZE, tmp_path / "state.safetensors", THREADS).eval()
    with torch.inference_mode():
        found = again(torch.from_numpy(batch.images))[0]
    assert torch.allclose(found, scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "tiling", "complaint"),
    [
        ((64, 64), (128, 64), r"tileSize is 128, but images are 64 x 64"),
        ((256, 256), (72, 72), r"multiples of 16"),
        ((250, 250), (64, 64), r"multiples of 16"),
    ],
)
def test_tiles_that_do_not_fit_are_refused_before_anything_is_fetched(
    size: tuple[int, int], tiling: tuple[int, int], complaint: str
) -> None:
    model = Model.model_validate({"name": "padim", "tiling": {"tileSize": tiling[0], "stride": tiling[1]}})
    with pytest.raises(InvalidConfig, match=complaint):
        check_model(model, size)
