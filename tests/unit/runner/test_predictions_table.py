"""The table of predictions by hand, in both of its files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anomaly_api.status import MetricValues, ThresholdValues
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.reporting.tables import prediction_rows, write_tables
from anomaly_runner.scoring.predict import Predictions

SAMPLES = (
    Sample("a, b.png", "good"),
    Sample("test/d\u00e9/b\n.png", "d\u00e9"),
    Sample("test/good/c.png", "good"),
    Sample("x/d.png", "unknown"),
)
TYPES = {
    "path": pa.string(),
    "label": pa.string(),
    "defect": pa.bool_(),
    "score": pa.float32(),
    "normalized_score": pa.float64(),
    "anomalous": pa.bool_(),
    "wrong": pa.bool_(),
    "good_below": pa.float64(),
}


def evaluated(good_below: list[float] | None) -> EvaluationResult:
    thresholds = ThresholdValues(image=2.0)
    return EvaluationResult(
        thresholds=thresholds,
        metrics=MetricValues(),
        normalizer=ScoreNormalizer("none", thresholds, {}),
        anomalous=np.array([False, False, True, True]),
        normalized_scores=np.array([0.1, 0.2, 0.6, 0.9]),
        confusion=None,
        labels={},
        good_below=None if good_below is None else np.array(good_below),
    )


@pytest.mark.parametrize("good_below", [None, [0.0, 0.25, 0.5, 1.0]])
def test_both_files_have_a_row_for_each_image(tmp_path: Path, good_below: list[float] | None) -> None:
    """A score is a float32, which both files have exactly; what is not known is empty."""
    scores = np.array([0.1, 1.5, 2.5, 3], np.float32)
    rows = prediction_rows(Predictions(SAMPLES, scores, None, None), evaluated(good_below))
    write_tables(rows, tmp_path)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == TYPES
    assert table.to_pydict() == {
        "path": ["a, b.png", "test/d\u00e9/b\n.png", "test/good/c.png", "x/d.png"],
        "label": ["good", "d\u00e9", "good", "unknown"],
        "defect": [False, True, False, None],
        "score": [0.10000000149011612, 1.5, 2.5, 3],
        "normalized_score": [0.1, 0.2, 0.6, 0.9],
        "anomalous": [False, False, True, True],
        "wrong": [False, True, True, None],
        "good_below": [None] * 4 if good_below is None else good_below,
    }
    shares = [""] * 4 if good_below is None else [str(share) for share in good_below]
    assert (tmp_path / "predictions.csv").read_bytes().decode().split("\r\n") == [
        "path,label,defect,score,normalized_score,anomalous,wrong,good_below",
        f'"a, b.png",good,false,0.10000000149011612,0.1,false,false,{shares[0]}',
        f'"test/d\u00e9/b\n.png",d\u00e9,true,1.5,0.2,false,true,{shares[1]}',
        f"test/good/c.png,good,false,2.5,0.6,true,true,{shares[2]}",
        f"x/d.png,unknown,,3.0,0.9,true,,{shares[3]}",
        "",
    ]
