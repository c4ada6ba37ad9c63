"""Suggestions: the same as Optuna's, the same anywhere, and none of the traps of samplers that are made anew."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from cmaes import CMA
from numpy.typing import NDArray
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from scipy.stats import qmc
from scipy.stats.qmc import Sobol

from anomaly_search import points
from anomaly_search.samplers.grid import untried
from anomaly_search.samplers.optuna_samplers import random, tpe_sampler
from anomaly_search.samplers.seeding import seed_of
from anomaly_search.samplers.sobol import sobol
from anomaly_search.space import Choices, FloatRange, IntRange, Parameter, Space
from anomaly_search.suggest import Exhausted, Suggestion, suggest
from anomaly_search.sweep import Algorithm, AlgorithmName, Constraint, Fidelity, Limits, Objective, Sweep
from anomaly_search.trials import State, Trial
from support.sweeps import CONDITIONAL, FINITE, PLANE, bowl, complete, run, sweep_of

SPACES: dict[AlgorithmName, Space] = {
    "tpe": CONDITIONAL,
    "random": CONDITIONAL,
    "sobol": CONDITIONAL,
    "cmaes": PLANE,
}
ROOT = Path(__file__).parents[3]
STATEFUL: tuple[AlgorithmName, ...] = ("random", "sobol", "tpe", "cmaes")


def point(sweep: Sweep, trials: list[Trial], number: int) -> Mapping[str, Any]:
    suggestion = suggest(sweep, trials, number)
    assert isinstance(suggestion, Suggestion)
    return suggestion.parameters


def branches(trial: optuna.Trial) -> float:
    """The space CONDITIONAL as Optuna's users write it."""
    model = trial.suggest_categorical("model", [0, 1])
    if model == 0:
        ratio = trial.suggest_float("ratio", 0.01, 0.25, log=True)
        value = -abs(ratio - 0.1) - 0.01 * trial.suggest_int("neighbours", 1, 50, log=True)
    else:
        value = -abs(trial.suggest_int("features", 50, 550) - 300) / 1000
    return value + 0.1 * trial.suggest_categorical("size", [0, 1])


def heights(parameters: Mapping[str, Any]) -> float:
    """The same value for a point of CONDITIONAL."""
    if parameters["model"] == "patchcore":
        value = -abs(parameters["ratio"] - 0.1) - 0.01 * parameters["neighbours"]
    else:
        value = -abs(parameters["features"] - 300) / 1000
    return float(value + 0.1 * (parameters["size"] == {"height": 384}))


def optimized(
    trials: int, sampler: Callable[[int], BaseSampler], objective: Callable[[optuna.Trial], float], before: list[Any]
) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of study.optimize, whose sampler is seeded for each trial as ours is."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(before)
    for number in range(len(before), trials):
        study.sampler = sampler(seed_of(7, number))
        study.optimize(objective, n_trials=1)
    return study.trials


