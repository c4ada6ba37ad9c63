"""Small real data sets: textures with painted defects and their masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

SIDE = 64

Document = dict[str, Any]
"""A manifest as parsed from YAML."""
Change = Callable[[Document], object]
"""Changes a manifest in place."""


def texture(index: int) -> Image.Image:
    """Return a piece of scikit-image's gravel."""
    import skimage.data

    place = np.random.default_rng(index).integers(0, 512 - SIDE, 2)
    pixels = skimage.data.gravel()[place[0] : place[0] + SIDE, place[1] : place[1] + SIDE]
    return Image.fromarray(pixels).convert("RGB")


def scratched(index: int) -> tuple[Image.Image, Image.Image]:
    """Return a piece with a white scratch, and its mask."""
    image, mask = texture(index), Image.new("L", (SIDE, SIDE))
    ends = [int(value) for value in np.random.default_rng(1000 + index).integers(8, SIDE - 8, 4)]
    for canvas, colour in ((image, (255, 255, 255)), (mask, 255)):
        ImageDraw.Draw(canvas).line(ends, fill=colour, width=5)
    return image, mask


def write_textures(root: Path, train: int = 8, good: int = 4, defects: int = 5) -> None:
    """Write train/good, test/good, test/scratch, ground_truth/scratch and test/unknown."""
    for folder in ("train/good", "test/good", "test/scratch", "test/unknown", "ground_truth/scratch"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(train):
        texture(index).save(root / f"train/good/{index:03d}.png")
    for index in range(good):
        texture(100 + index).save(root / f"test/good/{index:03d}.png")
    for index in range(defects):
        image, mask = scratched(200 + index)
        image.save(root / f"test/scratch/{index:03d}.png")
        mask.save(root / f"ground_truth/scratch/{index:03d}_mask.png")
    scratched(300)[0].save(root / "test/unknown/000.png")


EXPERIMENT = """
apiVersion: anomalyops.io/v1alpha1
kind: AnomalyExperiment
metadata: {name: textures, namespace: factory}
spec:
  dataset:
    source: {s3: {uri: "s3://data"}}
    category: textures
  transforms: {inputSize: {height: 64, width: 64}}
  model:
    name: padim
    padim: {backbone: resnet18, layers: [layer1, layer2], preTrained: false, nFeatures: 20}
  evaluation:
    visualization: {enabled: true}
  output: {s3: {uri: "s3://results"}}
"""

INFERENCE = """
apiVersion: anomalyops.io/v1alpha1
kind: AnomalyInference
metadata: {name: look, namespace: factory}
spec:
  model: {experiment: textures}
  input:
    source: {s3: {uri: "s3://data"}}
    category: textures
    layout: labelled
  visualization: {enabled: true, onlyWrong: true}
  output: {s3: {uri: "s3://results"}}
"""


def write_manifest(folder: Path, text: str, change: Change | None = None) -> Path:
    """Write a manifest after ``change(document)``, and return the file."""
    document: Document = yaml.safe_load(text)
    if change:
        change(document)
    file = folder / f"{document['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump(document))
    return file
