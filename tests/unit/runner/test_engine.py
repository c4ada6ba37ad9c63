"""What a run does of all that it could: nothing again, its check, its work, or the end of a sweep."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from anomaly_api.run import RunConfig
from anomaly_runner import engine
from anomaly_runner.errors import DataChanged, InvalidConfig
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID
from anomaly_runner.tracking.tracker import NoTracker
from support import objects
from support.contexts import RUN, make_context

LISTING = {"file": "listing.json", "sha256": "0" * 64}
TRAINS = {"model": {"name": "padim", "weights": {"s3": {"uri": "s3://weights"}}}}


def config(kind: str = "experiment", uid: str = "u", spec: Any = None, **fields: Any) -> RunConfig:
    written = {"experiment": objects.EXPERIMENT, "inference": objects.INFERENCE}[kind]["spec"] | (spec or {})
    if kind == "inference":
        written |= {"model": {"location": {"s3": {"uri": "s3://model"}}}}
    return RunConfig.model_validate({"run": RUN.model_copy(update={"uid": uid}), kind: written} | fields)


@pytest.fixture(autouse=True)
def played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in its order; the modules that do it are not imported."""
    done: list[str] = []

    def module(name: str, **functions: str) -> None:
        def does(what: str) -> Any:
            def do(*_: Any, **__: Any) -> str:
                done.append(what)
                return what

            return do

        made: Any = SimpleNamespace(**{function: does(what) for function, what in functions.items()})
        monkeypatch.setitem(sys.modules, f"anomaly_runner.{name}", made)

    module("preflight.experiment", check_experiment="check of an experiment")
    module("preflight.inference", check_inference="check of an inference")
    module("inference", run_inference="inference")
    module("sweep_report", run_report="report")
    module("experiment", check_experiment="spec", run_experiment="experiment")
    monkeypatch.setattr(engine, "already_published", lambda *_: done.append("looked"))
    monkeypatch.setattr(engine, "list_experiment", lambda *_, **__: done.append("list"))
    monkeypatch.setattr(engine, "go_offline", lambda: done.append("offline"))
    monkeypatch.setattr(engine, "discard_listing", lambda listing, _: done.append(f"discard {listing.file}"))
    return done


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (config(), ["looked", "spec", "list", "experiment"]),
        (config(uid=LOCAL_UID), ["spec", "list", "experiment"]),
        (config(spec=TRAINS), ["looked", "offline", "spec", "list", "experiment"]),
        (config("inference"), ["looked", "inference"]),
        (config(step="check"), ["looked", "check of an experiment"]),
        (config(step="check", spec=TRAINS), ["looked", "offline", "check of an experiment"]),
        (config("inference", step="check"), ["looked", "check of an inference"]),
        (config(step="report"), ["looked", "report"]),
    ],
    ids=[
        "trains",
        "without a cluster",
        "own weights",
        "scores",
        "checks",
        "checks weights",
        "checks a model",
        "a page",
    ],
)
def test_what_is_done_and_in_which_order(asked: RunConfig, expected: list[str], played: list[str]) -> None:
    engine.execute(asked, make_context())
    assert played == expected


def test_what_is_published_is_not_done_again_and_tracked(played: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    tracker = NoTracker()
    monkeypatch.setattr(tracker, "start", started.append)
    monkeypatch.setattr(engine, "already_published", lambda *_: "published")
    done: Any = engine.execute(config(), make_context(tracker=tracker))
    assert (done, played) == ("published", [])
    assert started[0]["model.name"] == "padim"
    engine.execute(config(step="check"), make_context(tracker=tracker))
    assert (played, len(started)) == (["check of an experiment"], 1)


def test_a_sweep_has_no_run_of_its_own(played: list[str]) -> None:
    sweep = {
        "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 9}}],
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
    }
    with pytest.raises(InvalidConfig, match=r"^spec\.sweep: a sweep has no run of its own"):
        engine.execute(config(spec={"sweep": sweep}), make_context())
    assert played == ["looked"]


@pytest.mark.parametrize(("listing", "discarded"), [(LISTING, ["discard listing.json"]), (None, [])])
def test_a_listing_that_does_not_hold_any_more_is_dropped(
    listing: Any, discarded: list[str], played: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_: Any, **__: Any) -> None:
        raise DataChanged("a.png has changed")

    monkeypatch.setattr(engine, "list_experiment", changed)
    with pytest.raises(DataChanged):
        engine.execute(config(listing=listing), make_context())
    assert played[2:] == discarded