def in_optuna(trials: list[Trial]) -> list[optuna.trial.FrozenTrial]:
    """Return complete trials as Optuna's users make them."""
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "x": optuna.distributions.FloatDistribution(-5, 5),
        "y": optuna.distributions.FloatDistribution(-5, 5),
        "model": optuna.distributions.CategoricalDistribution((0, 1)),
        "ratio": optuna.distributions.FloatDistribution(0.01, 0.25, log=True),
        "neighbours": optuna.distributions.IntDistribution(1, 50, log=True),
        "features": optuna.distributions.IntDistribution(50, 550),
        "size": optuna.distributions.CategoricalDistribution((0, 1)),
    }
    places: dict[str, list[Any]] = {
        "model": ["patchcore", "padim"],
        "size": [{"height": 256}, {"height": 384}],
    }
    made = []
    for trial in trials:
        params = {
            path: places[path].index(value) if path in places else value for path, value in trial.parameters.items()
        }
        made.append(
            optuna.trial.create_trial(
                params=params, distributions={path: distributions[path] for path in params}, value=trial.objectives[0]
            )
        )
    return made


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tpe_suggests_what_optuna_does_in_a_conditional_space() -> None:
    begun = run(sweep_of(CONDITIONAL), 10, heights)

    ours = run(sweep_of(CONDITIONAL), 20, heights, begun)
    theirs = optimized(
        30, lambda seed: TPESampler(seed=seed, multivariate=True, group=True), branches, in_optuna(begun)
    )

    chosen = {"model": ("patchcore", "padim"), "size": ({"height": 256}, {"height": 384})}
    for own, other in zip(ours[10:], theirs[10:], strict=True):
        expected = {path: chosen[path][value] if path in chosen else value for path, value in other.params.items()}
        assert own.parameters == expected


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tpe_has_its_settings() -> None:
    """It learns from the third trial on, of few candidates each time."""
    sweep = sweep_of(algorithm=Algorithm("tpe", 7, startup_trials=3, candidates=5))
    ours = run(sweep, 12, bowl)
    evenly = run(sweep_of(algorithm=Algorithm("sobol", 7)), 3, bowl)
    assert [trial.parameters for trial in ours[:3]] == [trial.parameters for trial in evenly]

    def objective(trial: optuna.Trial) -> float:
        return bowl({name: trial.suggest_float(name, -5, 5) for name in "xy"})

    def sampler(seed: int) -> TPESampler:
        return TPESampler(seed=seed, n_startup_trials=3, n_ei_candidates=5, multivariate=True, group=True)

    theirs = optimized(12, sampler, objective, in_optuna(evenly))
    assert [trial.parameters for trial in ours] == [trial.params for trial in theirs]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tpe_suggests_what_optuna_does_of_numbers_in_steps() -> None:
    """0, 0.25, 0.5 and 0.75, which are the same however they are computed."""
    space = Space((Parameter("a", FloatRange(0.0, 0.9, step=0.25)), Parameter("x", FloatRange(-5.0, 5.0))))
    sweep = sweep_of(space, algorithm=Algorithm("tpe", 7, startup_trials=3))
    ours = run(sweep, 12, value_in_steps)
    stepped = optuna.distributions.FloatDistribution(0.0, 0.75, step=0.25)
    distributions = {"a": stepped, "x": optuna.distributions.FloatDistribution(-5, 5)}
    begun = [
        optuna.trial.create_trial(params={**trial.parameters}, distributions={**distributions}, value=value)
        for trial in ours[:3]
        for value in trial.objectives
    ]

    def objective(trial: optuna.Trial) -> float:
        return value_in_steps({"a": trial.suggest_float("a", 0, 0.75, step=0.25), "x": trial.suggest_float("x", -5, 5)})

    theirs = optimized(
        12, lambda seed: TPESampler(seed=seed, n_startup_trials=3, multivariate=True, group=True), objective, begun
    )
    for own, other in zip(ours, theirs, strict=True):
        assert own.parameters == pytest.approx(other.params)


def value_in_steps(parameters: Mapping[str, Any]) -> float:
    return float(-abs(parameters["a"] - 0.5) - abs(parameters["x"]))


