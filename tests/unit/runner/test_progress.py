"""Progress only grows, is pushed with a fresh token, and never disturbs the run."""

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
from rich.console import Console

from anomaly_api.run import ProgressUpdate, RunIdentity
from anomaly_api.status import Device, MlflowStatus, Progress, Stage
from anomaly_runner import progress as module
from anomaly_runner.progress import BarReporter, LogReporter, ProgressMeter, PushReporter
from support.optional import not_none

RUN = RunIdentity(kind="AnomalyExperiment", namespace="ns", name="x", uid="u")
DEVICE = Device(name="CPU", count=2, provider="torch cpu")


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[Stage, Progress]] = []
        self.closed = False

    def report(self, stage: Stage, values: Progress) -> None:
        self.seen.append((stage, values))

    def close(self) -> None:
        self.closed = True


def test_percent_covers_the_whole_run_and_never_falls() -> None:
    recorder = Recorder()
    with ProgressMeter([recorder]) as progress:
        for stage in Stage:
            progress.enter(stage, 10, "images")
            for _ in range(12):  # more than announced
                progress.advance(1)
        progress.enter(Stage.TRAIN, 10, "images")  # a stage out of order
    percents = [values.percent for _, values in recorder.seen]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    assert recorder.closed


def test_units_of_the_stage() -> None:
    recorder = Recorder()
    with ProgressMeter([recorder]) as progress:
        progress.enter(Stage.PREDICT, 100, "images")
        progress.advance(8)
        progress.advance(8)
    stage, values = recorder.seen[-1]
    assert (stage, values.completed, values.total, values.unit) == (Stage.PREDICT, 16, 100, "images")
    assert 30 < values.percent < 75


def test_a_training_by_gradient_is_most_of_the_run() -> None:
    recorder = Recorder()
    with ProgressMeter([recorder]) as progress:
        for stage in Stage:
            progress.enter(stage, 10, "steps" if stage is Stage.TRAIN else "images")
            progress.advance(5)
    percents = {stage: values.percent for stage, values in recorder.seen}
    assert 40 < percents[Stage.TRAIN] < 60
    assert 85 < percents[Stage.PREDICT] < 93
    assert list(percents.values()) == sorted(percents.values())


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def remaining(counts: Sequence[int], *, total: int = 100, seconds: float = 2.0) -> list[int | None]:
    """Return the reported remaining seconds after each step, with ``seconds`` before each of them."""
    clock, recorder = Clock(), Recorder()
    progress = ProgressMeter([recorder], clock)
    progress.enter(Stage.PREDICT, total, "images")
    for count in counts:
        clock.now += seconds
        progress.advance(count)
    return [values.remaining_seconds for _, values in recorder.seen]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param([10, 10, 10, 70], [None, None, 16, 14, 0], id="steady: 5 images a second, 80 and 70 to go"),
        pytest.param([10, 10, 30], [None, None, 16, 5], id="faster: 40 images in 4 seconds, 50 to go"),
        pytest.param([60, 10, 10], [None, None, 6, 4], id="60 were done by an earlier pod"),
        pytest.param([0, 20], [None, None, 8], id="an earlier pod had done nothing"),
        pytest.param([50, 60], [None, None, 0], id="more than announced"),
        pytest.param([10, 0, 0], [None, None, None, None], id="no pace yet"),
    ],
)
def test_remaining_seconds_are_what_the_pace_says(counts: list[int], expected: list[int | None]) -> None:
    assert remaining(counts) == expected


def test_without_a_total_there_is_no_remaining_time() -> None:
    assert remaining([10, 10], total=0) == [None, None, None]


def test_each_stage_has_a_pace_of_its_own() -> None:
    clock, recorder = Clock(), Recorder()
    progress = ProgressMeter([recorder], clock)
    for stage, seconds in ((Stage.TRAIN, 100), (Stage.PREDICT, 1)):
        progress.enter(stage, 4, "images")
        assert recorder.seen[-1][1].remaining_seconds is None
        for _ in range(2):
            clock.now += seconds
            progress.advance(1)
        assert recorder.seen[-1][1].remaining_seconds == 2 * seconds


