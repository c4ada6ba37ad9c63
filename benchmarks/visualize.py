"""CPU time of drawing one picture, with and without reading and writing the files.

Photographs that scikit-image ships, stored as JPEG at 256 and 1024 px, with maps of 256 x 256 in which a part is
anomalous, are rendered as in a run, on one thread. For comparison anomalib's own visualiser draws the same ones. ::

    python -m benchmarks.visualize [--images N] [--without-anomalib]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomaly_api.dataset import DatasetLimits
from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.reporting.visualize import PredictionRenderer, RenderedPrediction
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.storage import Prefetcher

MAP = (256, 256)


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
    work(0)
    began = time.process_time()
    for index in range(count):
        work(index)
    return (time.process_time() - began) / count * 1000


def ours(renderer: PredictionRenderer, count: int, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield names and CPU milliseconds of the parts of our picture, and of the whole."""
    reading = cpu_ms(renderer.image, count)
    drawing = cpu_ms(renderer.render, count)
    rendered: RenderedPrediction = renderer.render(0)
    encoding = cpu_ms(lambda index: rendered.sheet.save(folder / f"sheet{index}.jpg", quality=90, subsampling=0), count)
    yield "read and decode the image", reading
    yield "draw", drawing - reading
    yield "encode and write the picture", encoding
    yield "everything", drawing + encoding


def anomalibs(renderer: PredictionRenderer, count: int, folder: Path) -> float:
    """Return the CPU milliseconds per image of anomalib's visualiser, files included."""
    import torch
    from anomalib.data import ImageItem
    from anomalib.visualization.image.item_visualizer import visualize_image_item

    assert renderer.predictions.maps is not None
    maps = renderer.predictions.maps

    def draw(index: int) -> None:
        path = renderer.prefetcher.path(renderer.predictions.samples[index].key)
        found = torch.from_numpy(maps[index])
        item = ImageItem(
            image_path=str(path),
            image=torch.zeros(3, *MAP),
            anomaly_map=found / found.max(),
            pred_mask=found >= 4,
            pred_score=found.max(),
            pred_label=torch.tensor(True),
        )
        picture = visualize_image_item(
            item,
            fields=["image", "gt_mask"],
            overlay_fields=[("image", ["anomaly_map"]), ("image", ["pred_mask"])],
            field_size=renderer.image(index).size,
        )
        assert picture
        picture.save(folder / f"anomalib{index}.png")

    return cpu_ms(draw, count)


def main() -> None:
    """Print CPU milliseconds per image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--without-anomalib", action="store_true")
    arguments = parser.parse_args()
    for side in (256, 1024):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            renderer = renderer_of(folder, write_images(folder, arguments.images, side))
            for part, value in ours(renderer, arguments.images, folder):
                print(f"{side:5} px  {part:32} {value:8.1f} ms CPU")
            if not arguments.without_anomalib:
                print(f"{side:5} px  {'anomalib, everything':32} {anomalibs(renderer, 5, folder):8.1f} ms CPU")


if __name__ == "__main__":
    main()
