"""Stage evaluate: thresholds, metrics and their intervals from raw scores.

Numbers alone: nothing here reads an image, runs a model or draws.
"""
