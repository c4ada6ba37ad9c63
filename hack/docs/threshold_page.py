"""Draw docs/images/threshold.png: a report whose threshold was moved, as a browser shows it.

``python -m hack.docs.threshold_page`` trains on the textures of the tests (tests/support/textures.py), opens the report
in Chromium, which hack/setup installs, and presses a button there.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from anomaly_runner.local import run_locally  # noqa: E402
from support.browser import find_browser, open_tab  # noqa: E402
from support.textures import EXPERIMENT, write_manifest, write_textures  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "threshold.png"
SIZE = (1180, 1560)
COLOURS = 128


def main() -> int:
    """Draw the picture, and return the exit status."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_textures(folder / "data/textures", train=40, good=30, defects=30)
        if status := run_locally(write_manifest(folder, EXPERIMENT), folder):
            return status
        page = folder / "results/factory/textures/local/report.html"
        with open_tab(find_browser(), page, folder / "profile", SIZE) as tab:
            tab.click("[data-to=allFound]")
            tab.evaluate("document.querySelector('.lead').scrollIntoView()")
            shot = tab.screenshot()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(PICTURE, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
