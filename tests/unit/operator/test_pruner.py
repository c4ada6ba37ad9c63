"""Which trials are told to stop when they push their curve."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from anomaly_api.run import ProgressAnswer, ProgressUpdate, RunIdentity
from anomaly_api.status import Curve, Progress, Stage
from anomaly_api.sweep_exchange import TrialRecord
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.keys import RunKey
from anomaly_operator.pruner import Pruner
from anomaly_operator.resources import Manifest
from anomaly_operator.search_worker import SearchWorker
from support.objects import EXPERIMENT, KEY, make_run, with_spec

TRIAL = {"sweep": "hunt", "number": 3, "objective": "image.AUROC", "values": {"model.padim.nFeatures": 7}}
OWNER = {"kind": "AnomalyExperiment", "name": "hunt", "uid": "h", "controller": True}
CURVE = Curve.model_validate({"metric": "imageAUROC", "epochs": [1, 3], "values": [0.5, 0.7]})
IDENTITY = RunIdentity(kind=KEY.kind, namespace=KEY.namespace, name=KEY.name, uid="t")
UPDATE = ProgressUpdate(run=IDENTITY, stage=Stage.TRAIN, progress=Progress(), curve=CURVE)
PRUNING = {"pruning": {"afterTrials": 3}}


class Judge(SearchWorker):
    """A search that has an opinion."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, TrialRecord]] = []
        self.behind = True

    async def is_behind(self, sweep_uid: str, spec: bytes, record: TrialRecord) -> bool:
        self.asked.append((sweep_uid, spec, record))
        return self.behind


class World:
    """A sweep ``hunt`` and its trial ``screws``."""

    def __init__(self) -> None:
        self.cache, self.judge = Cache(), Judge()
        self.put_sweep(PRUNING)
        self.put_trial()

    def put_sweep(self, sweep: Manifest, version: str = "10") -> None:
        spec = with_spec(EXPERIMENT, sweep=sweep)
        self.sweep = make_run(spec | {"metadata": {"name": "hunt"}}, uid="h", resourceVersion=version)
        self.cache.put_run(self.sweep)

    def put_trial(self, status: Manifest | None = None, version: str = "10", **owner: Any) -> None:
        trial = with_spec(EXPERIMENT, trial=TRIAL)
        metadata = EXPERIMENT["metadata"] | {"ownerReferences": [OWNER | owner]}
        self.cache.put_run(make_run(trial | {"metadata": metadata}, status, uid="t", resourceVersion=version))

    async def answer(self, update: ProgressUpdate = UPDATE, key: RunKey = KEY) -> ProgressAnswer | None:
        return await Pruner(self.cache, self.judge).answer(key, update)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_trial_that_is_behind_is_told_to_stop_and_why(world: World) -> None:
    with capture_logs() as logs:
        answer = await world.answer()
    assert answer is not None
    assert answer.stop == "Pruned"
    assert "the trials of hunt after epoch 3" in answer.message
    [(uid, spec, record)] = world.judge.asked
    assert (uid, spec) == ("h", world.sweep.spec)
    assert (record.number, record.state, record.values) == (3, "Running", TRIAL["values"])
    assert record.curve == {0: 0.5, 2: 0.7}, "what it has just pushed"
    [told] = logs
    assert (told["event"], told["trial"], told["message"]) == ("trial pruned", str(KEY), answer.message)


async def test_one_that_is_not_goes_on(world: World) -> None:
    world.judge.behind = False
    assert await world.answer() is None
    assert len(world.judge.asked) == 1


async def test_nobody_else_is_judged(world: World) -> None:
    assert await world.answer(UPDATE.model_copy(update={"curve": None})) is None
    other = CURVE.model_copy(update={"metric": "trainLoss"})
    assert await world.answer(UPDATE.model_copy(update={"curve": other})) is None, "another metric's curve"
    assert await world.answer(key=RunKey("AnomalyExperiment", "vision", "gone")) is None
    world.put_sweep({"parameters": []}, version="11")
    assert await world.answer() is None, "the sweep prunes nothing"
    world.cache.put_run(make_run(EXPERIMENT | {"metadata": {"name": "hunt"}}, uid="h", resourceVersion="12"))
    assert await world.answer() is None, "what owns it is no sweep"
    world.put_sweep(PRUNING, version="13")
    world.put_trial(version="11", name="gone")
    assert await world.answer() is None, "its sweep is gone"
    world.put_trial(version="12", controller=False)
    assert await world.answer() is None, "it is no trial"
    assert world.judge.asked == []


async def test_a_trial_that_cannot_be_read_is_named_and_goes_on(world: World) -> None:
    world.put_trial({"phase": "Melted"}, version="11")
    with capture_logs() as logs:
        assert await world.answer() is None
    assert world.judge.asked == []
    [told] = logs
    assert (told["event"], told["log_level"], told["trial"]) == ("a trial cannot be read", "error", str(KEY))
    assert "Melted" in told["message"]
