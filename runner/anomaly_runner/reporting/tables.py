"""Write the table of predictions, one row an image, as Parquet and CSV, for programs."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.scoring.predict import Predictions

COLUMNS = ("path", "label", "defect", "score", "normalized_score", "anomalous", "wrong", "good_below")


def prediction_rows(predictions: Predictions, evaluated: EvaluationResult) -> Mapping[str, list[Any]]:
    """Make the columns of the table, by name.

    ``defect`` and ``wrong`` are None for images whose label is unknown; ``score`` is the raw float32 score, and
    ``normalized_score`` is on the scale of the experiment's evaluation.normalization. ``good_below`` is the share of
    good images held out in training that score lower, 0..1; None if it is not known.
    """
    defect = [sample.defect for sample in predictions.samples]
    anomalous = [bool(decision) for decision in evaluated.anomalous]
    return {
        "path": [sample.key for sample in predictions.samples],
        "label": [sample.label for sample in predictions.samples],
        "defect": defect,
        "score": [float(score) for score in predictions.scores],
        "normalized_score": [float(score) for score in evaluated.normalized_scores],
        "anomalous": anomalous,
        "wrong": [
            None if truth is None else truth != decision for truth, decision in zip(defect, anomalous, strict=True)
        ],
        "good_below": [None] * len(defect) if evaluated.good_below is None else evaluated.good_below.tolist(),
    }


def write_tables(rows: Mapping[str, list[Any]], folder: Path) -> None:
    """Write predictions.parquet and predictions.csv."""
    _write_parquet(rows, folder / "predictions.parquet")
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(zip(*(map(_cell, rows[name]) for name in COLUMNS), strict=True))


def _cell(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _write_parquet(rows: Mapping[str, list[Any]], file: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        {
            "path": pyarrow.string(),
            "label": pyarrow.string(),
            "defect": pyarrow.bool_(),
            "score": pyarrow.float32(),
            "normalized_score": pyarrow.float64(),
            "anomalous": pyarrow.bool_(),
            "wrong": pyarrow.bool_(),
            "good_below": pyarrow.float64(),
        }
    )
    pyarrow.parquet.write_table(pyarrow.table(dict(rows), schema), file)
