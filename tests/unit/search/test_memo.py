"""A memo saves time and changes no answer, whatever happens to trials, limits and fidelities between two calls."""

import copy
import random
from datetime import timedelta
from typing import Any

import pytest

from anomaly_api.sweep_exchange import NewTrial, TrialRecord, TrialState
from anomaly_search.memo import Memo
from anomaly_search.session import decide, overview
from support.sweep_specs import sweep_spec
from support.sweeps import BEGIN

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
