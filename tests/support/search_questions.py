"""A sweep of padim's features, its trials, and what the search is asked about them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from anomaly_api.sweep_exchange import TrialRecord
from anomaly_operator.decide.trials import SeenTrial
from anomaly_operator.search_worker import Question

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FEATURES = "model.padim.nFeatures"
SPEC: dict[str, Any] = {
    "dataset": {"source": {"s3": {"uri": "s3://factory"}}},
    "model": {"name": "padim"},
    "output": {"s3": {"uri": "s3://results"}},
    "sweep": {
        "parameters": [{"path": FEATURES, "int": {"low": 1, "high": 100}}],
        "algorithm": {"name": "random", "seed": 7},
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
        "trials": {"max": 10, "parallel": 3},
    },
}


def with_sweep(**changes: Any) -> dict[str, Any]:
    """Return the spec with fields of its sweep replaced."""
    return SPEC | {"sweep": SPEC["sweep"] | changes}


def question(experiment: dict[str, Any] = SPEC, **changes: Any) -> Question:
    """Return a question about the sweep ``u``."""
    asked = Question(
        sweep_uid="u",
        name="sweep",
        spec=json.dumps(experiment).encode(),
        earlier=(),
        search_run=1,
        now=NOW,
        began=None,
        removed_hours=0.0,
        end=None,
        counts_hours=False,
    )
    return asked._replace(**changes)


def trial(number: int, hours: float = 0.0, auroc: float | None = None, version: int = 1) -> SeenTrial:
    """Return a trial that is at work, or complete with an AUROC."""
    record = TrialRecord(
        number,
        0,
        0,
        values={FEATURES: 10 + number},
        state="Running" if auroc is None else "Complete",
        metrics={} if auroc is None else {"image.AUROC": auroc},
        gpu_hours=hours,
        started=NOW - timedelta(hours=1),
        ended=None if auroc is None else NOW,
    )
    return SeenTrial(f"sweep-t{number}", version, "s", 1, record)