def test_log_and_progress_bar_show_the_remaining_time(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    screen = io.StringIO()
    bar = BarReporter(Console(file=screen, force_terminal=True, width=120))
    with caplog.at_level(logging.INFO, "anomaly_runner"), ProgressMeter([LogReporter(), bar], clock) as progress:
        progress.enter(Stage.PREDICT, 100, "images")
        for _ in range(2):
            clock.now += 100
            progress.advance(25)
    assert [vars(record)["remaining_seconds"] for record in caplog.records] == [None, None, 200]
    assert "0:03:20 left" in screen.getvalue()


class FakeOperator(NamedTuple):
    """URL of the server; Authorization and body of each push."""

    url: str
    received: list[tuple[str, ProgressUpdate]]


@pytest.fixture
def operator() -> Iterator[FakeOperator]:
    """An HTTP server that records pushes."""
    received: list[tuple[str, ProgressUpdate]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.headers["Authorization"], ProgressUpdate.model_validate_json(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield FakeOperator(f"http://127.0.0.1:{server.server_port}/v1/progress", received)
    server.shutdown()
    server.server_close()
    thread.join()


def test_pushes_carry_the_token_of_the_moment(
    operator: FakeOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PUSH_SECONDS", 0.05)
    url, received = operator
    token = tmp_path / "token"
    token.write_text("first\n")
    with ProgressMeter([PushReporter(url, token, RUN, lambda: MlflowStatus(run_id="r"), lambda: DEVICE)]) as progress:
        progress.enter(Stage.TRAIN, 10, "images")
        wait_for(lambda: received)
        token.write_text("second\n")
        progress.advance(10)
        progress.enter(Stage.DONE, 0, "images")
    assert received[0][0] == "Bearer first"
    authorization, last = received[-1]
    assert authorization == "Bearer second"
    assert (last.stage, last.progress.percent, not_none(last.mlflow).run_id, last.run) == (Stage.DONE, 100, "r", RUN)
    assert last.device == DEVICE


def test_at_most_one_push_a_second(operator: FakeOperator, tmp_path: Path) -> None:
    url, received = operator
    (tmp_path / "token").write_text("t")
    with ProgressMeter([PushReporter(url, tmp_path / "token", RUN, lambda: None, lambda: None)]) as progress:
        progress.enter(Stage.PREDICT, 500, "images")
        for _ in range(500):
            progress.advance(1)
    assert len(received) <= 3
    assert received[-1][1].progress.completed == 500


@pytest.mark.parametrize("broken", ["no server", "no token"])
def test_a_push_that_fails_is_logged_once_and_dropped(
    broken: str,
    operator: FakeOperator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "_PUSH_SECONDS", 0.01)
    url = operator.url if broken == "no token" else "http://127.0.0.1:9/v1/progress"
    if broken == "no server":
        (tmp_path / "token").write_text("t")
    with ProgressMeter([PushReporter(url, tmp_path / "token", RUN, lambda: None, lambda: None)]) as progress:
        progress.enter(Stage.PREDICT, 5, "images")
        for _ in range(5):
            progress.advance(1)
            time.sleep(0.05)
    assert sum("cannot be pushed" in record.message for record in caplog.records) == 1


def test_a_server_that_does_not_answer_is_waited_for_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the end of a run for twice that: a request in flight, and one more."""
    waited: list[object] = []

    def silent(_: object, timeout: float) -> NoReturn:
        waited.append(timeout)
        raise TimeoutError("timed out")

    class Thread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            waited.append(("joined", timeout))
            super().join(timeout)

    monkeypatch.setattr("urllib.request.urlopen", silent)
    monkeypatch.setattr("anomaly_runner.progress.threading.Thread", Thread)
    (tmp_path / "token").write_text("t")
    with ProgressMeter([PushReporter("http://operator", tmp_path / "token", RUN, lambda: None, lambda: None)]) as one:
        one.enter(Stage.DATASET, 1, "images")
    assert set(waited) == {2.0, ("joined", 4.0)}


def test_the_log_has_a_line_for_each_stage_and_each_ten_percent(caplog: pytest.LogCaptureFixture) -> None:
    """Prediction goes from 30 to 75 percent of a run."""
    with caplog.at_level(logging.INFO, "anomaly_runner"), ProgressMeter([LogReporter()]) as progress:
        progress.enter(Stage.PREDICT, 450, "images")
        for _ in range(450):
            progress.advance(1)
        progress.enter(Stage.EVALUATE, 0, "images")
    told = [(vars(record)["stage"], vars(record)["percent"]) for record in caplog.records]
    assert told == [
        ("predict", 30),
        ("predict", 40),
        ("predict", 50),
        ("predict", 60),
        ("predict", 70),
        ("evaluate", 75),
    ]


def test_other_protocols_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an HTTP URL"):
        PushReporter("file:///etc/passwd", tmp_path / "token", RUN, lambda: None, lambda: None)


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("did not happen")


def test_updates_are_json_in_camel_case() -> None:
    update = ProgressUpdate(run=RUN, stage=Stage.TRAIN, progress=Progress(remaining_seconds=7))
    written = json.loads(json.dumps(update.to_json_object()))
    assert written["stage"] == "train"
    assert written["progress"]["remainingSeconds"] == 7
