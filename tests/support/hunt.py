"""The sweep ``hunt`` of tests on a real API server: a parabola over one parameter, whose trials are played."""

from collections.abc import Callable, Mapping
from typing import Any

from support.fake_kubelet import experiment
from support.kube import Manifest, Namespace

BEST = 37
"""Where the played objective has its maximum."""


def score(values: Mapping[str, Any]) -> float:
    """Return the played AUROC: a parabola."""
    features: int = values.get("model.padim.nFeatures", BEST)
    return 1.0 - ((features - BEST) / 100) ** 2


def sweep(name: str = "hunt", *, policy: Manifest | None = None, **fields: Any) -> Manifest:
    """Return the experiment; ``fields`` are of its sweep."""
    block = {
        "parameters": [{"path": "model.padim.nFeatures", "int": {"low": 1, "high": 64}}],
        "algorithm": {"name": "tpe", "seed": 7, "tpe": {"startupTrials": 4}},
        "objectives": [{"metric": "image.AUROC", "goal": "maximize"}],
        "trials": {"max": 12, "parallel": 3},
    }
    return experiment(name, sweep=block | fields, runPolicy=policy or {})


def phase(expected: str, run: int = 1) -> Callable[[Manifest], bool]:
    """Return whether a status is that of this run in this phase."""
    return lambda status: status.get("phase") == expected and status.get("run") == run


def trials(namespace: Namespace) -> list[Manifest]:
    """Return the trials that there are."""
    return namespace.list("aexp", "anomalyops.io/sweep=hunt")


def at_work(namespace: Namespace) -> int:
    """Return how many trials are not over."""
    return sum(trial.get("status", {}).get("phase") not in ("Complete", "Failed") for trial in trials(namespace))
