"""Heat maps, segmentations and sheets, pixel by pixel; segmentations equal those of whole interpolated maps."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomaly_runner.data.samples import Sample
from anomaly_runner.reporting.colormap import TURBO
from anomaly_runner.reporting.pictures import (
    PixelLevels,
    Verdict,
    compose,
    drawing_size,
    heat_image,
    panel_size,
    segment,
)

RED, GREEN, AMBER = (255, 92, 92), (82, 196, 120), (255, 190, 80)


def verdict(key: str = "test/x/a.png", label: str = "x") -> Verdict:
    return Verdict(Sample(key, label), 12.0, 0.8, True, 0.5)


def square(size: tuple[int, int], start: int = 5, stop: int = 12) -> NDArray[np.bool_]:
    mask = np.zeros((size[1], size[0]), bool)
    mask[start:stop, start:stop] = True
    return mask


def test_heat_is_dark_at_the_lowest_score_and_half_at_the_threshold() -> None:
    scores = np.array([[0, 2], [4, 10]], np.float32)
    assert np.asarray(heat_image(scores, PixelLevels(0, 4, 10), (2, 2))).tolist() == [[0, 64], [128, 255]]


def test_heat_of_negative_scores() -> None:
    scores = np.array([[-30, -20], [-15, -10]], np.float32)
    assert np.asarray(heat_image(scores, PixelLevels(-30, -20, -10), (2, 2))).tolist() == [[0, 128], [192, 255]]


@pytest.mark.parametrize(
    ("levels", "heat"),
    [
        (PixelLevels(5, 5, 5), 128),
        (PixelLevels(0, 10, 10), 64),
        (PixelLevels(0, 40, 10), 16),
        (PixelLevels(5, 5, 10), 128),
        (PixelLevels(5, 0, 10), 192),
        (PixelLevels(0, None, 10), 128),
    ],
)
def test_heat_where_the_threshold_is_not_between_the_scores(levels: PixelLevels, heat: int) -> None:
    """128 is still the threshold: pixels above it are hot, and no others."""
    assert np.asarray(heat_image(np.full((4, 4), 5, np.float32), levels, (4, 4))).tolist() == [[heat] * 4] * 4


@pytest.mark.parametrize("size", [(64, 48), (200, 130), (17, 400), (20, 9), (1000, 700)])
@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.97, 1.0])
def test_a_segmentation_is_that_of_the_whole_interpolated_map(size: tuple[int, int], quantile: float) -> None:
    random = np.random.default_rng(3)
    scores = np.kron(random.normal(size=(6, 8)), np.ones((8, 8))).astype(np.float32)
    scores += random.normal(scale=0.1, size=scores.shape).astype(np.float32)
    threshold = float(np.quantile(scores, quantile))
    whole = interpolated(scores, size)
    assert np.array_equal(segment(scores, threshold, size), whole >= threshold)


def interpolated(scores: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a map: enlarge by interpolation, reduce by the maximum of the pixels that are merged."""
    rows, columns = (min(have, wanted) for have, wanted in zip(scores.shape, size[::-1], strict=True))
    smaller = np.array(
        [
            [scores[across, along].max() for along in parts(scores.shape[1], columns)]
            for across in parts(scores.shape[0], rows)
        ]
    )
    return np.asarray(Image.fromarray(smaller).resize(size, Image.Resampling.BILINEAR))


def parts(length: int, count: int) -> list[slice]:
    return [slice(index * length // count, (index + 1) * length // count) for index in range(count)]


def test_what_is_found_in_a_large_map_is_found_in_a_small_image() -> None:
    scores = np.zeros((224, 224), np.float32)
    scores[100:104, 60:64] = 10
    assert np.argwhere(segment(scores, 5.0, (28, 28))).tolist() == [[12, 7]]
    heat = np.asarray(heat_image(scores, PixelLevels(0, 5, 10), (28, 28)))
    assert np.array_equal(heat >= 128, segment(scores, 5.0, (28, 28)))


@pytest.mark.parametrize("place", [(0, 0), (47, 63), (0, 30), (24, 63)])
@pytest.mark.parametrize("size", [(256, 192), (31, 23)])
def test_a_single_pixel_at_an_edge_is_found(place: tuple[int, int], size: tuple[int, int]) -> None:
    scores = np.zeros((48, 64), np.float32)
    scores[place] = 10
    whole = interpolated(scores, size)
    found = segment(scores, 1.0, size)
    assert np.array_equal(found, whole >= 1.0)
    assert found.any()


@pytest.mark.parametrize("threshold", [None, 11.0, np.inf])
def test_nothing_is_found_above_all_scores(threshold: float | None) -> None:
    assert not segment(np.full((4, 4), 10, np.float32), threshold, (8, 8)).any()


@pytest.mark.parametrize("size", [(28, 28), (640, 300), (17, 80)])
def test_a_sheet_has_three_panels_at_the_images_resolution_or_a_whole_multiple(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (90, 90, 90))
    sheet = compose(image, Image.new("L", size, 200), square(size), verdict())
    panel = (sheet.width - 12) // 3
    assert panel % size[0] == 0
    assert panel >= size[0]
    pixels = np.asarray(sheet)
    assert (pixels[44:, :panel] == 90).all()
    assert (pixels[44:, -panel:] == RED).all(-1).any()
    assert not (pixels[44:, panel + 6 : 2 * panel] == 90).all()


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 5000), (20_000, 1), (70_000, 10), (10, 70_000), (3000, 100), (8192, 6144), (2049, 2048)]
)
def test_any_size_makes_a_sheet_that_jpeg_can_hold(size: tuple[int, int], tmp_path: Path) -> None:
    panel = panel_size(size)
    small, found = drawing_size(size), np.ones(drawing_size(size)[::-1], bool)
    sheet = compose(Image.new("RGB", size, "grey"), Image.new("L", small, 255), found, verdict(), found)
    assert sheet.size == (3 * panel[0] + 12, panel[1] + 44)
    assert 224 <= min(panel) <= max(panel) <= 2048
    sheet.save(tmp_path / "sheet.jpg")
    assert sum(found.shape) <= 2 * 2048


