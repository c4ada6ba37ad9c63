"""The HTML report in a real browser."""

import re
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from anomaly_api import RELEASE
from anomaly_api.inference import InferenceThreshold
from anomaly_api.run import RunReport, ScoreHistogram
from anomaly_api.status import ThresholdValues
from anomaly_runner.evaluation.curves import sort_by_class
from anomaly_runner.evaluation.labelled import LabelledScores
from anomaly_runner.local import run_locally
from anomaly_runner.reporting.figures import cumulative_chart, histogram_chart, precision_recall_points, roc_points
from anomaly_runner.reporting.gallery import GalleryItem
from anomaly_runner.reporting.html_report import render
from support.browser import Browsed, browse, find_browser
from support.optional import not_none
from support.pages import external_addresses
from support.textures import EXPERIMENT, scratched, write_manifest, write_textures

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_textures(folder / "data/textures")
    scratched(500)[0].save(folder / f"data/textures/test/good/{HOSTILE.replace('/', '')}.png")  # a mistake to be shown
    assert run_locally(write_manifest(folder, EXPERIMENT), folder) == 0
    return folder / "results/factory/textures/local/report.html"


@pytest.fixture(scope="module")
def report(page: Path) -> RunReport:
    return RunReport.model_validate_json(page.with_name("report.json").read_bytes())


@pytest.fixture(scope="module")
def shown(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Browsed:
    """The page's DOM after the browser has loaded it, and the console's lines."""
    return browse(find_browser(), page, tmp_path_factory.mktemp("profile"))


def test_the_browser_logs_no_error(shown: Browsed) -> None:
    _, complaints = shown
    assert complaints == []


def test_every_metric_of_the_report_is_shown(shown: Browsed, report: RunReport) -> None:
    dom, _ = shown
    tiles = dict(re.findall(r'data-metric="([^"]+)">([^<]+)<', dom))
    expected = {f"image-{name}": f"{value:.4f}" for name, value in not_none(report.summary.metrics).image.items()}
    expected |= {f"pixel-{name}": f"{value:.4f}" for name, value in not_none(report.summary.metrics).pixel.items()}
    costs = not_none(report.summary.metrics).performance
    expected |= {
        "performance-latencyMilliseconds": f"{costs['latencyMilliseconds']:.4g} ms",
        "performance-latencyMillisecondsP90": f"{costs['latencyMillisecondsP90']:.4g} ms",
        "performance-imagesPerSecond": f"{costs['imagesPerSecond']:.4g}",
        "performance-modelBytes": f"{costs['modelBytes'] / 1e6:.2f} MB",
        "performance-trainSeconds": f"{costs['trainSeconds']:.4g} s",
    }
    memory = costs["peakMemoryBytes"]
    expected["performance-peakMemoryBytes"] = f"{memory / 1e9:.2f} GB" if memory >= 1e9 else f"{memory / 1e6:.2f} MB"
    assert tiles == expected
    assert "<title>factory/textures</title>" in dom


def test_pictures_of_the_worst_mistakes_are_embedded(shown: Browsed, report: RunReport) -> None:
    dom, _ = shown
    assert report.mistakes
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', dom)
    # All ten that are labelled: eight of each class are pictured because they would be wrong at another threshold.
    assert len(pictures) == 10
    assert all(len(picture) > 1000 for picture in pictures)
    scores = re.findall(r"raw score (\S+)<br>", dom)
    assert scores[: len(report.mistakes)] == [f"{mistake.score:.6g}" for mistake in report.mistakes]


def test_start_time_and_version_are_shown(shown: Browsed, report: RunReport) -> None:
    dom, _ = shown
    assert not_none(report.started) in dom
    assert report.environment["anomaly-operator"] == RELEASE == version("anomaly-operator")


def test_every_picture_loads(page: Path, tmp_path: Path) -> None:
    """The test adds a script to a copy without the security policy, which reads the widths of the loaded pictures."""
    opened = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    probe = "<script>document.title = [...document.images].map(image => image.naturalWidth).join()</script></body>"
    copy = tmp_path / "report.html"
    copy.write_text(opened.replace("</body>", probe))
    dom, _ = browse(find_browser(), copy, tmp_path / "profile")
    widths = not_none(re.search(r"<title>([\d,]+)</title>", dom))[1].split(",")
    assert len(widths) == 10
    assert all(int(width) > 200 for width in widths)


def test_no_script_runs_in_the_page_itself(page: Path, tmp_path: Path) -> None:
    """The browser refuses the same script in a copy that keeps the page's policy, and logs that."""
    copy = tmp_path / "report.html"
    copy.write_text(page.read_text().replace("</body>", "<script>document.title = 'run'</script></body>"))
    dom, complaints = browse(find_browser(), copy, tmp_path / "profile")
    assert "<title>factory/textures</title>" in dom
    assert any("Content Security Policy" in line for line in complaints)


def test_hostile_names_stay_text(shown: Browsed, page: Path) -> None:
    dom, _ = shown
    assert "onerror=alert(1)&gt;" in dom
    assert "<img src=x" not in page.read_text()


def test_the_page_is_self_contained(page: Path) -> None:
    text = page.read_text()
    assert external_addresses(text) == []
    assert "url(" not in text.split("<pre>")[0]
    assert "default-src 'none'" in text
    assert "<script src" not in text
    assert len(text) < 3_000_000


def test_charts_have_titles(shown: Browsed) -> None:
    dom, _ = shown
    titles = re.findall(r'role="img" aria-label="([^"]+)"', dom)
    assert {"ROC curve", "Precision and recall", "Images by score", "Share of images by score"} <= set(titles)


def bare_report(**changes: Any) -> RunReport:
    """A report of an inference with only the required fields."""
    spec = {
        "model": {"location": {"s3": {"uri": "s3://models"}}},
        "input": {"source": {"s3": {"uri": "s3://images"}}},
        "output": {"s3": {"uri": "s3://results"}},
    }
    run = {"kind": "AnomalyInference", "namespace": "factory", "name": "look", "uid": "u"}
    summary = {
        "reason": "Complete",
        "stage": "done",
        "metrics": {},
        "thresholds": {"image": 3.0, "source": "training"},
        "images": {"predicted": 12, "anomalous": 5},
    }
    document = {"run": run, "summary": summary, "config": {"run": run, "inference": spec}}
    return RunReport.model_validate(document | changes)


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        (
            {"source": "optimalF1", "type": "pixel"},
            "The pixel threshold was chosen on the images that are judged here: decisions are better than on new ones. "
            "The image threshold is the trained model&#39;s.",
        ),
        (
            {"source": "custom", "type": "image", "value": 110},
            "The image threshold is 110 % of the trained model&#39;s. The pixel threshold is the trained model&#39;s.",
        ),
        ({"source": "training"}, "Taken over from the trained model."),
    ],
    ids=lambda value: value["source"] if isinstance(value, dict) else "",
)
def test_an_inference_shows_the_origin_of_each_threshold(threshold: dict[str, Any], told: str) -> None:
    report = bare_report(thresholdsFrom="test" if threshold["source"] == "optimalF1" else "model")
    spec = report.config.spec.model_copy(update={"threshold": InferenceThreshold.model_validate(threshold)})
    thresholds = ThresholdValues(image=3.0, pixel=4.0, source=threshold["source"])
    report = report.model_copy(
        update={
            "config": report.config.model_copy(update={"inference": spec}),
            "summary": report.summary.model_copy(update={"thresholds": thresholds}),
        }
    )
    assert told in " ".join(render(report, None, []).split())


