"""Bad manifests, each a change of a good sample that makes it bad."""

import copy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"
SWEEPS = tuple(sorted(SAMPLES.glob("sweep-*.yaml")))
"""Samples with a sweep."""
BAD: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parents[1] / "integration" / "bad_manifests.yaml").read_text()
)
"""By kind: ``why`` it is bad, the ``change`` of the spec, and the ``path`` that a refusal must name. Where pydantic has
another one, it is ``python``."""


def base(kind: str) -> Manifest:
    """Return the good sample of a kind."""
    name = {"AnomalyExperiment": "mnist-padim", "AnomalyInference": "mnist-inference"}[kind]
    manifest: Manifest = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())
    return manifest


def merged(target: Manifest, change: Manifest) -> Manifest:
    """Return ``target`` after the JSON merge patch ``change`` (RFC 7396)."""
    result = copy.deepcopy(target)
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


def whole_sweep() -> dict[str, Any]:
    """Return a sweep with nearly every field, for the good sample."""
    return copy.deepcopy(_WHOLE_SWEEP)


_WHOLE_SWEEP: dict[str, Any] = yaml.safe_load("""
parameters:
  - {path: model.name, choices: [patchcore, padim, efficientad]}
  - {path: model.patchcore.backbone, choices: [resnet18, wide_resnet50_2], when: {path: model.name, in: [patchcore]}}
  - {path: model.patchcore.layers, choices: [[layer2], [layer2, layer3]], when: {path: model.name, in: [patchcore]}}
  - path: model.patchcore.coresetSamplingRatio
    float: {low: 0.01, high: 0.25, log: true}
    when: {path: model.name, in: [patchcore]}
  - {path: model.padim.nFeatures, choices: [null, 50], when: {path: model.name, in: [padim]}}
  - {path: transforms.inputSize, choices: [{height: 256, width: 256}, {height: 384, width: 384}]}
  - {path: dataset.splits.goodTestFraction, float: {low: 0.1, high: 0.3, step: 0.2}}
algorithm: {name: tpe, seed: 7, tpe: {startupTrials: 12, candidates: 48}}
objectives: [{metric: image.AUROC, goal: maximize, target: 0.999}]
constraints: [{metric: performance.modelBytes, max: 300000000}]
replicates:
  paths: [{path: dataset.category, values: [bottle, cable]}, {path: dataset.seed, values: [0, 1]}]
  aggregate: mean
  pruning: {method: wilcoxon, pValue: 0.05, afterReplicates: 3}
fidelity: {path: dataset.fraction, values: [0.25, 1.0], reduction: 4}
start:
  points: [{model.name: padim, model.padim.nFeatures: 50}, {transforms.inputSize: {height: 256, width: 256}}]
  fromExperiment: {name: bottle-july, top: 5}
trials: {max: 400, parallel: 32, maxFailed: 20}
budget: {gpuHours: 50, wallClockSeconds: 86400, withoutImprovement: 60}
final: train
""")
