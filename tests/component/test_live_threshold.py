"""The page's threshold, moved in a real browser by mouse and keyboard; scikit-learn says what must be shown."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from anomaly_api.evaluation import Metrics
from anomaly_api.run import RunReport
from anomaly_api.status import ThresholdValues
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.evaluate import EvaluationResult, evaluate
from anomaly_runner.evaluation.labelled import sort_labelled_scores
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.reporting.gallery import GalleryItem, select_images
from anomaly_runner.reporting.html_report import render
from anomaly_runner.reporting.live_threshold import MOST_SCORES, threshold_data
from anomaly_runner.scoring.predict import Predictions
from support.browser import Tab, browse, find_browser, open_tab

HOSTILE = "</script><img src=x onerror=alert(1)>"
"""A kind of defect that somebody gave this name."""
SLIDER = "#threshold-slider"
HISTOGRAM = 'svg[aria-label="Images by score"]'


@dataclass(frozen=True)
class Judged:
    """A run's scores (N,) and labels, and its page."""

    predictions: Predictions
    threshold: float
    page: str

    @property
    def scores(self) -> NDArray[np.float32]:
        return self.predictions.scores[self.labelled]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        return np.array([sample.defect is not None for sample in self.predictions.samples])

    @property
    def defects(self) -> NDArray[np.bool_]:
        return np.array([bool(sample.defect) for sample in self.predictions.samples])[self.labelled]

    def shown_at(self, threshold: float) -> dict[str, str]:
        """What the page must show, from scikit-learn."""
        decided = self.scores >= threshold
        passed, alarms, missed, found = confusion_matrix(self.defects, decided, labels=[False, True]).ravel().tolist()
        everything = int((self.predictions.scores >= threshold).sum())
        return {
            "passed": str(passed),
            "alarms": str(alarms),
            "missed": str(missed),
            "found": str(found),
            "right": str(passed + found),
            "anomalous": str(everything),
            "image-F1Score": f"{f1_score(self.defects, decided, zero_division=0):.4f}",
            "image-Precision": f"{precision_score(self.defects, decided, zero_division=0):.4f}",
            "image-Recall": f"{recall_score(self.defects, decided):.4f}",
        }


def judge(labels: list[str], scores: NDArray[np.float32], threshold: float) -> Judged:
    """Evaluate scores (N,) of images with these labels, and render the page with a picture of each chosen image."""
    predictions = Predictions(tuple(Sample(f"{i}.png", label) for i, label in enumerate(labels)), scores, None, None)
    thresholds = ThresholdValues(image=threshold, pixel=0.25)
    evaluated = evaluate(
        predictions,
        sort_labelled_scores(predictions, None, Path()),
        thresholds,
        normalizer=ScoreNormalizer("threshold", thresholds, {}),
        metrics=Metrics(),
    )
    gallery = [item_of(predictions, evaluated, index) for index in select_images(predictions, evaluated)]
    return Judged(predictions, threshold, render(report_of(evaluated), evaluated.labelled, gallery))


def item_of(predictions: Predictions, evaluated: EvaluationResult, index: int) -> GalleryItem:
    sample, grey = predictions.samples[index], BytesIO()
    Image.new("L", (8, 8), 10 * index % 255).save(grey, "PNG")
    picture = "data:image/png;base64," + base64.b64encode(grey.getvalue()).decode()
    anomalous = bool(evaluated.anomalous[index])
    return GalleryItem(sample.key, sample.label, float(predictions.scores[index]), anomalous, picture)


def report_of(evaluated: EvaluationResult) -> RunReport:
    run = {"kind": "AnomalyExperiment", "namespace": "factory", "name": "screws", "uid": "u"}
    s3: dict[str, Any] = {"s3": {"uri": "s3://data"}}
    spec = {"dataset": {"source": s3}, "model": {"name": "padim"}, "output": s3}
    images = {"predicted": len(evaluated.anomalous), "anomalous": int(evaluated.anomalous.sum())}
    summary = {"reason": "Complete", "stage": "done", "images": images}
    report = RunReport.model_validate({"run": run, "summary": summary, "config": {"run": run, "experiment": spec}})
    told = report.summary.model_copy(update={"metrics": evaluated.metrics, "thresholds": evaluated.thresholds})
    names = ("confusion", "labels", "metrics_by_defect", "intervals", "histogram", "mistakes")
    return report.model_copy(update={name: getattr(evaluated, name) for name in names} | {"summary": told})


@pytest.fixture(scope="module")
def judged() -> Judged:
    random = np.random.default_rng(5)
    labels = ["good"] * 40 + ["scratch"] * 20 + [HOSTILE] * 10 + ["unknown"] * 5
    means = np.repeat([1.0, 3.0, 2.0, 2.0], [40, 20, 10, 5])
    scores = np.round(random.normal(means, 0.7), 2).astype(np.float32)  # with ties
    return judge(labels, scores, 2.0)


