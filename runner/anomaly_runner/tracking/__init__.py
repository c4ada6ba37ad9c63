"""Experiment tracking in MLflow: a run's parameters, metrics, artifacts and model. Must never delay a stage."""
