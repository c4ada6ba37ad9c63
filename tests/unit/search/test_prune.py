"""Median stopping: the same as Optuna's pruner."""

import math
from typing import Literal

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_search.prune import MedianPruning, prune

values = st.floats(-10, 10) | st.just(math.nan)
curves = st.dictionaries(st.integers(0, 4), values, max_size=5)


@settings(deadline=None, derandomize=True, database=None, max_examples=200)
@given(
    curves,
    st.lists(curves, max_size=8),
    st.sampled_from(["maximize", "minimize"]),
    st.integers(0, 4),
    st.integers(0, 3),
)
@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_it_stops_what_optunas_median_pruner_stops(
    curve: dict[int, float],
    peers: list[dict[int, float]],
    goal: Literal["maximize", "minimize"],
    after_trials: int,
    after_epochs: int,
) -> None:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=after_trials, n_warmup_steps=after_epochs)
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(direction=goal, pruner=pruner, storage=storage)
    study.add_trials([optuna.trial.create_trial(value=0.0, intermediate_values=peer) for peer in peers])
    trial = study.ask()
    for epoch, value in curve.items():
        trial.report(value, epoch)
    settings_ = MedianPruning(goal, after_trials, after_epochs)
    assert prune(curve, peers, settings_) is bool(trial.should_prune())


@pytest.mark.parametrize(
    ("curve", "stopped"),
    [
        ({}, False),
        ({0: 0.1}, False),
        ({0: 0.1, 1: 0.2}, True),
        ({0: 0.1, 1: 0.8}, False),
        ({0: 0.9, 1: 0.2}, False),
        ({1: 0.6}, False),
        ({1: 0.59}, True),
        ({7: 0.0}, False),
        ({1: math.nan}, True),
    ],
)
def test_the_best_so_far_is_held_against_the_median_of_the_others_at_that_epoch(
    curve: dict[int, float], stopped: bool
) -> None:
    peers = [{0: 0.2, 1: 0.5}, {0: 0.3, 1: 0.6}, {0: 0.4, 1: 0.7}]
    assert prune(curve, peers, MedianPruning(after_trials=3, after_epochs=1)) is stopped


def test_a_few_others_stop_nobody() -> None:
    assert not prune({3: 0.0}, [{3: 1.0}] * 4, MedianPruning(after_trials=5))
    assert prune({3: 0.0}, [{3: 1.0}] * 5, MedianPruning(after_trials=5))
