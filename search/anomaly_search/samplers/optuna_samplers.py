"""Optuna's own TPE and random sampler, made anew for each suggestion."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from anomaly_search.samplers.rows import directions
from anomaly_search.samplers.storage import study_of
from anomaly_search.space import Choices, IntRange, Parameter, Value, is_active
from anomaly_search.sweep import Algorithm, Sweep


def random(sweep: Sweep, seed: int) -> dict[str, Value]:
    """Return a point drawn evenly."""
    return _ask(sweep, [], RandomSampler(seed=seed))


def tpe(sweep: Sweep, rows: Sequence[FrozenTrial], seed: int) -> dict[str, Value] | None:
    """Return the point that TPE suggests; None while there are too few results to learn from."""
    finished = sum(row.state in (TrialState.COMPLETE, TrialState.PRUNED) for row in rows)
    if finished < sweep.algorithm.startup_trials:
        return None
    return _ask(sweep, rows, tpe_sampler(sweep.algorithm, seed))


def tpe_sampler(algorithm: Algorithm, seed: int) -> TPESampler:
    """Return the sampler: parameters together, those under the same condition as a group, parallel trials apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # `group`: the only way with conditions, since 2020
        return TPESampler(
            n_startup_trials=algorithm.startup_trials,
            n_ei_candidates=algorithm.candidates,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )


def _ask(sweep: Sweep, rows: Sequence[FrozenTrial], sampler: BaseSampler) -> dict[str, Value]:
    trial = study_of(rows, directions(sweep), sampler).ask()
    point: dict[str, Value] = {}
    for parameter in sweep.space.parameters:
        if is_active(parameter, point):
            point[parameter.path] = _suggested(trial, parameter)
    return point


def _suggested(trial: Trial, parameter: Parameter) -> Value:
    domain, path = parameter.domain, parameter.path
    if isinstance(domain, Choices):
        return domain.at(trial.suggest_categorical(path, tuple(range(domain.size))))
    if isinstance(domain, IntRange):
        return trial.suggest_int(path, domain.low, domain.at(domain.size - 1), log=domain.log, step=domain.step)
    if domain.size is None:
        return trial.suggest_float(path, domain.low, domain.high, log=domain.log)
    stepped = trial.suggest_float(path, domain.low, domain.at(domain.size - 1), step=domain.step)
    place = domain.index(stepped)
    assert place is not None
    return domain.at(place)
