"""Draw the pages of sweeps as a browser shows them: ``python -m hack.docs.sweep_page [PAGE]``.

Without an argument docs/images/sweep.png, of a played search: it, its trials and their reports are those of the page's
tests (tests/support/searches.py), and the measured values are made up. With one, docs/images/sweep-mnist.png, of the
page that ``make demo SWEEP=1`` has left. The browser is Chromium, which hack/setup installs.
"""

import math
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from anomaly_api.experiment import ExperimentSpec  # noqa: E402
from anomaly_api.status import MetricValues  # noqa: E402
from anomaly_api.sweep_status import StopReason  # noqa: E402
from anomaly_runner.reporting.sweep.files import write_sweep_files  # noqa: E402
from anomaly_runner.reporting.sweep.findings import judge  # noqa: E402
from anomaly_search.spec import status_of  # noqa: E402
from support.searches import RUN, SEARCH, Ran, read_all, report_of, search_of, write_reports  # noqa: E402
from support.sweep_specs import sweep_spec  # noqa: E402

IMAGES = ROOT / "docs" / "images"
PLAYED, REAL = IMAGES / "sweep.png", IMAGES / "sweep-mnist.png"
SIZE, REAL_SIZE = (1240, 2560), (1240, 1500)
COLOURS = 128
POINTS = 60
RATIO, FEATURES = "model.patchcore.coresetSamplingRatio", "model.padim.nFeatures"
BASE = {"patchcore": 0.93, "padim": 0.88, "dfm": 0.85}
OF_SIZE = {192: -0.03, 256: 0.015, 320: 0.01}
OF_CATEGORY = {"bottle": 0.03, "cable": -0.04, "carpet": 0.02, "grid": -0.01, "screw": -0.06}


def spec() -> ExperimentSpec:
    """Return the sweep: three models on five categories."""
    return sweep_spec(
        {"path": "model.name", "choices": list(BASE)},
        {
            "path": RATIO,
            "float": {"low": 0.01, "high": 0.25, "log": True},
            "when": {"path": "model.name", "in": ["patchcore"]},
        },
        {"path": FEATURES, "int": {"low": 50, "high": 300}, "when": {"path": "model.name", "in": ["padim"]}},
        {"path": "transforms.inputSize", "choices": [{"height": edge, "width": edge} for edge in OF_SIZE]},
        change={"model": {"padim": None}},
        replicates={"paths": [{"path": "dataset.category", "values": list(OF_CATEGORY)}]},
    )


def trials() -> Iterator[Ran]:
    """Yield the runs of a search that comes back to the best model more and more often; one is out of memory."""
    chance = random.Random(3)
    for number in range(POINTS):
        model = chance.choices(list(BASE), [1 + number / 12, 1, 1])[0]
        edge = chance.choice(list(OF_SIZE))
        values: dict[str, Any] = {"model.name": model, "transforms.inputSize": {"height": edge, "width": edge}}
        score = BASE[model] + OF_SIZE[edge]
        if model == "patchcore":
            values[RATIO] = math.exp(chance.uniform(math.log(0.01), math.log(0.25)))
            score += 0.02 * math.log(values[RATIO] / 0.01) / math.log(25)
        if model == "padim":
            values[FEATURES] = chance.randint(50, 300)
            score += 0.03 * (values[FEATURES] - 50) / 250
        for replicate, shift in enumerate(OF_CATEGORY.values()):
            measured = min(1.0, score + shift + chance.gauss(0, 0.008))
            yield Ran(number, values, {"image.AUROC": measured}, replicate=replicate, gpus=1)


def make_page(root: Path) -> Path:
    """Write the trials' reports and the page, and return its path."""
    sweep = spec()
    write_reports(root, [report_of(sweep, ran) for ran in trials()])
    found = judge(RUN, search_of(sweep, asked=POINTS), read_all(root, search_of(sweep)))
    status = status_of(found.sweep, found.known, StopReason.MAX_TRIALS).model_copy(update={"search": SEARCH})
    findings = judge(RUN, found.search.model_copy(update={"status": status}), found.found)
    own = root / RUN.folder
    own.mkdir(parents=True)
    dataset = sweep.dataset.model_copy(update={"seed": sweep.dataset.seed + 1})
    again = MetricValues(image={"AUROC": findings.leaders[0].objectives[0] - 0.0061})
    write_sweep_files(findings, sweep.model_copy(update={"dataset": dataset}), own, again)
    return own / "sweep.html"


def main(arguments: Sequence[str]) -> int:
    """Draw the picture, and return the exit status."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("sweep_page: no Chromium (hack/setup installs it)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        if arguments:
            draw(browser, Path(arguments[0]).resolve(), REAL, REAL_SIZE)
        else:
            draw(browser, make_page(Path(folder) / "output"), PLAYED, SIZE)
    return 0


def draw(browser: str, page: Path, picture: Path, size: tuple[int, int]) -> None:
    """Write a picture of a page's upper part; ``size`` is its width and height in pixels."""
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--window-size={size[0]},{size[1]}",
            f"--screenshot={shot}",
        ]
        subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True)
        Image.open(shot).convert("RGB").quantize(COLOURS).save(picture, optimize=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
