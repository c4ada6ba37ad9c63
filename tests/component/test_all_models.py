"""Every model from images to exports and back: all its forms give the same scores at any batch size.

Weights that are not available here are random; the tests do not depend on them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anomaly_api.artifacts import Export
from anomaly_api.model import Model, ModelName
from anomaly_runner.data.batches import Batch
from anomaly_runner.data.samples import Sample
from anomaly_runner.exporting.export import export_all
from anomaly_runner.models.anomalib_model import BuildOptions, build_module, scoring_model, without_pretrained_weights
from anomaly_runner.models.catalog import CATALOG
from anomaly_runner.models.traceable import TRACEABLE
from anomaly_runner.scoring.predict import ScoredBatch
from hack.demo.auxiliary import write_auxiliary_weights
from support.backbones import write_efficientnet_b5
from support.fresh_process import in_fresh_process
from support.model_forms import score_by_every_form
from support.model_rows import ROWS, exported_models
from support.textures import texture, write_textures

pytestmark = [pytest.mark.slow, pytest.mark.spread]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    write_textures(made / "data/textures")
    write_textures(made / "data/few", train=3, good=2, defects=1)
    write_auxiliary_weights(made / "weights")
    write_efficientnet_b5(made / "weights", stacked(textures(4, 128)))
    return made


def textures(count: int, side: int) -> list[NDArray[np.float32]]:
    pixels = (np.asarray(texture(index).resize((side, side)), np.float32) for index in range(count))
    return [image / np.float32(255) for image in pixels]


def stacked(pictures: Sequence[NDArray[np.float32]]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures])


@pytest.mark.parametrize("name", exported_models())
def test_exports_agree_with_the_model(
    folder: Path, name: ModelName, measured: Callable[[str], None], request: pytest.FixtureRequest
) -> None:
    row, rare = ROWS[name], request.config.getoption("--rare")
    types = [kind for kind in CATALOG[name].exports.formats if rare or kind in row.usual_exports]
    found = in_fresh_process(score_by_every_form, folder, name, types)
    assert len(set(found.trained.values())) > 1
    assert (found.report.training is not None) == CATALOG[name].by_gradient
    assert {export.format for export in found.report.exports} == set(types)
    assert found.manifest.localises == CATALOG[name].localises
    assert found.device_constants == []
    assert found.faults_off_the_cpu == []
    assert found.by_runtime.keys() == {"torch", "onnx", "torchscript"} & {"torch", *types}
    scale = max(map(abs, found.trained.values()))
    for runtime, scores in found.by_runtime.items():
        apart = max(abs(scores[path] - found.trained[path]) for path in found.trained) / scale
        measured(f"{name} by {runtime}: scores differ by {apart:.1e} of the largest")
        assert apart <= (1e-6 if runtime == "torch" else 1e-4)


def untrained(name: ModelName) -> tuple[Model, Any, int]:
    """A model with random weights, anomalib's module of it, and the side of its images."""
    side = ROWS[name].side
    model = Model.model_validate({"name": name, name: ROWS[name].parameters})
    torch.manual_seed(0)
    with without_pretrained_weights():
        return model, build_module(model, BuildOptions((side, side), 4, None, "object")), side


WRITTEN_ANEW = [name for name in exported_models() if isinstance(TRACEABLE.get(name), type)]
WRITTEN_ANEW.remove("anomalyVfm")  # only its answer is put into another form


@pytest.mark.parametrize("name", WRITTEN_ANEW)
def test_traceable_models_compute_the_same_as_anomalib(name: ModelName, measured: Callable[[str], None]) -> None:
    """Compares the forward passes of ``traceable`` with anomalib's own on the same state."""
    model, module, side = untrained(name)
    images = stacked(textures(12, side))
    with torch.no_grad():
        if not CATALOG[name].by_gradient:
            module.train()
            for _ in range(CATALOG[name].loop.passes):
                module.training_step(SimpleNamespace(image=images[:8]))
                module.fit()
        if name == "cfa":
            module.model.initialize_centroid([SimpleNamespace(image=images[:8])])
        module.eval()
        ours = scoring_model(model, module, (side, side)).eval()
        ours.calibrate(images)
        scores, maps = ours(images.clone())
        theirs = module.model(images.clone())
    pairs = [(scores, theirs.pred_score.reshape(-1))]
    if maps is not None:
        pairs.append((maps[:, 0], theirs.anomaly_map.reshape(maps[:, 0].shape)))
    for found, expected in pairs:
        shift = (
            (found - expected).mean() if name == "cflow" else 0.0
        )  # anomalib's scores are relative to the largest likelihood of the batch
        apart = float((found - expected - shift).abs().max() / expected.abs().max())
        measured(f"{name} beside anomalib: differ by {apart:.1e} of the largest")
        assert apart < 2e-5


# CPUs without instructions for float16 take a quarter of an hour for EfficientAD's convolutions.
HALF_PRECISION = ["cfa", "fastflow", pytest.param("efficientad", marks=[pytest.mark.rare, pytest.mark.timeout(3600)])]


@pytest.mark.parametrize("name", HALF_PRECISION)
def test_a_model_that_creates_float32_tensors_is_exported_in_half_precision(
    name: ModelName, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    model, module, side = untrained(name)
    images = stacked(textures(6, side))
    if name == "cfa":
        module.model.initialize_centroid([SimpleNamespace(image=images)])
    ours = scoring_model(model, module, (side, side)).eval()
    with torch.no_grad():
        scores, maps = (found.numpy() for found in ours(images))
    samples = tuple(Sample(f"good/{index}.png", "good") for index in range(len(images)))
    reference = [ScoredBatch(Batch(samples, images.numpy()), scores, maps[:, 0])]
    ranges = {"image": (float(scores.min()), float(scores.max())), "pixel": (float(maps.min()), float(maps.max()))}
    made = export_all(ours, Export(types=("onnx", "torchscript"), precision="float16"), reference, ranges, tmp_path)
    assert made.failure is None
    for exported in made.verified:
        apart = exported.report.max_score_difference / float(np.abs(scores).max())
        measured(f"{name} as {exported.model.format} in half precision: scores differ by {apart:.1e} of the largest")
        assert 0 < apart < 2e-2
