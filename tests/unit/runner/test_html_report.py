"""The report for people, as a real browser shows it."""

import re
import shutil
import subprocess

import pytest

from anomaly_api.run import RunReport
from anomaly_runner.local import run_locally
from support.pages import outside_addresses
from support.textures import EXPERIMENT, scratched, write_manifest, write_textures

HOSTILE = "<img src=x onerror=alert(1)>"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--virtual-time-budget=5000")  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_textures(folder / "data/textures")
    scratched(500)[0].save(folder / f"data/textures/test/good/{HOSTILE.replace('/', '')}.png")  # a mistake to be shown
    assert run_locally(write_manifest(folder, EXPERIMENT), folder) == 0
    return folder / "results/factory/textures/local/report.html"


@pytest.fixture(scope="module")
def report(page):
    return RunReport.model_validate_json(page.with_name("report.json").read_bytes())


@pytest.fixture(scope="module")
def shown(page, tmp_path_factory):
    """The page's DOM after the browser has loaded it, and what the browser complained about."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium: `hack/setup` installs it on Debian")
    profile = tmp_path_factory.mktemp("profile")
    command = [browser, *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_browser_has_nothing_to_complain_about(shown):
    _, complaints = shown
    assert complaints == []


def test_every_metric_is_shown_as_it_is_in_the_report(shown, report):
    dom, _ = shown
    tiles = dict(re.findall(r'data-metric="([^"]+)">([^<]+)<', dom))
    expected = {f"image-{name}": f"{value:.4f}" for name, value in report.summary.metrics.image.items()}
    expected |= {f"pixel-{name}": f"{value:.4f}" for name, value in report.summary.metrics.pixel.items()}
    assert tiles == expected
    assert "<title>factory/textures</title>" in dom


def test_pictures_of_the_worst_mistakes_are_inside(shown, report):
    dom, _ = shown
    assert report.mistakes
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', dom)
    assert len(pictures) == len(report.mistakes)
    assert all(len(picture) > 1000 for picture in pictures)


def test_hostile_names_stay_text(shown, page):
    dom, _ = shown
    assert "onerror=alert(1)&gt;" in dom
    assert "<img src=x" not in page.read_text()


def test_the_page_needs_nothing_but_itself(page):
    text = page.read_text()
    assert outside_addresses(text) == []
    assert "url(" not in text.split("<pre>")[0]
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert len(text) < 3_000_000


def test_charts_have_titles(shown):
    dom, _ = shown
    titles = re.findall(r'role="img" aria-label="([^"]+)"', dom)
    assert {"ROC curve", "Precision and recall", "Scores of good and defective images"} <= set(titles)
