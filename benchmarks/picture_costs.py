"""What one picture costs at 1, 12 and 50 megapixels: seconds of CPU and bytes, with and without raw outputs.

A photograph that scikit-image ships, enlarged and stored as JPEG, with maps of 256 x 256 in which a part is anomalous,
is drawn and written as in a run, on one thread; reading the image file is part of it. ::

    python -m benchmarks.picture_costs [--images N]
"""

import argparse
import tempfile
import time
from pathlib import Path

from PIL import Image

from anomaly_api.evaluation import Visualization
from anomaly_runner.data.samples import Sample
from anomaly_runner.reporting.visualize import write_pictures
from benchmarks.visualize import renderer_of

SIZES = {1: (1152, 864), 12: (4096, 3072), 50: (8192, 6144)}
"""Width and height by megapixels."""


def write_images(folder: Path, count: int, size: tuple[int, int]) -> list[Sample]:
    """Write different parts of a photograph as JPEG files of one size, and return their samples."""
    import skimage.data

    whole = Image.fromarray(skimage.data.astronaut())
    for index in range(count):
        part = whole.crop((index % 64, index % 48, index % 64 + 448, index % 48 + 336))
        part.resize(size, Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=90)
    return [Sample(f"{index}.jpg", "defect") for index in range(count)]


def measure(size: tuple[int, int], count: int, raw_outputs: bool) -> tuple[float, dict[str, int]]:
    """Return the CPU seconds of a picture, and the mean bytes of its files by their suffix."""
    spec = Visualization(enabled=True, raw_outputs=raw_outputs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        renderer = renderer_of(folder, write_images(folder, count, size))
        began = time.process_time()
        files = [file for index in range(count) for file in write_pictures(renderer, index, spec, folder / "pictures")]
        seconds = (time.process_time() - began) / count
        sizes: dict[str, int] = {}
        for file in files:
            kind = file.name.rpartition("_")[2] if file.suffix != ".jpg" else "picture.jpg"
            sizes[kind] = sizes.get(kind, 0) + file.stat().st_size // count
    return seconds, sizes


def main() -> None:
    """Print a line for each size, with and without raw outputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=3)
    arguments = parser.parse_args()
    for megapixels, size in SIZES.items():
        for raw_outputs in (False, True):
            seconds, sizes = measure(size, arguments.images, raw_outputs)
            parts = ", ".join(f"{kind} {count / 1e6:.2f} MB" for kind, count in sizes.items())
            total = sum(sizes.values()) / 1e6
            kind = "with raw outputs" if raw_outputs else "picture alone"
            print(f"{megapixels:3} MP  {kind:16} {seconds:7.2f} s CPU {total:8.2f} MB: {parts}")


if __name__ == "__main__":
    main()
