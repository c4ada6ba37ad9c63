"""Forms of sweeps on a real API server with played pods: replicates, several objectives, points that cannot be."""

from collections.abc import Mapping
from typing import Any

import pytest

from anomaly_api.status import MetricValues
from support.hunt import phase, score, sweep, trials
from support.kube import Namespace, condition
from support.process import OperatorProcess
from support.sweep_player import SweepPlayer, values_of

pytestmark = pytest.mark.cluster

GRID = {"name": "grid"}


def features(*choices: int) -> list[dict[str, Any]]:
    return [{"path": "model.padim.nFeatures", "choices": list(choices)}]


def test_a_point_is_the_mean_of_its_replicates_and_a_hopeless_one_saves_the_rest(
    namespace: Namespace, operator: OperatorProcess
) -> None:
    """Wilcoxon's test gives up at four losses of four: 1/16 is less than 0.1, 1/8 is not."""
    measured = (0.90, 0.92, 0.94, 0.96, 0.98)

    def end(values: Mapping[str, Any]) -> float:
        return measured[values.get("replicate", 0)] - (0.3 if values.get("model.padim.nFeatures") == 1 else 0.0)

    replicates = {"paths": [{"path": "dataset.seed", "values": [1, 2, 3, 4, 5]}]}
    with SweepPlayer(namespace.name, end, replicates=True):
        namespace.apply(
            sweep(parameters=features(37, 1), algorithm=GRID, replicates=replicates, trials={"parallel": 1})
        )
        found = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))["sweep"]
    assert (found["asked"], found["complete"], found["pruned"]) == (2, 1, 1)
    runs = sorted((trial["spec"]["trial"]["number"], trial["spec"]["dataset"]["seed"]) for trial in trials(namespace))
    assert runs == [*((0, seed) for seed in range(1, 6)), *((1, seed) for seed in range(1, 5))]
    [best] = found["best"]
    assert best["objectives"]["image.AUROC"] == pytest.approx(0.94)
    # Deviations of 0.04, 0.02, 0: a variance of 0.004 / 4, over 5 replicates.
    assert best["standardErrors"]["image.AUROC"] == pytest.approx((0.001 / 5) ** 0.5)
    assert found["remeasured"]["measuredOn"] == "dataset.seed 43, which no trial used"


def test_several_objectives_with_a_constraint(namespace: Namespace, operator: OperatorProcess) -> None:
    results = {10: (0.9, 10.0, 500), 20: (0.95, 30.0, 500), 30: (0.99, 5.0, 2000), 40: (0.8, 20.0, 500)}

    def end(values: Mapping[str, Any]) -> MetricValues:
        auroc, seconds, size = results[values.get("model.padim.nFeatures", 20)]
        return MetricValues(image={"AUROC": auroc}, performance={"trainSeconds": seconds, "modelBytes": size})

    objectives = [
        {"metric": "image.AUROC", "goal": "maximize"},
        {"metric": "performance.trainSeconds", "goal": "minimize"},
    ]
    constraints = [{"metric": "performance.modelBytes", "max": 1000}]
    with SweepPlayer(namespace.name, end) as player:
        namespace.apply(
            sweep(
                parameters=features(10, 20, 30, 40),
                algorithm=GRID,
                objectives=objectives,
                constraints=constraints,
                trials={"parallel": 4},
            )
        )
        found = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))["sweep"]
    assert (found["complete"], found["infeasible"]) == (3, 1)
    # 30 is too large; 10 is faster and better than 40, and 20 is better, but slower than both.
    assert [point["number"] for point in found["paretoFront"]] == [0, 1]
    assert [best["number"] for best in found["best"]] == [1, 0, 3]
    assert found["choice"] == (
        "trial 1: of the 2 points of the Pareto front it has the best image.AUROC, the first objective"
    )
    trained = player.configs["hunt"].experiment
    assert trained
    assert trained.model.to_json_object()["padim"]["nFeatures"] == 20


@pytest.mark.own_operator
def test_points_that_cannot_be_are_trials_that_say_why(namespace: Namespace, operator: OperatorProcess) -> None:
    parameters = [
        {"path": "model.tiling.tileSize", "choices": [128, 256]},
        {"path": "model.tiling.stride", "choices": [128, 256]},
    ]
    with SweepPlayer(namespace.name, score):
        namespace.apply(sweep(parameters=parameters, algorithm=GRID, trials={"parallel": 1}, final="report"))
        namespace.wait_for("aexp", "hunt", "begun", lambda status: status.get("sweep", {}).get("asked", 0) >= 1)
        operator.kill()
        operator.forget_lease()
        operator.start()
        found = namespace.wait_for("aexp", "hunt", "complete", phase("Complete"))["sweep"]
    assert (found["asked"], found["complete"], found["infeasible"], found["failed"]) == (4, 3, 1, 0)
    assert len(values_of(trials(namespace))) == len(trials(namespace)) == 4
    impossible = namespace.get("aexp", "hunt-t0001")
    assert impossible["spec"]["trial"]["values"] == {"model.tiling.tileSize": 128, "model.tiling.stride": 256}
    why = condition(impossible["status"], "Failed")
    assert why["reason"] == "InvalidConfig"
    assert "stride may be at most tileSize" in why["message"]
    assert impossible["status"]["phase"] == "Failed"
    assert not [job for job in namespace.list("jobs") if job["metadata"]["name"].startswith("hunt-t0001")]


def test_trials_enter_the_queue_and_carry_nothing_of_what_applied_their_sweep(
    namespace: Namespace, operator: OperatorProcess
) -> None:
    manifest = sweep(policy={"preflight": "Never"}, trials={"max": 3, "parallel": 2})
    manifest["spec"]["scheduling"]["queueName"] = "team-a"
    manifest["metadata"] |= {
        "labels": {
            "app.kubernetes.io/instance": "vision",
            "app.kubernetes.io/managed-by": "Helm",
            "argocd.argoproj.io/instance": "vision",
            "kustomize.toolkit.fluxcd.io/name": "vision",
            "kueue.x-k8s.io/queue-name": "team-b",
        },
        "annotations": {
            "argocd.argoproj.io/tracking-id": "vision:anomalyops.io/AnomalyExperiment:factory/hunt",
            "meta.helm.sh/release-name": "vision",
            "meta.helm.sh/release-namespace": "factory",
        },
    }
    namespace.apply(manifest)
    for number in range(2):
        job = f"hunt-t000{number}-experiment"
        namespace.kubectl("wait", "--for=create", f"job/{job}", "--timeout=60s")
        made = namespace.get("job", job)
        assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
        assert made["spec"]["suspend"], "Kueue decides when it begins"
        assert "argocd" not in str(made["metadata"])
    applied = namespace.get("aexp", "hunt")["metadata"]
    assert "kubectl.kubernetes.io/last-applied-configuration" in applied["annotations"]
    assert len(trials(namespace)) == 2
    for trial in trials(namespace):
        which = str(trial["spec"]["trial"]["number"])
        assert trial["metadata"]["labels"] == {"anomalyops.io/sweep": "hunt", "anomalyops.io/trial": which}
        assert "annotations" not in trial["metadata"]
        [owner] = trial["metadata"]["ownerReferences"]
        assert (owner["name"], owner["uid"], owner["controller"]) == ("hunt", applied["uid"], True)
