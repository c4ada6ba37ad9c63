"""PaDiM and PatchCore give the same scores as anomalib's own models, image by image."""

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from anomaly_api.parameters import PadimParameters, PatchcoreParameters
from anomaly_runner.models.backbone import choose_backbone
from anomaly_runner.models.coreset import k_center_greedy, projected_always
from anomaly_runner.models.padim import Padim
from anomaly_runner.models.patchcore import Patchcore
from anomaly_runner.models.threads import TorchThreads

SEED = 7
SIZE = (96, 64)
LAYERS = ("layer1", "layer2", "layer3")
THREADS = TorchThreads(torch.device("cpu"))


class AnomalibModels(NamedTuple):
    """anomalib's classes, typed here because anomalib does not type them."""

    padim: Any
    patchcore: Any
    coreset: Any


class PadimPair(NamedTuple):
    """Our PaDiM and anomalib's, fitted to the same images."""

    ours: Padim
    reference: Any


class PatchcorePair(NamedTuple):
    """Our PatchCore and anomalib's, fitted to the same images."""

    ours: Patchcore
    reference: Any


@pytest.fixture(scope="module")
def anomalib() -> AnomalibModels:
    """anomalib's torch models, imported without the warnings about its own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from anomalib.models.components import KCenterGreedy
        from anomalib.models.image.padim.torch_model import PadimModel
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    return AnomalibModels(PadimModel, PatchcoreModel, KCenterGreedy)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def seed_everything() -> None:
    torch.manual_seed(SEED)
    np.random.seed(SEED)


def padim() -> Padim:
    torch.manual_seed(SEED)
    choice = choose_backbone("resnet18", LAYERS)
    return Padim(choice, PadimParameters(pre_trained=False, n_features=40), SIZE, THREADS).eval()


@pytest.fixture(scope="module")
def padims(anomalib: AnomalibModels) -> PadimPair:
    """Our PaDiM and anomalib's with the same seed and the same 21 images; ours is fitted in steps of uneven size."""
    seed_everything()
    reference = anomalib.padim(backbone="resnet18", layers=list(LAYERS), pre_trained=False, n_features=40)
    train = images(21)
    reference.train()
    reference(train)
    reference.fit()
    reference.eval()
    ours = padim()
    ours.learn(torch.split(train, 8), THREADS)
    return PadimPair(ours, reference)


def test_padim_chooses_the_same_channels_for_the_same_seed(padims: PadimPair) -> None:
    ours, reference = padims
    assert ours.idx.tolist() == sorted(reference.idx.tolist())


def test_padim_fits_the_same_gaussians(padims: PadimPair) -> None:
    ours, reference = padims
    order = reference.idx.argsort()
    mean = reference.gaussian.mean[order].T
    inverse = reference.gaussian.inv_covariance[:, order][:, :, order]
    assert (ours.mean[:, 0] - mean).abs().max() < 1e-6 * mean.abs().max()
    assert (ours.inv_covariance - inverse).abs().max() < 1e-4 * inverse.abs().max()


def test_padim_scores_image_by_image(padims: PadimPair, measured: Callable[[str], None]) -> None:
    ours, reference = padims
    test = images(9, seed=1)
    with torch.inference_mode():
        expected = reference(test)
        scores, maps = ours(test)
    scale = float(expected.anomaly_map.max())
    score_difference = float((scores - expected.pred_score.reshape(-1)).abs().max()) / scale
    map_difference = float((maps - expected.anomaly_map).abs().max()) / scale
    measured(f"PaDiM beside anomalib: scores differ by {score_difference:.1e}, maps by {map_difference:.1e}")
    assert score_difference < 2e-5
    assert map_difference < 2e-5


def test_padim_does_not_depend_on_the_number_of_steps(padims: PadimPair) -> None:
    ours, _ = padims
    other = padim()
    other.learn(torch.split(images(21), 21), THREADS)
    assert (ours.inv_covariance - other.inv_covariance).abs().max() < 1e-5 * ours.inv_covariance.abs().max()


