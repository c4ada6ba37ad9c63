"""What the step check takes the training's pod for, by the spec alone."""

from typing import Any

import pytest

from anomaly_api.experiment import ExperimentSpec
from anomaly_runner.preflight import experiment
from support import objects


def spec(limits: dict[str, str] | None, gpus: int = 0, model: str = "padim", **more: Any) -> ExperimentSpec:
    scheduling: dict[str, Any] = {"gpus": {"count": gpus}}
    if limits is not None:
        scheduling["resources"] = {"limits": limits}
    written = objects.EXPERIMENT["spec"] | {"model": {"name": model}, "scheduling": scheduling} | more
    return ExperimentSpec.model_validate(written)


@pytest.mark.parametrize(
    ("limits", "cpus", "memory"),
    [
        ({"cpu": "2500m", "memory": "2Gi"}, 3, 2_147_483_648),
        ({"cpu": "100m", "memory": "1500M"}, 1, 1_500_000_000),
        ({"cpu": "8"}, 8, None),
        ({"memory": "1Gi"}, 1, 1_073_741_824),
        (None, 1, None),
    ],
    ids=["a part of a CPU", "less than one", "no limit of memory", "no limit of CPUs", "no limits"],
)
def test_a_pod_is_as_large_as_its_limits(limits: dict[str, str] | None, cpus: int, memory: int | None) -> None:
    found = experiment._training_pod(spec(limits))
    assert (found.gpus, found.threads.device.type, found.threads.count, found.limit) == (0, "cpu", cpus, memory)


def test_the_weights_of_other_models_are_not_looked_for_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(experiment, "check_on_hub", asked.append)
    context: Any = type("Context", (), {"stores": {}})()
    unchecked: list[str] = []
    experiment._check_weights(spec(None), context, unchecked)
    assert (asked, unchecked) == (["resnet18"], [])
    experiment._check_weights(spec(None, model="fastflow"), context, unchecked)
    assert (asked, unchecked) == (["resnet18"], ["the weights, which the run itself downloads from the internet"])


def test_what_is_held_by_now_counts_as_held_by_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    free: list[int] = []
    monkeypatch.setattr(experiment, "used_memory", lambda: 300)
    monkeypatch.setattr(experiment, "check_host_memory", lambda *given: free.append(given[-1]))
    asked = spec({"memory": "1000"})
    experiment._check_memory(object(), asked, experiment._training_pod(asked), 1000, 8)  # type: ignore[arg-type]
    assert free == [700]
    monkeypatch.setattr(experiment, "available_memory", lambda: 5000)
    assert experiment._this_machine().limit == 5300