def test_an_unlabelled_inference_shows_scores_and_no_decisions() -> None:
    histogram = {"edges": [0.0, 1.0, 2.0], "good": [0, 0], "defect": [0, 0], "unknown": [4, 8]}
    shown = GalleryItem("a.png", "unknown", 2.0, True, "data:image/jpeg;base64,AAAA")
    page = render(bare_report(histogram=histogram, thresholdsFrom="model"), None, [shown])
    assert "of 12</b> images are anomalous" in page
    assert "Most anomalous images" in page
    assert "Taken over from the trained model" in page
    assert 'aria-label="Images by score"' in page
    assert "ROC curve" not in page
    assert "decided good" not in page


def test_a_training_shows_its_curves_and_how_it_ended() -> None:
    training = {
        "epochs": 7,
        "steps": 70,
        "batchSize": 16,
        "stoppedEarly": True,
        "keptEpoch": 4,
        "history": {"trainLoss": [[10, 0.5], [20, 0.25]], "<b>": [[10, 1.0], [20, 2.0]]},
    }
    page = render(bare_report(training=training), None, [])
    assert "7, stopped early" in page
    assert "of epoch 4" in page
    assert 'aria-label="trainLoss over training"' in page
    assert 'aria-label="&lt;b&gt; over training"' in page


def test_long_lists_are_cut() -> None:
    page = render(bare_report(missingMasks=[f"test/x/{index}.png" for index in range(5000)]), None, [])
    assert page.count("no mask: counted as wholly defective") == 100
    assert "and 4900 more, which report.json lists" in page


def test_curves_pass_through_the_points_of_scikit_learn() -> None:
    """The drawn curves have fewer points, but all of them on the exact curve."""
    random = np.random.default_rng(1)
    labels = random.random(50_000) < 0.2
    scores = np.round(random.normal(labels * 1.5), 3).astype(np.float32)
    ranked = sort_by_class(scores, labels)
    drawn = roc_points(ranked)
    assert len(drawn) < 1000
    rates, recalls, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert rounded(drawn) <= rounded(zip(rates, recalls, strict=True))
    assert auc(*zip(*drawn, strict=True)) == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
    precisions, found, _ = precision_recall_curve(labels, scores)
    assert rounded(precision_recall_points(ranked)) <= rounded(zip(found, precisions, strict=True))


def rounded(points: Iterable[tuple[float, float]]) -> set[tuple[float, float]]:
    return {(round(float(x), 9), round(float(y), 9)) for x, y in points}


@pytest.mark.parametrize("threshold", [-5.0, 1.0, 99.0])
def test_the_threshold_is_always_in_the_picture(threshold: float) -> None:
    histogram = ScoreHistogram(edges=(0.0, 1.0, 2.0), good=(3, 0), defect=(0, 2))
    for chart in (histogram_chart(histogram, threshold), cumulative_chart(histogram, threshold)):
        place = float(not_none(re.search(r'<line x1="([\d.]+)"[^>]*class="threshold"', chart))[1])
        assert 48 <= place <= 406


def test_a_thousand_images_take_less_than_a_second_of_one_cpu() -> None:
    random = np.random.default_rng(2)
    labels = np.arange(1000) < 500
    ranked = sort_by_class((random.normal(size=1000) + labels).astype(np.float32), labels)
    pixels = sort_by_class(random.normal(size=1_000_000).astype(np.float32), np.arange(1_000_000) < 100_000)
    picture = "data:image/jpeg;base64," + "A" * 80_000
    shown = [GalleryItem(f"test/x/{index}.png", "x", 1.0, True, picture) for index in range(18)]
    render(bare_report(), None, [])  # compile the template, which is done once in a process
    began = time.process_time()
    page = render(bare_report(), LabelledScores(ranked, pixels), shown)
    assert time.process_time() - began < 1
    assert len(page) < 3_000_000
