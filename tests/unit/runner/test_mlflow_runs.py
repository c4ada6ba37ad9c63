"""The run of a sweep in MLflow: found, made, given up for an older one, gone on with, and ended by the last trial."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from anomaly_api.run import RunIdentity
from anomaly_runner.tracking.mlflow_runs import Sought, SweepRun, end_run, find_run, reopen

SWEEP = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="bolts", uid="0-1")
SOUGHT = Sought(run=SWEEP, search="s1")
TAGS = {
    "anomalyops.io/uid": "0-1",
    "anomalyops.io/kind": "AnomalyExperiment",
    "anomalyops.io/namespace": "factory",
    "anomalyops.io/name": "bolts",
    "anomalyops.io/search": "s1",
}
FAILURE = "anomalyops.io/failure"


def run(
    run_id: str, start: int = 0, status: str = "RUNNING", tags: Mapping[str, str] = MappingProxyType({})
) -> SimpleNamespace:
    """A run of the sweep in MLflow; ``start`` is when its pod asked for it."""
    info = SimpleNamespace(run_id=run_id, start_time=start, status=status)
    return SimpleNamespace(info=info, data=SimpleNamespace(tags=TAGS | dict(tags)))


class Experiment:
    """MLflow's client, with the runs of one experiment.

    Attributes:
        runs: those that a search finds.
        asked: the requests, each with its arguments.
        found_after_creation: what shows up once a run was created, in place of this run.
        failures: of the next searches.
    """

    def __init__(self, *runs: SimpleNamespace) -> None:
        self.runs = list(runs)
        self.asked: list[tuple[Any, ...]] = []
        self.found_after_creation: list[SimpleNamespace] | None = None
        self.failures: list[Exception] = []

    def search_runs(
        self, experiments: Sequence[str], query: str, *, order_by: Sequence[str] = (), max_results: int = 1000
    ) -> list[SimpleNamespace]:
        self.asked.append(("search_runs", experiments, query, order_by, max_results))
        if self.failures:
            raise self.failures.pop()
        return [run for run in self.runs if ("parentRunId" in query) == ("mlflow.parentRunId" in run.data.tags)]

    def create_run(self, experiment: str, *, run_name: str, tags: dict[str, str]) -> SimpleNamespace:
        self.asked.append(("create_run", experiment, run_name))
        made = SimpleNamespace(
            info=SimpleNamespace(run_id="own", start_time=10, status="RUNNING"), data=SimpleNamespace(tags=tags)
        )
        self.runs += [made] if self.found_after_creation is None else self.found_after_creation
        return made

    def get_run(self, run_id: str) -> SimpleNamespace:
        return run(run_id)

    def delete_run(self, run_id: str) -> None:
        self.asked.append(("delete_run", run_id))
        self.runs = [run for run in self.runs if run.info.run_id != run_id]

    def update_run(self, run_id: str, status: str) -> None:
        self.asked.append(("update_run", run_id, status))

    def delete_tag(self, run_id: str, name: str) -> None:
        self.asked.append(("delete_tag", run_id, name))

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        self.asked.append(("set_tag", run_id, name, value))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.asked.append(("set_terminated", run_id, status))

    def changes(self) -> list[tuple[Any, ...]]:
        """The requests beside searches."""
        return [words for words in self.asked if words[0] != "search_runs"]


LOOK = ("search_runs", ["7"], "tags.`anomalyops.io/uid` = '0-1'", ["attributes.start_time ASC"], 1000)


def sweep_run(**tags: str) -> SweepRun:
    return SweepRun(SOUGHT, tags)


# Which run is whose

FIRST = Sought(run=SWEEP)


@pytest.mark.parametrize(
    ("change", "is_it"),
    [
        ({}, True),
        ({"anomalyops.io/run": "2"}, False),
        ({"anomalyops.io/run": None}, True),  # of a release that did not count them
        ({"anomalyops.io/search": "s1"}, False),  # the sweep's own run
        ({"anomalyops.io/name": "nuts"}, False),
        ({"anomalyops.io/namespace": "other"}, False),
        ({"team": "vision"}, True),
    ],
)
def test_the_run_of_an_earlier_pod_is_known_by_its_tags(change: dict[str, str | None], is_it: bool) -> None:
    tags = {name: value for name, value in (FIRST.tags | change).items() if value is not None}
    assert FIRST.is_it(tags) is is_it


def test_the_second_run_of_a_resource_is_not_its_first() -> None:
    second = Sought(run=SWEEP.model_copy(update={"number": 2}))
    assert not second.is_it(FIRST.tags)
    untold = {name: value for name, value in FIRST.tags.items() if name != "anomalyops.io/run"}
    assert not second.is_it(untold)
    assert second.is_it(FIRST.tags | {"anomalyops.io/run": "2"})


def test_a_sweeps_run_is_any_of_its_runs_with_that_search() -> None:
    sweep = SOUGHT
    tags = {name: value for name, value in FIRST.tags.items() if name != "anomalyops.io/run"}
    assert sweep.is_it(tags | {"anomalyops.io/search": "s1"})
    assert not sweep.is_it(tags | {"anomalyops.io/search": "s2"})
    assert not sweep.is_it(tags)


# Which of several


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ([], None),
        ([run("a", 5), run("b", 3), run("c", 4)], "b"),
        ([run("b", 3), run("a", 3), run("c", 3)], "a"),  # every pod has to choose the same one
        ([run("a", 1, tags={"anomalyops.io/search": "s2"}), run("b", 2)], "b"),
    ],
)
def test_the_oldest_run_of_the_search_is_found(runs: list[SimpleNamespace], found: str | None) -> None:
    client = Experiment(*runs)
    oldest = find_run(client, "7", SOUGHT)
    assert (oldest and oldest.info.run_id) == found
    assert client.asked == [LOOK]


# A sweep's run is there, or is made


def test_a_run_that_is_there_is_taken_and_looked_for_no_more() -> None:
    client, sweep = Experiment(run("a")), sweep_run()
    assert sweep.ensure(client, "7") == "a"
    assert sweep.is_settled
    assert client.asked == [LOOK]


def test_a_run_is_made_for_the_first_trial() -> None:
    client, sweep = Experiment(), sweep_run(team="vision", **{"anomalyops.io/uid": "of somebody else"})
    assert sweep.ensure(client, "7") == "own"
    assert client.asked == [LOOK, ("create_run", "7", "bolts"), LOOK]
    (made,) = client.runs
    note = "Sweep factory/bolts. The runs of its trials are nested below this one."
    assert made.data.tags == {"team": "vision", "mlflow.note.content": note} | TAGS


def test_a_run_that_was_made_is_looked_for_once_more() -> None:
    """That of a pod that asked earlier may show up later: MLflow has the times of pods."""
    client, sweep = Experiment(), sweep_run()
    sweep.ensure(client, "7")
    assert not sweep.is_settled
    client.asked.clear()
    assert sweep.ensure(client, "7") == "own"
    assert sweep.is_settled
    assert client.asked == [LOOK]


def test_a_look_that_failed_was_none() -> None:
    client, sweep = Experiment(), sweep_run()
    client.failures = [ConnectionError("reset")]
    with pytest.raises(ConnectionError):
        sweep.ensure(client, "7")
    assert not sweep.is_settled
    sweep.ensure(client, "7")
    assert not sweep.is_settled
    client.failures = [ConnectionError("reset")]
    with pytest.raises(ConnectionError):
        sweep.ensure(client, "7")
    assert not sweep.is_settled
    sweep.ensure(client, "7")
    assert sweep.is_settled


def test_a_run_that_a_search_does_not_find_yet_is_taken_all_the_same() -> None:
    client = Experiment()
    client.found_after_creation = []
    assert sweep_run().ensure(client, "7") == "own"
    assert client.changes() == [("create_run", "7", "bolts")]


@pytest.mark.parametrize("when", ["at once", "at the second look"])
def test_the_older_run_of_another_pod_is_kept_and_the_own_one_deleted_once(when: str) -> None:
    client, sweep = Experiment(), sweep_run()
    if when == "at once":
        client.found_after_creation = [run("own", 10), run("older", 9)]
    else:
        sweep.ensure(client, "7")
        client.runs.append(run("older", 9))
    assert sweep.ensure(client, "7") == "older"
    assert client.changes() == [("create_run", "7", "bolts"), ("delete_run", "own")]
    assert sweep.ensure(client, "7") == "older"
    assert sweep.is_settled
    assert client.changes() == [("create_run", "7", "bolts"), ("delete_run", "own")]


def test_a_younger_run_is_left_to_its_pod() -> None:
    client, sweep = Experiment(), sweep_run()
    client.found_after_creation = [run("own", 10), run("younger", 11)]
    assert sweep.ensure(client, "7") == "own"
    assert client.changes() == [("create_run", "7", "bolts")]


@pytest.mark.parametrize(
    ("there", "changes"),
    [
        (
            run("a", status="KILLED", tags={FAILURE: "x"}),
            [("update_run", "a", "RUNNING"), ("delete_tag", "a", FAILURE)],
        ),
        (run("a", status="FINISHED"), [("update_run", "a", "RUNNING")]),
        (run("a", status="RUNNING"), []),
    ],
)
def test_a_search_that_goes_on_goes_on_in_its_run(there: SimpleNamespace, changes: list[tuple[str, ...]]) -> None:
    client = Experiment(there)
    assert sweep_run().ensure(client, "7") == "a"
    assert client.changes() == changes


# How it ends


def trial_at_work() -> SimpleNamespace:
    return run("t", tags={"mlflow.parentRunId": "a"})


@pytest.mark.parametrize(
    ("runs", "ends"),
    [
        ([], False),
        ([run("a", status="KILLED")], False),
        ([run("a"), trial_at_work()], False),
        ([run("a")], True),
    ],
)
def test_the_last_trial_that_is_stopped_ends_the_sweeps_run(runs: list[SimpleNamespace], ends: bool) -> None:
    client = Experiment(*runs)
    sweep_run().stop(client, "7", "Stopped: by somebody")
    told = "no trial is at work any longer; the last one: Stopped: by somebody"
    assert client.changes() == ([("set_tag", "a", FAILURE, told), ("set_terminated", "a", "KILLED")] if ends else [])


def test_one_trial_at_work_is_enough_to_know() -> None:
    client = Experiment(run("a"), trial_at_work())
    sweep_run().stop(client, "7", "Stopped")
    at_work = "tags.`mlflow.parentRunId` = 'a' and attributes.status = 'RUNNING'"
    assert client.asked == [LOOK, ("search_runs", ["7"], at_work, (), 1)]


def test_an_end_is_told_before_it_is_one_and_fits_a_tag() -> None:
    client = Experiment()
    end_run(client, "a", "FAILED", "x" * 6000)
    (tagged, ended) = client.asked
    assert tagged == ("set_tag", "a", FAILURE, "x" * 4979 + "... (6000 characters)")
    assert ended == ("set_terminated", "a", "FAILED")


def test_a_run_that_goes_on_loses_only_the_reason_of_its_end() -> None:
    client = Experiment()
    reopen(client, run("a", status="FAILED", tags={FAILURE: "Diverged"}))
    assert client.asked == [("update_run", "a", "RUNNING"), ("delete_tag", "a", FAILURE)]
