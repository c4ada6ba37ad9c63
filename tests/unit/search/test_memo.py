"""A memo saves time and changes no answer, whatever happens to trials, limits and fidelities between two calls."""

import copy
import random
from collections.abc import Callable, Hashable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from anomaly_api.sweep_exchange import NewTrial, TrialRecord, TrialState
from anomaly_search import evaluations, session, summary
from anomaly_search import suggest as suggest_module
from anomaly_search.memo import Memo
from anomaly_search.points import point_at
from anomaly_search.samplers import rows
from anomaly_search.session import decide, overview
from anomaly_search.suggest import suggest
from anomaly_search.sweep import Algorithm
from anomaly_search.trials import State, Trial
from support.sweep_specs import sweep_spec
from support.sweeps import BEGIN, FINITE, sweep_of

S = TypeVar("S")
T = TypeVar("T")

FEATURES = {"path": "model.padim.nFeatures", "int": {"low": 1, "high": 64}}
SHARE = {"path": "dataset.splits.goodTestFraction", "float": {"low": 0.1, "high": 0.3}}
FIDELITY = {"path": "dataset.fraction", "values": [0.5, 1.0], "reduction": 2}
ENDS: list[TrialState] = ["Complete", "Failed", "Infeasible"]
SEEDS = {"paths": [{"path": "dataset.seed", "values": [0, 1]}], "aggregate": "mean"}


def test_it_makes_a_thing_again_only_of_other_objects() -> None:
    memo, made = Memo(), list[str]()

    def make(*sources: list[int]) -> int:
        made.append("x")
        return sum(map(sum, sources))

    one, two = [1], [2]
    assert [memo.get("a", (one, two), make) for _ in range(3)] == [3, 3, 3]
    assert len(made) == 1
    assert memo.get("a", ([1], two), make) == 3, "an equal object is another one"
    assert memo.get("a", (one,), make) == 1
    assert memo.get("b", (one,), make) == 1
    assert len(made) == 4


def test_it_makes_each_thing_again_only_of_another_item() -> None:
    memo, made = Memo(), list[int]()

    def make(factor: list[int], item: list[int]) -> int:
        made.append(item[0])
        return factor[0] * item[0]

    factor, one, two, three = [10], [1], [2], [3]
    assert memo.each("a", (factor,), [one, two], make) == [10, 20]
    assert memo.each("a", (factor,), [two, three, one], make) == [20, 30, 10], "in the order of the items"
    assert made == [1, 2, 3]
    assert memo.each("a", (factor,), [one, one, [2]], make) == [10, 10, 20], "an equal item is another one"
    assert made == [1, 2, 3, 2]
    assert memo.each("a", (factor,), [three], make) == [30], "what was left out once is made anew"
    assert memo.each("b", (factor,), [three], make) == [30]
    assert memo.each("a", ([100],), [three], make) == [300], "and everything is, of another source"
    assert made == [1, 2, 3, 2, 3, 3, 3]


class Watched(Memo):
    """A memo that notes what is made: each key, or its first part, and that of many as often as one is made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Hashable] = []

    def get(self, key: Hashable, sources: tuple[object, ...], make: Callable[..., T]) -> T:
        def noted(*given: object) -> T:
            self.made.append(key[0] if isinstance(key, tuple) else key)
            return make(*given)

        return super().get(key, sources, noted)

    def each(self, key: Hashable, sources: tuple[object, ...], items: Iterable[S], make: Callable[..., T]) -> list[T]:
        def noted(*given: object) -> T:
            self.made.append(key)
            return make(*given)

        return super().each(key, sources, items, noted)


def allow_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each function that makes a memo of its own fail: it was not given the one that there is."""
    for module in (evaluations, rows, session, suggest_module, summary):
        monkeypatch.setattr(module, "Memo", lambda: pytest.fail("the memo was not handed on"))