def test_random_suggests_what_optuna_does() -> None:
    ours = run(sweep_of(CONDITIONAL, algorithm=Algorithm("random", 7)), 20, heights)
    theirs = optimized(20, lambda seed: RandomSampler(seed=seed), branches, [])
    for own, other in zip(ours, theirs, strict=True):
        assert own.objectives == (other.value,)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_sobol_suggests_what_optuna_does(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space(
        (Parameter("a", FloatRange(0, 1)), Parameter("b", IntRange(1, 64, log=True)), Parameter("c", IntRange(0, 9)))
    )
    ours = run(sweep_of(space, algorithm=Algorithm("sobol", 7)), 32, lambda _: 0.0)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("a", 0, 1), trial.suggest_int("b", 1, 64, log=True), trial.suggest_int("c", 0, 9)
        return 0.0

    # Optuna seeds the scrambling by SciPy's older argument, which means another generator.
    monkeypatch.setattr(qmc, "Sobol", lambda d, seed, scramble: Sobol(d, rng=seed, scramble=scramble))
    study = optuna.create_study(sampler=QMCSampler(scramble=True, seed=7, warn_independent_sampling=False))
    study.optimize(objective, n_trials=33)
    # Optuna draws its first trial at random, to see what parameters there are.
    for own, other in zip(ours, study.trials[1:], strict=True):
        assert own.parameters == pytest.approx(other.params)


def test_cma_es_suggests_what_the_package_does_in_one_go() -> None:
    optimizer = CMA(mean=np.full(2, 0.5), sigma=1 / 6, bounds=np.tile([0.0, 1.0], (2, 1)), seed=7)
    expected: list[NDArray[np.float64]] = []
    for _generation in range(5):
        solutions = []
        for _ in range(optimizer.population_size):
            optimizer.reseed_rng(seed_of(7, len(expected)))
            cube = optimizer.ask()
            expected.append(cube * 10 - 5)
            solutions.append((cube, -bowl(dict(zip("xy", expected[-1], strict=True)))))
        optimizer.tell(solutions)

    ours = run(sweep_of(algorithm=Algorithm("cmaes", 7)), len(expected), bowl)

    for own, other in zip(ours, expected, strict=True):
        assert list(own.parameters.values()) == pytest.approx(other, abs=1e-9)


PURE = """
import json, sys
from support.sweeps import *
from anomaly_search.sweep import Algorithm
from anomaly_search.suggest import suggest
from anomaly_search.trials import Trial, State
told = json.load(sys.stdin)
found = []
for name, space in dict(tpe=CONDITIONAL, random=CONDITIONAL, sobol=CONDITIONAL, cmaes=PLANE).items():
    trials = [complete(n, p, v) for n, p, v in told[name]] + [Trial(40, told[name][3][1], State.RUNNING)]
    found.append(suggest(sweep_of(space, algorithm=Algorithm(name, 7)), trials, 41).parameters)
heavy = ("torch", "kopf", "sqlalchemy", "alembic", "pandas")
print(json.dumps([found, [name for name in heavy if name in sys.modules]]))
"""


def test_a_suggestion_is_the_same_in_any_process_and_light() -> None:
    told: dict[str, Any] = {
        name: [
            (trial.number, trial.parameters, trial.objectives[0])
            for trial in run(sweep_of(CONDITIONAL, algorithm=Algorithm("random", 3)), 30, heights)
        ]
        for name in ("tpe", "random", "sobol")
    }
    told["cmaes"] = [(t.number, t.parameters, t.objectives[0]) for t in run(sweep_of(), 30, bowl)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda seed: elsewhere(told, seed), ("0", "4242")))
    here = [
        point(sweep_of(space, algorithm=Algorithm(name, 7)), known(told[name]), 41) for name, space in SPACES.items()
    ]
    assert answers == [[here, []]] * 2


def known(rows: list[Any]) -> list[Trial]:
    return [*(complete(*row) for row in rows), Trial(40, rows[3][1], State.RUNNING)]