@pytest.fixture(scope="module")
def opened(judged: Judged, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    folder = tmp_path_factory.mktemp("live")
    (folder / "report.html").write_text(judged.page)
    with open_tab(find_browser(), folder / "report.html", folder / "profile") as tab:
        yield tab


@pytest.fixture
def tab(opened: Tab) -> Tab:
    """The page with the run's threshold."""
    opened.evaluate("moveTo(data.threshold)")
    return opened


def shown(tab: Tab) -> dict[str, str]:
    """Return the page's numbers; those that stand there twice must be the same."""
    found: dict[str, str] = {}
    for name, text in tab.evaluate(
        "[...document.querySelectorAll('[data-live], [data-metric]')]"
        ".map((element) => [element.dataset.live ?? element.dataset.metric, element.textContent])"
    ):
        assert found.setdefault(name, text) == text
    return {name: found[name] for name in found if name not in ("image-AUROC", "image-AUPR")}


def threshold_of(tab: Tab) -> float:
    return float(tab.evaluate("threshold"))


def test_nothing_differs_before_the_threshold_is_moved(judged: Judged, tab: Tab) -> None:
    assert shown(tab) == judged.shown_at(2.0)
    assert tab.evaluate("document.querySelector('[data-moved]').hidden") is True


@pytest.mark.parametrize("threshold", [-5.0, 0.75, 1.5, 2.01, 3.3, 99.0])
def test_numbers_follow_an_exact_threshold(judged: Judged, tab: Tab, threshold: float) -> None:
    tab.evaluate(f"exact.value = {threshold}; exact.dispatchEvent(new Event('change'))")
    assert shown(tab) == judged.shown_at(threshold)
    tab.click("[data-to=run]")
    assert shown(tab) == judged.shown_at(2.0)


def test_arrow_keys_go_to_the_next_score(judged: Judged, tab: Tab) -> None:
    different = np.unique(judged.predictions.scores).astype(float)
    tab.evaluate("slider.focus()")
    for step in range(3):
        tab.press("ArrowRight")
        expected = different[different > 2.0][step]
        assert threshold_of(tab) == expected
        assert shown(tab) == judged.shown_at(expected)
    for _ in range(3):
        tab.press("ArrowLeft")
    assert threshold_of(tab) == different[different < different[different > 2.0][0]][-1]


def test_the_slider_and_the_histogram_are_dragged_by_mouse(judged: Judged, tab: Tab) -> None:
    for selector in (SLIDER, HISTOGRAM):
        tab.mouse("mousePressed", *tab.place(selector, 0.5, 0.5))
        tab.mouse("mouseMoved", *tab.place(selector, 0.8, 0.5))
        tab.mouse("mouseReleased", *tab.place(selector, 0.8, 0.5), held=0)
        moved = threshold_of(tab)
        assert moved > 2.5
        assert shown(tab) == judged.shown_at(moved)
    # The line is below the pointer: at 80 % of the drawing, which is 420 wide.
    assert float(tab.evaluate(f"document.querySelector('{HISTOGRAM} .threshold').getAttribute('x1')")) == pytest.approx(
        0.8 * 420, abs=1
    )


def test_buttons_go_to_known_thresholds(judged: Judged, tab: Tab) -> None:
    by_brute_force = max(
        np.unique(judged.scores[judged.defects]).astype(float),
        key=lambda at: (f1_score(judged.defects, judged.scores >= at), -at),
    )
    highest_good = judged.scores[~judged.defects].max()
    expected = {
        "bestF1": by_brute_force,
        "allFound": judged.scores[judged.defects].min(),
        "noAlarm": np.nextafter(highest_good, np.float32(np.inf)),
    }
    for name, threshold in expected.items():
        tab.click(f"[data-to={name}]")
        assert threshold_of(tab) == threshold
        assert shown(tab) == judged.shown_at(float(threshold))
    assert shown(tab)["alarms"] == "0"


def test_tables_and_points_of_the_curves_follow(judged: Judged, tab: Tab) -> None:
    tab.evaluate("moveTo(2.5)")
    labels = np.array([sample.label for sample in judged.predictions.samples])
    for place, label in enumerate(["good", HOSTILE, "scratch", "unknown"]):
        expected = int((judged.predictions.scores[labels == label] >= 2.5).sum())
        assert tab.text(f'[data-label="{place}"]') == str(expected)
    kind = labels == "scratch"
    of_kind = recall_score(np.ones(20), judged.predictions.scores[kind] >= 2.5)
    assert tab.text('[data-kind="2"][data-name=Recall]') == f"{of_kind:.4f}"
    alarms = (judged.scores[~judged.defects] >= 2.5).mean()
    found = (judged.scores[judged.defects] >= 2.5).mean()
    dot = 'svg[aria-label="ROC curve"] .dot.image'
    # The drawing's frame is 346 wide and 198 high, from (60, 42) on.
    assert float(tab.evaluate(f"document.querySelector('{dot}').getAttribute('cx')")) == pytest.approx(
        60 + 346 * alarms
    )
    assert float(tab.evaluate(f"document.querySelector('{dot}').getAttribute('cy')")) == pytest.approx(
        42 + 198 * (1 - found)
    )


def test_the_gallery_follows(judged: Judged, tab: Tab) -> None:
    tab.evaluate("moveTo(1.0)")
    figures = tab.evaluate(
        "[...document.querySelectorAll('.gallery figure')].map((figure) => [Number(figure.dataset.score),"
        " figure.dataset.defect, figure.classList.contains('mistake'), figure.querySelector('b').textContent])"
    )
    assert len(figures) > 10
    for score, defect, mistake, word in figures:
        assert word == ("anomalous" if score >= 1.0 else "good")
        assert mistake == ((defect == "true") != (score >= 1.0))
    wrong = [abs(score - 1.0) for score, _, mistake, _ in figures if mistake]
    assert wrong == sorted(wrong, reverse=True)
    assert [mistake for *_, mistake, _ in figures] == sorted((mistake for *_, mistake, _ in figures), reverse=True)


def test_the_manifest_holds_what_is_shown(tab: Tab) -> None:
    tab.evaluate("moveTo(2.125)")
    assert tab.evaluate("document.querySelector('[data-moved]').hidden") is False
    told = tab.text("[data-manifest]")
    assert told == "evaluation: {threshold: {method: manual, image: 2.125, pixel: 0.25}}"


def test_the_page_speaks_to_screen_readers(tab: Tab) -> None:
    tab.evaluate("moveTo(99)")
    assert "0 of 30 defects found (0.0 %); 0 of 40 good images a false alarm" in tab.text("[aria-live]")
    assert tab.evaluate("slider.getAttribute('aria-valuetext')").startswith("99.0000: 0 of 30")


def test_hostile_labels_end_no_script(judged: Judged, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(judged.page)
    dom, complaints = browse(find_browser(), tmp_path / "report.html", tmp_path / "profile")
    assert complaints == []
    assert "<img src=x" not in judged.page
    assert dom.count("<script") == judged.page.count("<script") == 2


def test_another_script_does_not_run(judged: Judged, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(
        judged.page.replace("</body>", "<script>document.title = 'run'</script></body>")
    )
    dom, complaints = browse(find_browser(), tmp_path / "report.html", tmp_path / "profile")
    assert "<title>factory/screws</title>" in dom
    assert any("Content Security Policy" in line for line in complaints)


@pytest.mark.parametrize("kind", ["good", "unknown", "scratch"])
def test_one_class_alone_has_its_buttons_only(kind: str, tmp_path: Path) -> None:
    alone = judge([kind] * 6, np.arange(6, dtype=np.float32), 2.5)
    (tmp_path / "report.html").write_text(alone.page)
    with open_tab(find_browser(), tmp_path / "report.html", tmp_path / "profile") as tab:
        hidden = tab.evaluate(
            "[...document.querySelectorAll('#threshold button')].filter((b) => b.hidden).map((b) => b.dataset.to)"
        )
        assert (
            hidden
            == {"good": ["bestF1", "allFound"], "unknown": ["bestF1", "allFound", "noAlarm"], "scratch": ["noAlarm"]}[
                kind
            ]
        )
        tab.evaluate("moveTo(4)")
        assert re.search(
            {"good": "^2 of 6 good", "unknown": "^2 images are", "scratch": "^2 of 6 defects"}[kind],
            tab.text("[aria-live]"),
        )


def test_many_scores_are_thinned_evenly() -> None:
    scores = np.arange(1_000_000, dtype=np.float32)
    predictions = Predictions(tuple(Sample(f"{i}", "good") for i in range(4)), scores[:4], None, None)
    judged = evaluate(
        predictions,
        sort_labelled_scores(predictions, None, Path()),
        ThresholdValues(image=1.0),
        normalizer=ScoreNormalizer("threshold", ThresholdValues(image=1.0), {}),
        metrics=Metrics(),
    )
    assert judged.histogram is not None
    (label,) = threshold_data({"good": scores}, judged.histogram, ThresholdValues(image=1.0))["labels"]
    kept = np.frombuffer(base64.b64decode(label["scores"]), "<f4")
    assert (len(kept), label["images"], kept[0], kept[-1]) == (MOST_SCORES, 1_000_000, 0, 999_999)
    # One of ten: below any score is the same share as of all, to one of the scores that are kept.
    assert np.searchsorted(kept, 250_000) / len(kept) == pytest.approx(0.25, abs=1 / MOST_SCORES)