@pytest.fixture(scope="module")
def patchcores(anomalib: AnomalibModels) -> PatchcorePair:
    """Our PatchCore and anomalib's with the same seed and the same images."""
    seed_everything()
    reference = anomalib.patchcore(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False)
    torch.manual_seed(SEED)
    choice = choose_backbone("resnet18", ("layer2", "layer3"))
    parameters = PatchcoreParameters(backbone="resnet18", pre_trained=False, coreset_sampling_ratio=0.1)
    ours = Patchcore(choice, parameters, SIZE, SEED, lambda _: None, threads=THREADS).eval()
    train = images(12)
    reference.train()
    reference(train)
    seed_everything()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anomalib warns of an argument that it passes itself
        reference.subsample_embedding(sampling_ratio=0.1)
    reference.eval()
    torch.manual_seed(SEED)
    ours.learn(torch.split(train, 5), THREADS)
    return PatchcorePair(ours, reference)


def test_patchcore_keeps_the_same_coreset(patchcores: PatchcorePair) -> None:
    ours, reference = patchcores
    assert ours.memory_bank.shape == reference.memory_bank.shape
    assert torch.equal(ours.memory_bank, reference.memory_bank) or torch.allclose(
        ours.memory_bank, reference.memory_bank, atol=1e-6
    )


def test_patchcore_scores_image_by_image(patchcores: PatchcorePair, measured: Callable[[str], None]) -> None:
    """Scores agree with anomalib's within its own float32 error, and with anomalib's in float64 within rounding."""
    ours, reference = patchcores
    test = images(9, seed=1)
    with torch.inference_mode():
        scores, maps = ours(test)
        expected = reference(test)
        exact = copy.deepcopy(reference).double()(test.double())
    for name, found, tolerance in (("float32", expected, 1e-4), ("float64", exact, 5e-6)):
        scale = float(found.anomaly_map.max())
        score_difference = float((scores - found.pred_score.reshape(-1)).abs().max()) / scale
        map_difference = float((maps - found.anomaly_map).abs().max()) / scale
        measured(
            f"PatchCore beside anomalib in {name}: scores differ by {score_difference:.1e}, "
            f"maps by {map_difference:.1e}"
        )
        assert score_difference < tolerance
        assert map_difference < tolerance


@pytest.mark.parametrize("clusters", [None, 5, 60])
@pytest.mark.parametrize("features", [48, 384])
def test_the_coreset_equals_that_of_anomalib(anomalib: AnomalibModels, features: int, clusters: int | None) -> None:
    """On scattered and clustered points, which anomalib projects to 197 numbers: more than they have, and fewer."""
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(3000, features, generator=generator)
    if clusters:
        points = points * 0.05 + torch.randn(clusters, features, generator=generator).repeat(3000 // clusters, 1)
    seed_everything()
    expected = anomalib.coreset(points, 0.1).select_coreset_idxs()
    torch.manual_seed(SEED)
    compared = projected_always(points, SEED)
    assert k_center_greedy(compared, 300, lambda _: None, THREADS).tolist() == expected


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    """Scores are bitwise the same with one CPU and with two."""
    program = (
        "import sys, torch, hashlib\n"
        "import anomaly_runner.models.threads as threads\n"
        "threads.cpu_limit = lambda: int(sys.argv[1])\n"
        "from anomaly_api.parameters import PadimParameters\n"
        "from anomaly_runner.models.backbone import choose_backbone\n"
        "from anomaly_runner.models.padim import Padim\n"
        "torch.manual_seed(1)\n"
        "t = threads.TorchThreads(torch.device('cpu'))\n"
        "choice = choose_backbone('resnet18', ('layer1', 'layer2'))\n"
        "m = Padim(choice, PadimParameters(pre_trained=False), (64, 64), t)\n"
        "m.eval().learn(torch.randn(30, 3, 64, 64).split(20), t)\n"
        "out = list(t.map(m, torch.randn(20, 3, 64, 64).split(8)))\n"
        "print(hashlib.sha256(b''.join(s.numpy().tobytes() + a.numpy().tobytes() for s, a in out)).hexdigest())\n"
    )
    run = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, str(count)], capture_output=True, text=True, check=True
        ).stdout
        for count in (1, 2, 3)
    ]
    assert run[0] == run[1] == run[2]