def elsewhere(told: dict[str, Any], hash_seed: str) -> Any:
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("crds", "search", "tests", "."))
    environment = {"PYTHONPATH": paths, "PYTHONHASHSEED": hash_seed, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", PURE]
    done = subprocess.run(
        command, input=json.dumps(told), env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", STATEFUL)
def test_no_algorithm_repeats_itself_or_starts_anew(name: AlgorithmName) -> None:
    """Re-created for each suggestion, Optuna's Sobol returns one point for ever."""
    trials = run(sweep_of(algorithm=Algorithm(name, 7)), 40, bowl)
    assert len({PLANE.key(trial.parameters) for trial in trials}) == 40


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_learning_is_not_lost_between_suggestions(name: AlgorithmName) -> None:
    """Re-created for each suggestion, Optuna's CMA-ES begins from its prior."""
    trials = run(sweep_of(algorithm=Algorithm(name, 7)), 90, bowl)
    first, last = [np.mean([bowl(trial.parameters) for trial in part]) for part in (trials[:30], trials[-30:])]
    assert last > first / 5


def test_sobol_fills_the_square_better_than_chance() -> None:
    sobol, random = (
        [list(trial.parameters.values()) for trial in run(sweep_of(algorithm=Algorithm(name, 7)), 64, bowl)]
        for name in ("sobol", "random")
    )
    assert qmc.discrepancy(np.array(sobol) / 10 + 0.5) < 0.2 * qmc.discrepancy(np.array(random) / 10 + 0.5)


def test_the_first_of_many_parallel_trials_fill_the_square_too() -> None:
    """TPE waits for results: 32 at once would be 32 random points."""
    sweep = sweep_of()
    asked: list[Trial] = []
    for number in range(32):
        asked.append(Trial(number, point(sweep, asked, number), State.RUNNING))
    sobol = run(sweep_of(algorithm=Algorithm("sobol", 7)), 32, bowl)
    assert [trial.parameters for trial in asked] == [trial.parameters for trial in sobol]


def test_parallel_suggestions_keep_away_from_what_is_running() -> None:
    """Optuna's constant liar, which needs the running trials with their parameters."""
    done = run(sweep_of(), 60, bowl)
    crowd = [Trial(number, {"x": 1.0, "y": -2.0}, State.RUNNING) for number in range(60, 90)]

    def beside_it(trials: list[Trial]) -> int:
        found = [point(sweep_of(), trials, number) for number in range(300, 330)]
        return sum(np.hypot(p["x"] - 1, p["y"] + 2) < 0.75 for p in found)

    assert beside_it(done) >= 3
    assert beside_it([*done, *crowd]) == 0


def out_of_memory(teach: State) -> int:
    """Return how many of 60 trials run out of memory where that is told as a state."""
    sweep = sweep_of()
    trials: list[Trial] = []
    for number in range(60):
        parameters = point(sweep, trials, number)
        # The best values are beyond what fits.
        if parameters["x"] > 0:
            trials.append(Trial(number, parameters, teach))
        else:
            trials.append(complete(number, parameters, bowl(parameters)))
    return sum(trial.state is teach for trial in trials)


def test_what_ran_out_of_memory_is_not_asked_again_and_again() -> None:
    assert out_of_memory(State.INFEASIBLE) < 0.65 * out_of_memory(State.FAILED)


def test_failed_trials_keep_the_numbers_of_the_others() -> None:
    """Dropping them would shift all numbers behind, and with them the seeds."""
    sweep, done = sweep_of(algorithm=Algorithm("random", 7)), run(sweep_of(), 3, bowl)
    failed = [replace(done[0], state=State.FAILED), *done[1:]]
    assert point(sweep, failed, 3) == point(sweep, done, 3)


def test_a_failed_point_is_not_asked_for_again() -> None:
    sweep = sweep_of(FINITE, algorithm=Algorithm("random", 7))
    failed = [Trial(n, points.point_at(FINITE, n), State.FAILED) for n in range(13)]
    assert point(sweep, failed, 13) == points.point_at(FINITE, 13)


@pytest.mark.parametrize("name", ["random", "sobol", "tpe", "grid"])
def test_a_finite_space_is_tried_without_repetition_and_then_exhausted(name: AlgorithmName) -> None:
    sweep = sweep_of(FINITE, algorithm=Algorithm(name, 7))
    trials = run(sweep, 14, lambda parameters: float(len(str(parameters))))
    assert Counter(FINITE.key(trial.parameters) for trial in trials) == Counter(
        FINITE.key(points.point_at(FINITE, index)) for index in range(14)
    )
    assert suggest(sweep, trials, 14) == Exhausted()


def test_a_point_that_cannot_be_avoided_comes_with_the_trial_that_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(sweep_of(), 3, bowl)
    monkeypatch.setattr("anomaly_search.suggest._draw", lambda *_: dict(done[1].parameters))
    assert suggest(sweep_of(), done, 3) == Suggestion(done[1].parameters, known=1)


@pytest.mark.parametrize("name", ["random", "sobol"])
def test_a_repeated_point_is_drawn_anew_with_other_seeds(name: AlgorithmName) -> None:
    sweep = sweep_of(FINITE, algorithm=Algorithm(name, 7))
    drawn = [random(sweep, seed_of(7, 20, attempt)) for attempt in range(8)]
    if name == "sobol":
        drawn[0] = sobol(sweep, 20)
    for skipped in (1, 2, 4):
        tried = [FINITE.key(one) for one in drawn[:skipped]]
        expected = next(one for one in drawn if FINITE.key(one) not in tried)
        known = [Trial(number, one, State.FAILED) for number, one in enumerate(drawn[:skipped])]
        assert suggest(sweep, known, 20) == Suggestion(expected)


def test_one_of_the_points_that_are_left_is_taken_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 14 points 3, 4 and 9 are left."""
    sweep = sweep_of(FINITE, algorithm=Algorithm("random", 7))
    tried = [place for place in range(14) if place not in (3, 4, 9)]
    known = [Trial(number, points.point_at(FINITE, place), State.FAILED) for number, place in enumerate(tried)]
    elsewhere = [Trial(90, {"model": "padim", "features": 75, "size": {"height": 256}}, State.FAILED)]
    asked = Counter[int]()

    def draw(*arguments: Any) -> dict[str, Any]:
        asked[arguments[3]] += 1
        return points.point_at(FINITE, 0)

    monkeypatch.setattr("anomaly_search.suggest._draw", draw)
    for number in (20, 21, 22, 23, 24):
        chosen = (3, 4, 9)[np.random.default_rng(seed_of(7, number, 8)).integers(3)]
        assert suggest(sweep, known + elsewhere, number) == Suggestion(points.point_at(FINITE, chosen))
    assert asked == dict.fromkeys(range(8), 5), "after as many attempts"


def test_nothing_is_drawn_of_a_space_without_another_point() -> None:
    known = [points.point_at(FINITE, place) for place in range(14)]
    assert untried(FINITE, known, 7) is None
    assert untried(FINITE, known[:13], 7) == known[13]


def test_no_algorithm_is_asked_of_a_space_without_another_point(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [Trial(number, points.point_at(FINITE, number), State.FAILED) for number in range(14)]
    monkeypatch.setattr("anomaly_search.suggest._draw", lambda *_: pytest.fail("each time takes half a second"))
    assert suggest(sweep_of(FINITE, algorithm=Algorithm("random", 7)), known, 14) == Exhausted()


def test_what_a_start_point_leaves_out_is_that_of_its_place_in_the_sequence() -> None:
    sweep = sweep_of(start=({"x": 1.0}, {"x": 2.0}, {"y": 3.0}))
    evenly = Sobol(2, scramble=True, rng=7).random(4)[:3] * 10 - 5
    found = [point(sweep, [], number) for number in range(3)]
    assert [one["x"] for one in found] == [1.0, 2.0, pytest.approx(evenly[2][0])]
    assert [one["y"] for one in found] == [pytest.approx(evenly[0][1]), pytest.approx(evenly[1][1]), 3.0]


def test_an_infinite_space_repeats_a_point_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(sweep_of(), 2, bowl)
    drawn = iter([done[0], done[1]] * 4)
    monkeypatch.setattr("anomaly_search.suggest._draw", lambda *_: dict(next(drawn).parameters))
    assert suggest(sweep_of(), done, 3) == Suggestion(done[1].parameters, known=1), "the last one that was drawn"


def test_a_number_that_was_deleted_gets_its_point_again() -> None:
    sweep = sweep_of(algorithm=Algorithm("sobol", 7))
    trials = run(sweep, 8, bowl)
    assert point(sweep, [*trials[:5], *trials[6:]], 5) == trials[5].parameters
    assert point(sweep, trials, 5) == trials[5].parameters


def test_the_order_in_which_trials_are_listed_does_not_matter() -> None:
    trials = run(sweep_of(CONDITIONAL), 20, heights)
    assert point(sweep_of(CONDITIONAL), trials[::-1], 20) == point(sweep_of(CONDITIONAL), trials, 20)


def test_values_need_their_full_precision() -> None:
    """Rounded to six digits, as a table prints them, they lead elsewhere; written as JSON they do not."""
    trials = run(sweep_of(), 20, bowl)
    written = [replace(trial, parameters=json.loads(json.dumps(trial.parameters))) for trial in trials]
    rounded = [
        replace(trial, parameters={path: float(f"{value:.6g}") for path, value in trial.parameters.items()})
        for trial in trials
    ]
    assert point(sweep_of(), written, 20) == point(sweep_of(), trials, 20)
    assert point(sweep_of(), rounded, 20) != point(sweep_of(), trials, 20)


def test_constraints_count_by_their_bounds_not_by_their_units() -> None:
    """TPE adds violations up: in bytes one would drown the other in milliseconds. Here no point is within both."""

    def suggested(bytes_a_unit: float) -> Mapping[str, Any]:
        constraints = (Constraint("bytes", max=bytes_a_unit), Constraint("milliseconds", max=2.0))
        trials = [
            replace(trial, constraints=((8 + trial.parameters["x"]) * bytes_a_unit, 12 - trial.parameters["x"]))
            for trial in run(sweep_of(), 30, bowl)
        ]
        return point(sweep_of(constraints=constraints), trials, 30)

    assert suggested(1) == suggested(1024.0**3)


def test_constraints_keep_the_search_where_they_hold() -> None:
    sweep = sweep_of(constraints=(Constraint("bytes", max=3e8),))
    trials: list[Trial] = []
    for number in range(60):
        parameters = point(sweep, trials, number)
        trials.append(complete(number, parameters, bowl(parameters), constraints=(3e8 + 1e8 * parameters["x"],)))
    # Without the constraint nearly all late points lie about x = 1.
    assert sum(trial.parameters["x"] <= 0 for trial in trials[-20:]) >= 12


def test_low_rungs_teach() -> None:
    """Nothing has reached the full fidelity, and yet it is known where to look."""
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0)))
    near = [np.hypot(p["x"] - 1, p["y"] + 2) for p in (t.parameters for t in run(sweep, 60, bowl)[-20:])]
    random = [np.hypot(p["x"] - 1, p["y"] + 2) for p in (t.parameters for t in run(sweep_of(), 10, bowl))]
    assert np.median(near) < 0.5 * np.median(random)


def test_pruned_trials_teach_by_their_curves() -> None:
    pruned = [
        replace(trial, state=State.PRUNED, objectives=(), curve={0: -50.0, 1: trial.objectives[0] or 0.0})
        for trial in run(sweep_of(), 40, bowl)
    ]
    near = point(sweep_of(), pruned, 40)
    assert np.hypot(near["x"] - 1, near["y"] + 2) < 2.5


def test_low_rungs_do_not_break_a_search_for_several_objectives() -> None:
    sweep = sweep_of(fidelity=Fidelity((0.25, 1.0)), objectives=(Objective("a"), Objective("b", "minimize")))
    trials = [complete(n, {"x": n / 10, "y": 0.0}, n, n, rung=n % 2) for n in range(24)]
    trials += [Trial(24, {"x": 4.0, "y": 4.0}, State.PRUNED, curve={3: 0.5})]
    assert PLANE.restrict(point(sweep, trials, 25))


@pytest.mark.parametrize("infeasible", [0, 20])
def test_several_objectives_are_searched(infeasible: int) -> None:
    sweep = sweep_of(objectives=(Objective("a"), Objective("b", "minimize")))
    trials = [
        complete(n, p.parameters, p.parameters["x"], p.parameters["y"]) for n, p in enumerate(run(sweep_of(), 40, bowl))
    ]
    trials = [
        replace(trial, state=State.INFEASIBLE, objectives=()) if trial.number < infeasible else trial
        for trial in trials
    ]
    found = [point(sweep, trials, number) for number in range(40, 50)]
    # The best of both is at x = 5, y = -5.
    assert np.mean([p["x"] for p in found]) > 1
    assert np.mean([p["y"] for p in found]) < -1


def test_start_points_come_first_and_are_completed() -> None:
    sweep = sweep_of(start=({"x": 3.0, "y": 4.0}, {"y": -1.0}))
    trials = run(sweep, 3, bowl)
    assert trials[0].parameters == {"x": 3.0, "y": 4.0}
    assert trials[1].parameters["y"] == -1.0
    assert PLANE.restrict(trials[1].parameters)
    assert trials[2].parameters["y"] not in (4.0, -1.0)


def test_a_grid_does_not_repeat_its_start_points() -> None:
    start = points.point_at(FINITE, 5)
    sweep = sweep_of(FINITE, algorithm=Algorithm("grid"), start=(start, points.point_at(FINITE, 0)))
    numbers = [points.place_of(FINITE, trial.parameters) for trial in run(sweep, 14, lambda _: 0.0)]
    assert numbers == [5, 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13]
    assert suggest(sweep, [], 14) == Exhausted()


def test_many_trials_lead_where_optunas_own_storage_does() -> None:
    generator = np.random.default_rng(0)
    trials = [
        complete(n, (p := dict(zip("xy", generator.uniform(-5, 5, 2).tolist(), strict=True))), bowl(p))
        for n in range(1000)
    ]
    study = optuna.create_study(direction="maximize", sampler=_tpe(seed_of(7, 1000)))
    study.add_trials(in_optuna(trials))
    asked = study.ask()
    expected = {"x": asked.suggest_float("x", -5, 5), "y": asked.suggest_float("y", -5, 5)}
    assert point(sweep_of(limits=Limits(3000)), trials, 1000) == expected


def _tpe(seed: int) -> TPESampler:
    return tpe_sampler(Algorithm(), seed)


@pytest.mark.parametrize("name", ["grid", "random", "sobol", "tpe", "cmaes"])
def test_stepped_numbers_are_as_people_write_them(name: AlgorithmName) -> None:
    space = Space((Parameter("a", FloatRange(0.1, 0.75, step=0.1)), Parameter("b", IntRange(3, 11, step=4))))
    trials = run(sweep_of(space, algorithm=Algorithm(name, 7)), 21, lambda p: float(p["a"]))
    expected = {(a, b) for a in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7) for b in (3, 7, 11)}
    assert {(trial.parameters["a"], trial.parameters["b"]) for trial in trials} == expected


def test_tpe_may_begin_without_waiting() -> None:
    sweep = sweep_of(CONDITIONAL, algorithm=Algorithm("tpe", 7, startup_trials=0))
    assert all(CONDITIONAL.restrict(trial.parameters) for trial in run(sweep, 5, heights))


def test_choices_may_be_anything() -> None:
    values = (None, True, 1, "1", [1, {"a": None}], {"b": 0.5})
    space = Space((Parameter("a", Choices(values)), Parameter("b", FloatRange(0, 1))))
    trials = run(sweep_of(space), 40, lambda p: float(p["a"] == [1, {"a": None}]))
    assert all(trial.parameters["a"] in values for trial in trials)
    assert sum(trial.parameters["a"] == [1, {"a": None}] for trial in trials[20:]) > 6
