"""Stage evaluate: thresholds, metrics and their confidence intervals from raw scores.

Nothing here reads an image, runs a model or draws.
"""
