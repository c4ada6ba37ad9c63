"""PatchCore on as many large images as factories have: a whole run, from JPEG files to the report, its time and memory.

Pictures are gravel, shifted, mirrored and with another contrast each; the network is EfficientNet-Lite0 with random
weights, whose patches (4,096 of 152 numbers from an image of 512 px) would take 25 GB for 10,000 images. ::

    python -m benchmarks.patchcore_large [--images N ...] [--side PIXELS] [--ratio R] [--write]
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from benchmarks.processes import run_locally
from benchmarks.tables import Table, add_write, publish

TESTED = 50
"""Test images of each class."""
MANIFEST = """
apiVersion: anomalyops.io/v1alpha1
kind: AnomalyExperiment
metadata: {name: large, namespace: factory}
spec:
  dataset: {source: {s3: {uri: "s3://data"}}, category: gravel, task: classification}
  model:
    name: patchcore
    patchcore: {backbone: tf_efficientnet_lite0, layers: [blocks.2, blocks.4], preTrained: false}
  output: {s3: {uri: "s3://results"}}
"""


def write_pictures(folder: Path, count: int, side: int, *, scratched: bool = False) -> None:
    """Write pictures of gravel (side x side, grey); scratched ones have a white bar."""
    import skimage.data

    whole = np.resize(skimage.data.gravel(), (side, side)).astype(np.float32)
    folder.mkdir(parents=True)
    for index in range(count):
        random = np.random.default_rng([index, scratched])
        pixels = np.roll(whole, random.integers(0, side, 2), (0, 1))[
            :: random.choice([-1, 1]), :: random.choice([-1, 1])
        ]
        pixels = np.clip(128 + random.uniform(0.7, 1.3) * (pixels - 128), 0, 255).astype(np.uint8)
        if scratched:
            pixels[side // 2 : side // 2 + 6, side // 4 : side // 2] = 255
        Image.fromarray(pixels).save(folder / f"{index:06d}.jpg", quality=75)


def measure(images: int, side: int, ratio: float) -> tuple[str, ...]:
    """Make the pictures, run the experiment, print its warnings, and return the table's line."""
    with tempfile.TemporaryDirectory() as root:
        data = Path(root) / "data" / "gravel"
        write_pictures(data / "train" / "good", images, side)
        write_pictures(data / "test" / "good", TESTED, side)
        write_pictures(data / "test" / "scratch", TESTED, side, scratched=True)
        manifest = yaml.safe_load(MANIFEST)
        manifest["spec"]["model"]["patchcore"]["coresetSamplingRatio"] = ratio
        manifest["spec"]["transforms"] = {"inputSize": {"height": side, "width": side}}
        file = Path(root) / "large.yaml"
        file.write_text(yaml.safe_dump(manifest))
        cost = run_locally(file, Path(root))
        summary = json.loads((Path(root) / "results/factory/large/local/report.json").read_text())["summary"]
    print(f"{images:,} images", *summary["warnings"], sep="\n", flush=True)
    auroc = f"{summary['metrics']['image']['AUROC']:.3f}"
    return f"{images:,}", f"{cost.cpu_seconds:,.0f} s", f"{cost.megabytes:,.0f} MB", auroc


def main() -> None:
    """Measure each number of images, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, nargs="+", default=[300, 10_000])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--ratio", type=float, default=0.0001)
    add_write(parser)
    arguments = parser.parse_args()
    rows = [measure(images, arguments.side, arguments.ratio) for images in arguments.images]
    columns = ("Images", "CPU", "Peak memory", "Image AUROC")
    table = Table("patchcore-large", columns, rows, ("anomaly-operator", "torch"))
    publish([table], arguments.write)


if __name__ == "__main__":
    main()
