"""Which points are the best."""

import numpy as np
import optuna

from anomaly_search.evaluations import fold
from anomaly_search.leaders import layers, pareto_front, ranked
from anomaly_search.ranking import improvements
from anomaly_search.sweep import Constraint, Objective, Sweep
from anomaly_search.trials import Trial
from support.sweeps import complete, sweep_of

POINT = {"x": 0.0, "y": 0.0}
TWO = (Objective("a"), Objective("b", "minimize"))


def order(sweep: Sweep, trials: list[Trial], top: int | None = None) -> list[int]:
    return [one.number for one in ranked(sweep, fold(sweep, trials), top)]


def test_of_several_objectives_the_front_comes_first_then_the_next_each_by_the_first_objective() -> None:
    values = [(0.9, 10.0), (0.8, 5.0), (0.85, 12.0), (0.95, 30.0), (0.7, 20.0)]
    trials = [complete(number, POINT, *pair) for number, pair in enumerate(values)]
    # 3, 0 and 1 are beaten by none, 2 by 0, and 4 by 2. The first objective alone would have 2 before 1.
    assert order(sweep_of(objectives=TWO), trials) == [3, 0, 1, 2, 4]
    assert order(sweep_of(objectives=TWO), trials, 2) == [3, 0]
    assert order(sweep_of(objectives=TWO), trials, 4) == [3, 0, 1, 2]
    assert order(sweep_of(objectives=TWO[:1]), [complete(n, POINT, a) for n, (a, _) in enumerate(values)]) == [
        3,
        0,
        2,
        1,
        4,
    ]


def test_a_point_that_another_one_beats_is_never_the_best() -> None:
    trials = [complete(0, POINT, 0.9, 20.0), complete(1, POINT, 0.9, 10.0)]
    assert order(sweep_of(objectives=TWO), trials) == [1, 0]


def test_a_point_beyond_a_constraint_is_not_ranked() -> None:
    bounded = (Constraint("bytes", max=1.0),)
    trials = [complete(0, POINT, 0.99, 1.0, constraints=(2.0,)), complete(1, POINT, 0.5, 9.0, constraints=(1.0,))]
    two = sweep_of(objectives=TWO, constraints=bounded)
    assert order(two, trials) == [1]
    assert [one.number for one in pareto_front(two, fold(two, trials))] == [1]
    one = [complete(0, POINT, 0.99, constraints=(2.0,)), complete(1, POINT, 0.5, constraints=(1.0,))]
    assert order(sweep_of(constraints=bounded), one) == [1]
    assert order(sweep_of(constraints=bounded), one[:1]) == []


def better(pairs: list[tuple[float, float]]) -> list[int]:
    """Return which of points that end one after the other enlarge the front, of two objectives that are minimised."""
    sweep = sweep_of(objectives=(Objective("a", "minimize"), Objective("b", "minimize")))
    return improvements(sweep, fold(sweep, [complete(n, POINT, *pair) for n, pair in enumerate(pairs)]))


def test_a_point_enlarges_the_front_if_none_before_is_as_good_in_all() -> None:
    assert better([]) == []
    assert better([(3, 3), (4, 4), (2, 2), (2, 2), (3, 1)]) == [0, 2, 4]
    # The third one beats the first, and the fourth is as good as the second, which is still of the front.
    assert better([(3, 4), (4, 3), (2, 4), (4, 3)]) == [0, 1, 2]


def test_one_objective_has_one_layer_and_nothing_has_none() -> None:
    trials = [complete(number, POINT, value, 1.0) for number, value in enumerate((0.5, 0.9))]
    assert layers(sweep_of(), fold(sweep_of(), trials)) == [0, 0]
    assert layers(sweep_of(objectives=TWO), []) == layers(sweep_of(), []) == []


def test_layers_are_the_fronts_of_optunas_studies_one_after_the_other() -> None:
    values = np.random.default_rng(3).integers(0, 12, (60, 2)).astype(float)
    sweep = sweep_of(objectives=TWO)
    told = layers(sweep, fold(sweep, [complete(number, POINT, *pair) for number, pair in enumerate(values)]))
    left, layer = dict(enumerate(values)), 0
    while left:
        study = optuna.create_study(directions=["maximize", "minimize"])
        study.add_trials([optuna.trial.create_trial(values=list(pair)) for pair in left.values()])
        numbers = list(left)
        front = [numbers[trial.number] for trial in study.best_trials]
        assert front == [number for number in left if told[number] == layer]
        left = {number: pair for number, pair in left.items() if number not in front}
        layer += 1
    assert layer > 5
