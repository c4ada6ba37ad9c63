"""Evaluations as Optuna's trials: what each sort of outcome teaches, by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from anomaly_search.evaluations import fold
from anomaly_search.samplers.cma_es import cma_es
from anomaly_search.samplers.rows import directions, distributions_of, rows
from anomaly_search.samplers.storage import Rows, frozen, running
from anomaly_search.space import Choices, FloatRange, IntRange, Parameter, Space
from anomaly_search.sweep import Algorithm, Constraint, Fidelity, Objective, Replicates, Sweep
from anomaly_search.trials import State, Trial
from support.sweeps import FINITE, complete, sweep_of

POINT = {"x": 1.0, "y": -2.0}
RUNGS = Fidelity((0.25, 1.0), 2)
TWO = (Objective("a"), Objective("b", "minimize"))
STEPS = 1_000_000
"""Of a rung."""


def told(sweep: Sweep, *trials: Trial) -> list[tuple[str, Any, dict[int, float], dict[str, float]]]:
    """Return the state, the values, those between and the constraints of each row."""
    return [
        (row.state.name, row.values, row.intermediate_values, row.constraints)
        for row in rows(sweep, fold(sweep, trials))
    ]


def test_what_is_measured_in_full_is_complete() -> None:
    sweep = sweep_of(fidelity=RUNGS, constraints=(Constraint("bytes", max=2.0), Constraint("ms", min=4.0)))
    low, full = (complete(0, POINT, value, rung=rung, constraints=(3.0, 8.0)) for rung, value in ((0, 0.5), (1, 0.7)))
    violations = {"0:bytes": 0.5, "1:ms": -1.0}
    assert told(sweep, low, full) == [("COMPLETE", [0.7], {}, violations)]
    assert told(sweep, low) == [("PRUNED", None, {STEPS - 1: 0.5}, violations)], "as if it had been stopped there"


def test_a_curve_of_a_higher_rung_follows_the_lower_one() -> None:
    sweep = sweep_of(fidelity=RUNGS)
    stopped = Trial(0, POINT, State.PRUNED, rung=1, curve={0: 0.4, 3: 0.6})
    between = {STEPS - 1: 0.5, STEPS: 0.4, STEPS + 3: 0.6}
    assert told(sweep, complete(0, POINT, 0.5), stopped) == [("PRUNED", None, between, {})]
    assert told(sweep, stopped) == [("PRUNED", None, {STEPS: 0.4, STEPS + 3: 0.6}, {})]
    # The lower rung is told while the higher one is at work.
    at_work = Trial(0, POINT, State.RUNNING, rung=1)
    assert told(sweep, complete(0, POINT, 0.5), at_work) == [("PRUNED", None, {STEPS - 1: 0.5}, {})]


def test_a_hopeless_point_has_the_value_of_its_replicates_just_before_the_end_of_its_rung() -> None:
    sweep = sweep_of(replicates=Replicates(5), constraints=(Constraint("bytes", max=2.0),))
    best, worse = [0.9, 0.91, 0.82, 0.99, 0.9], [0.6, 0.5, 0.4, 0.7]
    trials = [complete(0, POINT, value, replicate=place, constraints=(1.0,)) for place, value in enumerate(best)]
    trials += [complete(1, POINT, value, replicate=place, constraints=(3.0,)) for place, value in enumerate(worse)]
    hopeless = told(sweep, *trials)[1]
    assert hopeless[0] == "PRUNED"
    assert hopeless[2] == {STEPS - 2: pytest.approx(0.55)}
    assert hopeless[3] == {"0:bytes": 0.5}


def test_what_cannot_work_violates_a_constraint_and_what_failed_says_nothing() -> None:
    sweep = sweep_of(fidelity=RUNGS)
    states = [State.INFEASIBLE, State.FAILED, State.RUNNING]
    assert told(sweep, *(Trial(number, POINT, state) for number, state in enumerate(states))) == [
        ("PRUNED", None, {}, {"infeasible": 1.0}),
        ("RUNNING", None, {}, {}),
    ]
    later = Trial(0, POINT, State.INFEASIBLE, rung=1)
    assert told(sweep, complete(0, POINT, 0.5), later) == [("PRUNED", None, {}, {"infeasible": 1.0})]


def test_of_several_objectives_nothing_but_whole_values_is_told() -> None:
    sweep = sweep_of(objectives=TWO)
    assert told(sweep, complete(0, POINT, 0.5, 3.0)) == [("COMPLETE", [0.5, 3.0], {}, {})]
    assert told(sweep, Trial(0, POINT, State.PRUNED, curve={0: 0.4})) == []
    assert directions(sweep) == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]


def test_parameters_are_places_and_numbers_and_those_that_do_not_exist_are_missing() -> None:
    sweep = sweep_of(FINITE)
    padim = {"model": "padim", "features": 100.0, "size": {"height": 384}, "layers": ["a"]}
    outside = padim | {"features": 75}
    trials = [complete(0, padim, 0.5), complete(1, outside, 0.6), complete(2, padim | {"features": 150}, 0.7)]
    found = rows(sweep, fold(sweep, trials))
    assert [(row.number, row.params) for row in found] == [
        (0, {"model": 1, "features": 100, "size": 1}),
        (2, {"model": 1, "features": 150, "size": 1}),
    ]
    assert type(found[0].params["features"]) is int
    numbers = rows(sweep_of(), fold(sweep_of(), [complete(0, {"x": 1, "y": -2.5}, 0.5)]))[0].params
    assert (numbers, type(numbers["x"])) == ({"x": 1.0, "y": -2.5}, float)
    assert found[0].distributions == {
        "model": CategoricalDistribution((0, 1, 2)),
        "features": IntDistribution(50, 150, step=50),
        "size": CategoricalDistribution((0, 1)),
    }


def test_ranges_end_with_the_last_value_that_they_have() -> None:
    space = Space(
        (
            Parameter("stepped", FloatRange(0.1, 0.75, step=0.2)),
            Parameter("log", FloatRange(0.01, 1.0, log=True)),
            Parameter("int", IntRange(1, 9, step=3)),
            Parameter("log int", IntRange(1, 50, log=True)),
            Parameter("choice", Choices(("a", None))),
        )
    )
    assert distributions_of(space) == {
        "stepped": FloatDistribution(0.1, 0.7, step=0.2),
        "log": FloatDistribution(0.01, 1.0, log=True),
        "int": IntDistribution(1, 7, step=3),
        "log int": IntDistribution(1, 50, log=True),
        "choice": CategoricalDistribution((0, 1)),
    }


def test_the_storage_has_the_rows_and_the_one_that_is_asked_on_top() -> None:
    past = [frozen(TrialState.COMPLETE, 3, {}, {}, values=[0.5]), running(5, {}, {}), running(7, {}, {})]
    storage = Rows(past, [StudyDirection.MAXIMIZE])
    assert storage.create_new_trial(0) == 8
    distribution = CategoricalDistribution(("a", "b"))
    storage.set_trial_param(8, "p", 1.0, distribution)
    storage.set_trial_system_attr(8, "key", 5)
    asked = storage.get_trial(8)
    assert asked.state is TrialState.RUNNING
    assert (asked.params, asked.distributions, asked.system_attrs) == ({"p": "b"}, {"p": distribution}, {"key": 5})
    assert [row.number for row in storage.get_all_trials(0)] == [3, 5, 7, 8]
    assert [row.number for row in storage.get_all_trials(0, states=(TrialState.COMPLETE,))] == [3]
    assert storage.get_trial(3) is past[0]
    assert len(past) == 3, "the list of rows is not touched"
    assert Rows([], []).create_new_trial(0) == 0
    assert storage.get_study_directions(0) == [StudyDirection.MAXIMIZE]
    assert (storage.get_study_id_from_name("sweep"), storage.get_study_name_from_id(0)) == (0, "sweep")
    assert storage.get_study_user_attrs(0) == storage.get_study_system_attrs(0) == {}
    with pytest.raises(NotImplementedError, match=r"^past trials are read only$"):
        storage.set_trial_state_values(3, TrialState.FAIL)


# CMA-ES


LINE = Space((Parameter("x", FloatRange(0.0, 1.0)), Parameter("y", FloatRange(0.0, 1.0))))
FOURS = Algorithm("cmaes", 7, population=4)
GENERATION = [complete(number, {"x": 0.2 * number, "y": 0.5}, float(number)) for number in range(4)]


def drawn(trials: list[Trial], **options: Any) -> dict[str, Any]:
    sweep = sweep_of(LINE, algorithm=FOURS, **options)
    return cma_es(sweep, fold(sweep, trials), 11)


def test_a_generation_teaches_once_all_of_it_is_over() -> None:
    nothing = drawn([])
    assert drawn(GENERATION[:3]) == drawn(GENERATION[1:]) == nothing
    at_work = Trial(3, {"x": 0.6, "y": 0.5}, State.RUNNING)
    assert drawn([*GENERATION[:3], at_work]) == nothing
    assert drawn(GENERATION) != nothing
    second = [replace(trial, number=trial.number + 4) for trial in GENERATION]
    assert drawn([*GENERATION[:3], at_work, *second]) == drawn(second + GENERATION[:3]) != nothing
    assert drawn([*GENERATION, *second[:3]]) == drawn(GENERATION)


def test_a_generation_is_compared_at_the_lowest_fidelity_by_ranks() -> None:
    higher = [complete(3, GENERATION[3].parameters, -9.0, rung=1)]
    assert drawn([*GENERATION, *higher], fidelity=RUNGS) == drawn(GENERATION)
    assert drawn([replace(trial, objectives=(math.exp(trial.number),)) for trial in GENERATION]) == drawn(GENERATION)
    turned = (Objective("a", "minimize"),)
    assert drawn([replace(one, objectives=(-one.number,)) for one in GENERATION], objectives=turned) == drawn(
        GENERATION
    )
    assert drawn(GENERATION, objectives=turned) != drawn(GENERATION)


def test_the_widest_steps_lead_to_points_of_the_space() -> None:
    sweep = sweep_of(LINE, algorithm=replace(FOURS, sigma=1.0))
    drawn_ones = [cma_es(sweep, fold(sweep, GENERATION), seed) for seed in range(60)]
    assert all(LINE.restrict(one) == one for one in drawn_ones)
    assert max(one["x"] for one in drawn_ones) > 0.9
    assert min(one["x"] for one in drawn_ones) < 0.1


def test_what_did_not_work_is_the_worst_and_then_what_is_furthest_beyond_the_constraints() -> None:
    """0 did not work, 1 and 2 are beyond a bound, and so 3, the best by value, is the best of all either way."""
    bounds = {"constraints": (Constraint("bytes", max=1.0), Constraint("ms", max=1.0))}
    beyond = [(0.5, 0.5), (3.0, 1.0), (0.0, 2.0), (1.0, 1.0)]
    ranked = [replace(trial, constraints=pair) for trial, pair in zip(GENERATION, beyond, strict=True)]
    broken = Trial(0, GENERATION[0].parameters, State.INFEASIBLE)
    assert drawn([broken, *ranked[1:]], **bounds) == drawn(GENERATION)
    values = [replace(trial, objectives=(-float(trial.number),)) for trial in ranked]
    assert drawn([broken, *values[1:]], **bounds) == drawn(GENERATION), "bounds before values"
    # Of two that are equally far beyond, the better value decides: 1 and 2 are both 1 beyond.
    even = [replace(trial, constraints=(1.0, 2.0) if trial.number in (1, 2) else (1.0, 1.0)) for trial in ranked]
    assert drawn([broken, *even[1:]], **bounds) == drawn(GENERATION)