@pytest.mark.parametrize(
    ("sweep", "made"),
    [
        ({"algorithm": {"name": "tpe"}}, {"block", "fold", "distributions", "row"}),
        ({"algorithm": {"name": "cmaes"}}, {"block", "fold"}),
        ({"algorithm": {"name": "random"}}, {"block", "fold"}),
    ],
)
def test_a_decision_makes_nothing_again_of_trials_that_are_as_they_were(
    sweep: dict[str, Any], made: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = sweep_spec(FEATURES, SHARE, trials={"max": 40}, **sweep).to_json_object()
    values = [{"model.padim.nFeatures": n + 1, "dataset.splits.goodTestFraction": 0.2} for n in range(12)]
    known = [TrialRecord(n, 0, 0, each, "Complete", {"image.AUROC": n / 20}) for n, each in enumerate(values)]
    memo = Watched()
    decided = decide(experiment, known, BEGIN, BEGIN, name="hunt", memo=memo)
    assert set(memo.made) == {"spec", "task", "trials"} | made
    assert memo.made.count("fold") == memo.made.count("trials") == 12
    memo.made.clear()
    allow_no_other(monkeypatch)
    assert decide(experiment, known, BEGIN, BEGIN, name="hunt", memo=memo) == decided
    assert memo.made == []


def test_an_overview_makes_nothing_again_of_trials_that_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = sweep_spec(SHARE, trials={"max": 40}).to_json_object()
    known = [
        TrialRecord(n, 0, 0, {"dataset.splits.goodTestFraction": 0.1 + n / 200}, "Complete", {"image.AUROC": n / 20})
        for n in range(20)
    ]
    memo = Watched()
    told = overview(experiment, known, memo=memo)
    assert set(memo.made) == {"task", "trials", "block", "fold", "importances"}
    memo.made.clear()
    allow_no_other(monkeypatch)
    assert overview(experiment, known, memo=memo) == told
    assert memo.made == []


def test_an_overview_makes_nothing_again_of_what_a_decision_has_made() -> None:
    experiment = sweep_spec(SHARE, trials={"max": 40}, algorithm={"name": "random"}).to_json_object()
    known = [TrialRecord(0, 0, 0, {"dataset.splits.goodTestFraction": 0.1}, "Complete", {"image.AUROC": 0.5})]
    memo, earlier = Watched(), [{"dataset.splits.goodTestFraction": 0.2}]
    decide(experiment, known, BEGIN, BEGIN, name="hunt", earlier=earlier, memo=memo)
    memo.made.clear()
    overview(experiment, known, earlier=earlier, memo=memo)
    assert memo.made == []


def test_a_suggestion_in_a_finite_space_makes_nothing_again_of_trials_that_are_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = [Trial(n, point_at(FINITE, n), State.FAILED) for n in range(12)]
    sweep = sweep_of(FINITE, algorithm=Algorithm("random", 7))
    monkeypatch.setattr("anomaly_search.suggest._draw", lambda *_: point_at(FINITE, 3))
    memo = Watched()
    suggested = suggest(sweep, known, 12, memo)
    assert sorted(map(str, memo.made)) == ["keys"] * 12 + ["points"] * 12
    memo.made.clear()
    assert suggest(sweep, known, 12, memo) == suggested
    assert memo.made == []


@pytest.mark.parametrize(
    "sweep",
    [
        {"algorithm": {"name": "tpe", "seed": 3, "tpe": {"startupTrials": 4}}},
        {"algorithm": {"name": "tpe", "seed": 3, "tpe": {"startupTrials": 4}}, "fidelity": FIDELITY},
        {"algorithm": {"name": "random"}, "replicates": SEEDS},
        {"algorithm": {"name": "cmaes"}},
    ],
)
def test_every_answer_is_that_without_a_memo(sweep: dict[str, Any]) -> None:
    trials = {"max": 16, "parallel": 3}
    experiment = sweep_spec(FEATURES, SHARE, trials=trials, **sweep).to_json_object()
    longer = sweep_spec(FEATURES, SHARE, trials=trials | {"max": 20}, **sweep).to_json_object()
    memo, luck = Memo(), random.Random(5)
    records: dict[str, TrialRecord] = {}
    for step in range(60):
        now = BEGIN + timedelta(minutes=step)
        task = experiment if step < 30 else longer
        known = list(records.values())
        plan = decide(task, known, now, BEGIN, name="hunt", memo=memo)
        # Without a memo, and of other objects, as in a process that was started anew.
        assert plan == decide(copy.deepcopy(task), copy.deepcopy(known), now, BEGIN, name="hunt")
        assert overview(task, known, memo=memo) == overview(copy.deepcopy(task), copy.deepcopy(known))
        records |= {new.name: _begun(new, step) for new in plan.starts}
        _go_on(records, luck, step)
    assert len({record.number for record in records.values()}) > 16, "it went on with its higher limit"


def _begun(new: NewTrial, step: int) -> TrialRecord:
    return TrialRecord(*new.which, values=new.values, state="Running", started=BEGIN + timedelta(minutes=step))


def _go_on(records: dict[str, TrialRecord], luck: random.Random, step: int) -> None:
    """Let a trial end, in one way or the other, and now and then one be deleted."""
    running = [name for name, record in records.items() if record.state == "Running"]
    if step % 13 == 12:
        del records[luck.choice(list(records))]
    elif running:
        name, ended = luck.choice(running), BEGIN + timedelta(minutes=step, seconds=30)
        state = luck.choices(ENDS, [8, 1, 1])[0]
        metrics = {"image.AUROC": luck.random()} if state == "Complete" and luck.random() > 0.1 else {}
        records[name] = records[name]._replace(state=state, metrics=metrics, ended=ended, gpu_hours=0.1, reason="x")
