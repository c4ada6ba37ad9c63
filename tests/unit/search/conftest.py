"""Optuna says nothing in tests of the search."""

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)
