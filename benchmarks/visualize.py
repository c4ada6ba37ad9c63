"""CPU time of a picture from the image file to the written file: ours, and anomalib's visualiser.

Photographs that scikit-image ships, stored as JPEG, with maps of 256 x 256 in which a part is anomalous. Every side
reads the file, draws, encodes and writes, in one process on one thread, in turns. anomalib draws fields of 256 x 256
pixels, as it does by default, and fields as large as the image, which ours are. The parts of ours are clocked once
more. ::

    python -m benchmarks.visualize [--images N] [--sides PIXELS...] [--runs N] [--write]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import DatasetLimits
from anomaly_api.evaluation import Visualization
from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.reporting.visualize import PredictionRenderer, write_pictures
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.storage import Prefetcher
from benchmarks.tables import Spread, Table, add_write, in_turns, publish

MAP = (256, 256)
DEFAULT_FIELD = (256, 256)
"""Width and height of anomalib's fields."""


def scores(index: int) -> NDArray[np.float32]:
    """Return a smooth map (256, 256) with one hot spot."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(index)
    smooth = gaussian_filter(random.normal(size=MAP), 8) * 20
    row, column = random.integers(20, 180, 2)
    smooth[row : row + 50, column : column + 40] += 6
    found: NDArray[np.float32] = gaussian_filter(smooth, 3).astype(np.float32)
    return found


def write_images(folder: Path, count: int, side: int) -> list[Sample]:
    """Write square parts of a photograph as JPEG files, and return their samples."""
    import skimage.data

    whole = Image.fromarray(skimage.data.astronaut()).resize((side + 64, side + 64))
    for index in range(count):
        whole.crop((index % 64, index % 64, index % 64 + side, index % 64 + side)).save(folder / f"{index}.jpg")
    return [Sample(f"{index}.jpg", "defect") for index in range(count)]


def renderer_of(folder: Path, samples: list[Sample]) -> PredictionRenderer:
    """Return a renderer as in a run."""
    maps = np.stack([scores(index) for index in range(len(samples))])
    ends = (float(maps.min()), float(maps.max()))
    thresholds = ThresholdValues(image=4.0, pixel=4.0)
    normalizer = ScoreNormalizer("minMax", thresholds, {"image": ends, "pixel": ends})
    predictions = Predictions(tuple(samples), maps.max((1, 2)), maps, ends)
    evaluated = EvaluationResult(
        thresholds=thresholds,
        metrics=MetricValues(),
        normalizer=normalizer,
        anomalous=predictions.scores >= 4,
        normalized_scores=normalizer.image(predictions.scores),
        confusion=None,
        labels={},
    )
    return PredictionRenderer(
        predictions,
        evaluated,
        Prefetcher(folder, lambda: None),
        Preprocessor(height=MAP[0], width=MAP[1], normalization="none"),
        DatasetLimits(),
    )


def cpu_ms(work: Callable[[int], object], count: int) -> float:
    """Return the CPU milliseconds per item, of all threads of the process."""
    began = time.process_time()
    for index in range(count):
        work(index)
    return (time.process_time() - began) / count * 1000


def ours(renderer: PredictionRenderer, folder: Path, index: int) -> Path:
    """Write a picture as a run does, and return the file."""
    return write_pictures(renderer, index, Visualization(enabled=True), folder / "ours")[0]


def by_anomalib(renderer: PredictionRenderer, folder: Path, field: tuple[int, int], index: int) -> Path:
    """Write a picture as anomalib's visualiser does, with fields of this width and height, and return the file."""
    from anomalib.data import ImageItem
    from anomalib.visualization import ImageVisualizer

    assert renderer.predictions.maps is not None
    found = torch.from_numpy(renderer.predictions.maps[index])
    item = ImageItem(
        image_path=str(renderer.prefetcher.path(renderer.predictions.samples[index].key)),
        image=torch.zeros(3, *MAP),
        anomaly_map=found / found.max(),
        pred_mask=found >= 4,
        pred_score=found.max(),
        pred_label=torch.tensor(True),
    )
    picture = ImageVisualizer(field_size=field).visualize(item)
    assert isinstance(picture, Image.Image)
    file = folder / f"anomalib-{field[0]}-{index}.jpg"
    picture.save(file)
    return file


def sides_of(renderer: PredictionRenderer, folder: Path, side: int) -> Mapping[str, Callable[[int], Path]]:
    """All sides by name: each writes one picture."""
    fields = {f"anomalib, fields of {width} px": (width, width) for width in sorted({DEFAULT_FIELD[0], side})}
    return {"ours": partial(ours, renderer, folder)} | {
        name: partial(by_anomalib, renderer, folder, field) for name, field in fields.items()
    }


def rows_of(side: int, count: int, runs: int) -> Iterator[list[str]]:
    """The rows of one size of image."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        renderer = renderer_of(folder, write_images(folder, count, side))
        sides = sides_of(renderer, folder, side)
        files = {name: described(draw(0)) for name, draw in sides.items()}  # the first of each imports libraries
        turns = in_turns(
            {name: partial(cpu_ms, draw, count) for name, draw in sides.items()}, dict.fromkeys(sides, runs)
        )
        found = {name: Spread.of(values) for name, values in turns.items()}
        parts = ", ".join(f"{part} {value}" for part, value in parts_of(renderer, folder, count, runs).items())
    for name, spread in found.items():
        ratio = "1" if name == "ours" else spread.over(found["ours"]).text()
        yield [
            f"{side} x {side}",
            name,
            files[name],
            spread.text(" ms"),
            ratio,
            parts if name == "ours" else "not clocked",
        ]


def described(file: Path) -> str:
    """Width, height and size of a picture."""
    with Image.open(file) as picture:
        return f"{picture.width} x {picture.height} px, {file.stat().st_size / 1000:,.0f} KB"


def parts_of(renderer: PredictionRenderer, folder: Path, count: int, runs: int) -> dict[str, str]:
    """CPU milliseconds of the parts of our picture."""
    sheet = renderer.render(0).sheet
    works: dict[str, Callable[[int], object]] = {
        "read": renderer.image,
        "read and draw": renderer.render,
        "encode and write": lambda index: sheet.save(folder / f"part{index}.jpg", quality=90, subsampling=0),
    }
    turns = in_turns({name: partial(cpu_ms, work, count) for name, work in works.items()}, dict.fromkeys(works, runs))
    return {name: Spread.of(values).middle(" ms") for name, values in turns.items()}


def main() -> None:
    """Measure all sizes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--runs", type=int, default=5)
    add_write(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for work would count as CPU time
    rows = [row for side in options.sides for row in rows_of(side, options.images, options.runs)]
    columns = ("Image", "Side", "Picture", "CPU a picture", "Times ours", "Parts")
    table = Table("pictures", columns, rows, ("anomaly-operator", "anomalib", "pillow"))
    publish([table], options.write)


if __name__ == "__main__":
    main()
