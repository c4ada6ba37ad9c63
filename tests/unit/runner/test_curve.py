"""The course of a training in few points, and what the operator may answer to it."""

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from anomaly_api.run import ProgressUpdate, RunIdentity
from anomaly_api.status import MAX_CURVE, Curve, Device, MlflowStatus, Progress, Stage
from anomaly_runner import progress as module
from anomaly_runner.context import RunRecord
from anomaly_runner.progress import ProgressMeter, PushReporter
from anomaly_runner.training.curve import make_curve, thinned
from support.http_server import serving

RUN = RunIdentity(kind="AnomalyExperiment", namespace="ns", name="x", uid="u")
BODY_LIMIT = 16 * 1024
"""Largest request that the operator's server takes."""


def test_a_short_curve_is_whole() -> None:
    points = [(1, 0.5), (2, 0.6), (4, 2 / 3)]
    curve = make_curve("imageAUROC", points)
    assert (curve.metric, curve.epochs, curve.values) == ("imageAUROC", (1, 2, 4), (0.5, 0.6, 0.666667))
    assert curve.points == ((1, 0.5), (2, 0.6), (4, 0.666667))


def test_a_long_curve_keeps_the_best_and_the_last_point() -> None:
    points = [(epoch, 0.9 if epoch == 38 else 0.5) for epoch in range(1, 101)]
    assert thinned(points, 12, lowest_is_best=False) == [
        *((epoch, 0.5) for epoch in (1, 11, 21, 31)),
        (38, 0.9),
        *((epoch, 0.5) for epoch in (41, 51, 61, 71, 81, 91, 100)),
    ]


def test_the_best_loss_is_the_lowest() -> None:
    points = [(1, 5.0), (2, 4.0), (3, 1.0), (4, 9.0), (5, 3.0), (6, 4.0)]
    assert thinned(points, 4, lowest_is_best=True) == [(1, 5.0), (3, 1.0), (4, 9.0), (6, 4.0)]
    assert thinned(points, 4, lowest_is_best=False) == [(1, 5.0), (4, 9.0), (6, 4.0)]


@pytest.mark.parametrize("count", [*range(1, 40), 255, 256, 257, 1000, 100_000])
@pytest.mark.parametrize("most", [3, 32, 256])
def test_no_curve_is_longer_than_it_may_be(count: int, most: int) -> None:
    points = [(epoch, (epoch * 7919 % 1009) / 1009) for epoch in range(1, count + 1)]
    kept = thinned(points, most, lowest_is_best=False)
    assert len(kept) <= most
    assert list(kept) == sorted(set(kept))
    assert kept[-1] == points[-1]
    assert max(value for _, value in kept) == max(value for _, value in points)


def test_the_longest_curve_fits_into_a_push() -> None:
    curve = make_curve("imageAUROC", [(1_000_000 + epoch, 0.123456789) for epoch in range(5 * MAX_CURVE)])
    update = ProgressUpdate(
        run=RunIdentity(kind="AnomalyExperiment", namespace="n" * 63, name="x" * 253, uid="u" * 36),
        stage=Stage.TRAIN,
        progress=Progress(completed=10**9, total=10**9, percent=85, remaining_seconds=10**6),
        mlflow=MlflowStatus(run_id="a" * 32, url="https://mlflow/" + "u" * 300),
        device=Device(name="n" * 128, count=64, provider="p" * 64, fallback="f" * 256),
        curve=curve,
    )
    assert len(json.dumps(update.to_json_object()).encode()) < BODY_LIMIT / 2


class Operator:
    """Answers pushes: the first with each of ``answers`` in turn, all further ones with the last of them.

    An answer is a status and a body; a status of 0 closes the connection without a word.
    """

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.pushed: list[ProgressUpdate] = []
        self._answers = answers

    def handler(self) -> type[BaseHTTPRequestHandler]:
        operator = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                turn = min(len(operator.pushed), len(operator._answers) - 1)
                operator.pushed.append(ProgressUpdate.model_validate_json(body))
                status, content = operator._answers[turn]
                if status:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


STOP = (200, b'{"stop": "Pruned", "message": "0.71 is below the median 0.83"}')
CURVE = Curve(metric="imageAUROC", epochs=(1, 2), values=(0.5, 0.75))


def push_until(operator: Operator, folder: Path, is_enough: Callable[[RunRecord], object]) -> RunRecord:
    """Push progress with a curve until something has happened; returns the run's record."""
    record = RunRecord()
    record.show_curve(CURVE)
    (folder / "token").write_text("t")
    with serving(operator.handler()) as url:
        reporter = PushReporter(
            f"{url}/v1/progress",
            folder / "token",
            RUN,
            lambda: None,
            lambda: None,
            curve=lambda: record.curve,
            prune=record.prune,
        )
        with ProgressMeter([reporter]) as progress:
            progress.enter(Stage.TRAIN, 500, "steps")
            for _ in range(500):
                if is_enough(record):
                    return record
                progress.advance(1)
                time.sleep(0.02)
    raise AssertionError("did not happen")


@pytest.fixture(autouse=True)
def quick_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PUSH_SECONDS", 0.02)


def test_the_operator_sees_the_curve_and_its_answer_arrives(tmp_path: Path) -> None:
    operator = Operator(STOP)
    record = push_until(operator, tmp_path, lambda record: record.pruned)
    assert record.pruned == "0.71 is below the median 0.83"
    assert operator.pushed[0].curve == CURVE


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param((0, b""), id="connection closed"),
        pytest.param((503, b"no leader"), id="no leader"),
        pytest.param((500, STOP[1]), id="an error with the same words"),
        pytest.param((200, b"\xff not JSON"), id="garbage"),
        pytest.param((200, STOP[1][:-9]), id="cut"),
        pytest.param((200, b'{"stop": "Paused"}'), id="another word"),
        pytest.param((200, b'{"stop": "Pruned", "message": "' + b"x" * 10_000 + b'"}'), id="too long"),
        pytest.param((204, b""), id="nothing to say"),
        pytest.param((200, b"{}"), id="empty"),
        pytest.param((200, b""), id="no body"),
    ],
)
def test_an_answer_that_is_lost_costs_nothing_but_that_chance(tmp_path: Path, lost: tuple[int, bytes]) -> None:
    operator = Operator(lost, lost, STOP)
    record = push_until(operator, tmp_path, lambda record: record.pruned)
    assert record.pruned == "0.71 is below the median 0.83"
    assert len(operator.pushed) >= 3


def test_the_first_answer_counts() -> None:
    record = RunRecord()
    record.prune("first")
    record.prune("second")
    assert record.pruned == "first"