@pytest.mark.parametrize("size", [(300, 200), (2048, 1000), (8192, 6144)])
def test_panels_keep_the_aspect_ratio_and_enlarge_nothing_beyond_the_need(size: tuple[int, int]) -> None:
    panel = panel_size(size)
    assert panel[0] / panel[1] == pytest.approx(size[0] / size[1], rel=1 / min(panel))
    assert drawing_size(size) == tuple(min(pair) for pair in zip(panel, size, strict=True))


def test_outlines_run_along_the_inside_of_what_they_bound() -> None:
    size = (300, 260)
    found, truth = square(size, 100, 150), square(size, 20, 60)
    sheet = np.asarray(compose(Image.new("RGB", size), Image.new("L", size), found, verdict(), truth))
    for place, colour, mask in ((0, GREEN, truth), (2 * (size[0] + 6), RED, found)):
        panel = sheet[44:, place : place + size[0]]
        border = mask & ~np.pad(mask[4:, 4:] & mask[:-4, :-4], 2)
        assert np.array_equal((panel == colour).all(-1), border)


def test_heat_mixes_turbo_into_the_grey_image() -> None:
    size = (230, 230)
    grey = np.full((size[1], size[0], 3), 120, np.uint8)
    grey[:, 115:] = (200, 30, 60)  # luma 85
    sheet = np.asarray(compose(Image.fromarray(grey), Image.new("L", size, 255), np.zeros(size, bool), verdict()))
    cover = (70 + 0.5 * 255) / 255
    for column, luma in ((236 + 10, 120), (236 + 200, 84)):
        expected = np.array(list(TURBO[-3:])) * cover + luma * (1 - cover)
        assert np.abs(sheet[200, column] - expected).max() <= 1


def test_colours_go_from_dark_blue_through_green_to_dark_red() -> None:
    """Mikhailov's table has (48, 18, 59) at 0, (164, 252, 60) at 128 and (122, 4, 3) at 255; this is a polynomial."""
    colours = np.frombuffer(TURBO, np.uint8).reshape(256, 3).astype(int)
    for level, published in ((0, (48, 18, 59)), (128, (164, 252, 60)), (255, (122, 4, 3))):
        assert np.abs(colours[level] - published).max() <= 40
    assert colours[[40, 120, 230]].argmax(1).tolist() == [2, 1, 0]


class Notes:
    """Takes down what is drawn."""

    def __init__(self) -> None:
        self.texts: dict[str, object] = {}
        self.bar: object = None

    def rectangle(self, _: object, fill: object) -> None:
        self.bar = fill

    def text(self, _: object, text: str, *, fill: object, **__: object) -> None:
        self.texts[text] = fill


@pytest.mark.parametrize(
    ("label", "anomalous", "title", "colour"),
    [
        ("x", True, "ANOMALOUS", RED),
        ("good", False, "GOOD", GREEN),
        ("good", True, "ANOMALOUS  -  WRONG", AMBER),
        ("x", False, "GOOD  -  WRONG", AMBER),
        ("unknown", False, "GOOD", GREEN),
    ],
)
def test_a_caption_tells_the_decision_and_the_scores(
    label: str, anomalous: bool, title: str, colour: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    monkeypatch.setattr("anomaly_runner.reporting.pictures.ImageDraw.Draw", lambda _: notes)
    said = Verdict(Sample(f"test/{label}/{'a' * 60}.png", label), 12.34567, 0.87654, anomalous, 0.5)
    compose(Image.new("RGB", (230, 230)), Image.new("L", (230, 230)), np.zeros((230, 230), bool), said)
    assert (notes.texts[title], notes.bar) == (colour, colour)
    assert "score 0.8765   threshold 0.5   raw 12.35" in notes.texts
    assert f"label: {label}" in notes.texts
    assert f"...{'a' * 41}.png" in notes.texts


def test_names_tell_label_score_and_decision() -> None:
    wrong = Verdict(Sample("test/good/0042.png", "good"), 12.0, 0.81234, True, 0.5)
    assert wrong.file_name(7) == "good/000007_0042_anomalous_0.8123_WRONG"
    unknown = Verdict(Sample("test/unknown/a.png", "unknown"), 1.0, 0.2, False, 0.5)
    assert unknown.file_name(8) == "unknown/000008_a_good_0.2"


def test_a_name_is_one_part_of_a_path_and_of_an_address() -> None:
    """MLflow's client does not quote names: # and ? would end a URL, and % would start an escape."""
    name = Verdict(Sample("test/ge#br/a/what? 100%#3.png", "ge#br"), 12.0, 0.8, True, 0.5).file_name(1)
    assert name == "ge_U0023_br/000001_what_U003F_ 100_U0025__U0023_3_anomalous_0.8"


@pytest.mark.parametrize("name", ["检" * 80, "\U0001f600" * 60, "a\nb\tc", "é" * 250])
def test_any_name_makes_a_file_and_a_caption(name: str, tmp_path: Path) -> None:
    shown = verdict(f"test/x/{name}.png", "odd\nlabel")
    (tmp_path / (shown.file_name(1).split("/")[1] + "_segmentation.png")).write_bytes(b"")
    assert "\n" not in shown.file_name(1).split("/")[1]
    compose(Image.new("RGB", (230, 230)), Image.new("L", (230, 230)), square((230, 230)), shown)
