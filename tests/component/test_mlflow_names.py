"""Names that MLflow's own validation takes."""

import random

import pytest
from mlflow.utils import validation

from anomaly_runner.tracking.mlflow_names import metric_label, mlflow_name

ALPHABET = "aA0_U3:.- %+?#'\"\n\x01\\\u00e9\u0301\u5927\U0001f600"

pytestmark = pytest.mark.filterwarnings("ignore")  # of mlflow's own libraries


def test_mlflow_takes_every_name() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        label = "".join(draw.choices(ALPHABET, k=draw.randint(1, 250)))
        validation._validate_metric_name(f"pixel_F1Score/{metric_label(label)}")
        name = "".join(draw.choices(ALPHABET + "/", k=draw.randint(0, 300)))
        validation._validate_param(mlflow_name(name), "value")
        validation._validate_tag(mlflow_name(name), "value")
