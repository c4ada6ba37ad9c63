"""Compares runs, from the folder to scores, with plain anomalib: its modules and pre-processing under the Trainer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anomaly_runner.models.catalog import CATALOG
from hack.demo.auxiliary import write_auxiliary_weights
from support.backbones import write_efficientnet_b5
from support.fresh_process import in_fresh_process
from support.model_rows import comparisons
from support.plain_anomalib import pictures, train_both
from support.textures import write_textures

pytestmark = [pytest.mark.slow, pytest.mark.spread]

TOLERANCE = 1e-5
"""Images in another order change the scores by 2e-3 and more."""
CASES = {title: (name, case) for title, name, case in comparisons()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("beside")
    write_textures(made / "data/textures")
    write_textures(made / "data/few", train=4, good=2, defects=2)
    write_auxiliary_weights(made / "weights")
    backbone = "hub/models--timm--resnet18.a1_in1k"
    write_efficientnet_b5(made / "weights", pictures((made / "data/few/train/good").iterdir(), 128))
    for name in (f"{backbone}/refs/main", f"{backbone}/snapshots/any/model.safetensors"):
        file = made / "weights" / name  # must exist, but is not loaded: weights are random here
        file.parent.mkdir(parents=True)
        file.write_text("any")
    return made


@pytest.mark.parametrize("title", CASES)
def test_a_run_scores_as_plain_anomalib(folder: Path, title: str, measured: Callable[[str], None]) -> None:
    name, case = CASES[title]
    found = in_fresh_process(train_both, folder, name, case)
    difference = np.abs(found.ours - found.theirs).max() / np.abs(found.theirs).max()
    measured(
        f"{title} trained beside anomalib: scores differ by {difference:.1e} of the largest "
        f"(weights moved by {found.moved:.1e})"
    )
    assert len(set(found.ours)) > 1
    assert (found.moved > 0) == CATALOG[name].by_gradient
    assert difference < TOLERANCE
