"""Telling an experiment tracker (MLflow) what a run does and found out. Never delays the work."""
