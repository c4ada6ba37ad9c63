"""Sweeps in real pods: what TPE finds among the demo's digits, and what comes of the best."""

import copy
from typing import Any

import pytest

from support.demo import DemoNamespace, sample
from support.kube import Manifest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SECONDS = 900
TOLERANCE = 0.02
"""Of image AUROC: the points that TPE's budget leaves out are no better than this."""


def small(name: str, **sweep: Any) -> Manifest:
    """Return the sample on few digits, without what its trials do not need."""
    manifest = sample("sweep-mnist")
    manifest["metadata"]["name"] = name
    spec = manifest["spec"]
    spec["dataset"]["category"] = "small"
    spec["transforms"]["inputSize"] = {"height": 64, "width": 64}
    spec["scheduling"] = {"gpus": {"count": 0}, "resources": {"requests": {"cpu": "300m", "memory": "1Gi"}}}
    spec["sweep"] |= sweep
    return manifest


def grid() -> list[Manifest]:
    """Return the sample's parameters on a grid of 13 points, some of them of each of its dimensions."""
    parameters: list[Manifest] = copy.deepcopy(sample("sweep-mnist")["spec"]["sweep"]["parameters"])
    for parameter in parameters:
        if parameter["path"] == "model.padim.nFeatures":
            del parameter["int"]
            parameter["choices"] = [10, 30, 60]
        if parameter["path"] == "model.patchcore.coresetSamplingRatio":
            del parameter["float"]
            parameter["choices"] = [0.02, 0.1]
    return parameters


@pytest.fixture(scope="module")
def found(namespace: DemoNamespace) -> dict[str, Manifest]:
    """A sweep by TPE and one over a grid, both run to Complete."""
    exhaustive: Manifest = {"algorithm": {"name": "grid"}, "trials": {"max": 13, "parallel": 3}, "final": "report"}
    namespace.apply(small("tpe"))
    done = {"tpe": namespace.wait_until_complete("aexp", "tpe", SECONDS)}
    namespace.apply(small("grid", parameters=grid(), **exhaustive))
    return done | {"grid": namespace.wait_until_complete("aexp", "grid", SECONDS)}


def best(run: Manifest) -> float:
    value: float = run["status"]["sweep"]["best"][0]["objectives"]["image.AUROC"]
    return value


def test_tpe_finds_what_the_grid_finds(found: dict[str, Manifest]) -> None:
    for name, asked in (("tpe", 12), ("grid", 13)):
        counts = found[name]["status"]["sweep"]
        # The first layers have too few channels for many features: such points are infeasible.
        assert (counts["complete"] + counts["infeasible"], counts["failed"]) == (asked, 0)
    assert best(found["tpe"]) >= best(found["grid"]) - TOLERANCE


def test_the_winner_is_trained_under_the_sweeps_name(namespace: DemoNamespace, found: dict[str, Manifest]) -> None:
    status = found["tpe"]["status"]
    winner = namespace.get("aexp", f"tpe-t{status['sweep']['best'][0]['number']:04d}")
    assert winner["status"]["metrics"]["image"]["AUROC"] == best(found["tpe"])
    assert len(namespace.s3.read(status["artifacts"]["model"])) > 100
    assert "seed" in status["sweep"]["remeasured"]["measuredOn"]
    assert "model" not in found["grid"]["status"]["artifacts"]


def test_an_inference_names_the_sweep(namespace: DemoNamespace, found: dict[str, Manifest]) -> None:
    manifest = sample("mnist-inference")
    manifest["metadata"]["name"] = "by-sweep"
    manifest["spec"]["model"] = {"experiment": "tpe"}
    namespace.apply(manifest)
    done = namespace.wait_until_complete("ainf", "by-sweep", SECONDS)
    assert done["status"]["trainedBy"]["name"] == "tpe"
    assert done["status"]["images"]["predicted"] > 0


def test_a_cheap_look_at_all_and_a_full_one_at_the_best(namespace: DemoNamespace) -> None:
    halves = {"path": "dataset.fraction", "values": [0.5, 1.0], "reduction": 3}
    limits = {"max": 6, "parallel": 3}
    namespace.apply(small("asha", fidelity=halves, trials=limits, final="report"))
    done = namespace.wait_until_complete("aexp", "asha", SECONDS)
    rungs = [trial["spec"]["trial"]["rung"] for trial in namespace.list("aexp", "anomalyops.io/sweep=asha")]
    # The best third of those measured so far goes on, so that one may that is none of the best at the end.
    assert rungs.count(0) == 6
    assert 2 <= rungs.count(1) < 6
    assert done["status"]["sweep"]["asked"] == 6
