"""What grows faster than the images: CPU seconds of each model's stages with some images, twice and four times as many.

Whole experiments on small pictures with random weights, as many pictures to train on as to test on, in one process, as
the tests of all models run them. What a stage costs at any size cancels out: *growth* is how much more the second
doubling costs than the first, 2 for what is linear and 4 for what is quadratic in the images. ::

    PYTHONPATH=tests python -m benchmarks.growth [--images N] [--models NAME ...]
"""

import argparse
import io
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from anomaly_api.model import ModelName
from anomaly_api.status import Stage
from anomaly_runner.context import Context
from hack.demo.auxiliary import write_auxiliary_weights
from support.model_forms import train_and_export
from support.model_rows import ROWS, exported_models
from support.textures import write_textures

_stage = Context.stage
LEAST = 0.2
"""CPU seconds: what a doubling costs less than this says nothing."""


def cpu_seconds(name: ModelName, folder: Path) -> dict[str, float]:
    """CPU seconds of each stage of a run, on all threads."""
    found: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(context: Context, stage: Stage, total: int = 0, unit: str = "images") -> Iterator[None]:
        began = time.process_time()
        with _stage(context, stage, total, unit):
            yield
        found[stage.value] += time.process_time() - began

    with patch.object(Context, "stage", timed), redirect_stdout(io.StringIO()):
        train_and_export(folder, name, [])
    return found


def growth(costs: list[float]) -> str:
    """How much more the second doubling costs than the first."""
    first, second = costs[1] - costs[0], costs[2] - costs[1]
    return f"{second / first:.1f}" if min(first, second) >= LEAST else "-"


def table_of(name: ModelName, images: int) -> list[str]:
    """Lines of the table, one for each stage that costs something."""
    sizes, runs = [images, 2 * images, 4 * images], []
    for count in sizes:
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root)
            for category in ("textures", "few"):
                write_textures(folder / "data" / category, train=count, good=count // 2, defects=count // 2)
            if ROWS[name].weights_from_cache:
                write_auxiliary_weights(folder / "weights")
            runs.append(cpu_seconds(name, folder))
    lines = []
    for stage in runs[-1]:
        costs = [run[stage] for run in runs]
        if costs[-1] >= LEAST:
            lines.append(f"| {name} | {stage} | {' | '.join(f'{cost:.1f} s' for cost in costs)} | {growth(costs)} |")
    return lines


def main() -> None:
    """Print the table, model by model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--models", nargs="+", default=exported_models())
    arguments = parser.parse_args()
    sizes = " | ".join(f"{times * arguments.images} images" for times in (1, 2, 4))
    print(f"| Model | Stage | {sizes} | Growth |\n|---|---|---|---|---|---|", flush=True)
    for name in arguments.models:
        print("\n".join(table_of(name, arguments.images)), flush=True)


if __name__ == "__main__":
    main()
