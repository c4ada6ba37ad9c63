"""What one picture costs at 1, 12 and 50 megapixels: CPU milliseconds and bytes, with and without raw outputs.

A photograph that scikit-image ships, enlarged and stored as JPEG, with maps of 256 x 256 in which a part is anomalous,
is drawn and written as in a run, on one thread; reading the image file is part of it. ::

    python -m benchmarks.picture_costs [--images N] [--runs N] [--write]
"""

import argparse
import tempfile
import time
from pathlib import Path

from PIL import Image

from anomaly_api.evaluation import Visualization
from anomaly_runner.data.samples import Sample
from anomaly_runner.reporting.visualize import write_pictures
from benchmarks.tables import Spread, Table, add_write, publish
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


def measure(size: tuple[int, int], count: int, raw_outputs: bool) -> tuple[float, float]:
    """Return the CPU milliseconds of a picture, and the mean megabytes of its files."""
    spec = Visualization(enabled=True, raw_outputs=raw_outputs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        renderer = renderer_of(folder, write_images(folder, count, size))
        began = time.process_time()
        files = [file for index in range(count) for file in write_pictures(renderer, index, spec, folder / "pictures")]
        seconds = (time.process_time() - began) / count
        return seconds * 1000, sum(file.stat().st_size for file in files) / count / 1e6


def row(megapixels: int, images: int, runs: int) -> list[str]:
    """A line of the table."""
    width, height = SIZES[megapixels]
    cells = [f"{megapixels} MP ({width} x {height})"]
    for raw_outputs in (False, True):
        found = [measure((width, height), images, raw_outputs) for _ in range(runs)]
        cells += [Spread.of([milliseconds for milliseconds, _ in found]).text(" ms"), f"{found[0][1]:.1f} MB"]
    return cells


def main() -> None:
    """Measure all sizes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    add_write(parser)
    options = parser.parse_args()
    rows = [row(megapixels, options.images, options.runs) for megapixels in SIZES]
    columns = ("Image", "Picture, CPU", "file", "with `rawOutputs`, CPU", "files")
    table = Table("picture-costs", columns, rows, ("anomaly-operator", "pillow"), f"{options.runs} runs each.")
    publish([table], options.write)


if __name__ == "__main__":
    main()
