"""What cannot work is refused at once, with the place and the reason; what can is not."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.sweep_check import MOST_FAULTS, Fault, check_sweep, describe_faults
from anomaly_api.sweep_fields import searchable_paths
from support.bad_manifests import whole_sweep
from support.sweep_specs import AUROC, sweep_spec

FASTFLOW: dict[str, Any] = {"model": {"name": "fastflow", "padim": None}}
NAMES = {"path": "model.name", "choices": ["padim", "patchcore"]}
SEEDS = {"path": "dataset.seed", "int": {"low": 0, "high": 9}}
FLIPS = {"path": "transforms.augmentations.horizontalFlip", "float": {"low": 0, "high": 0.5}}


def faults(spec: ExperimentSpec) -> list[str]:
    return list(map(str, check_sweep(spec)))


def parameter(path: str, **space: Any) -> dict[str, Any]:
    return {"path": path, **space}


def where(path: str, *values: Any) -> dict[str, Any]:
    return {"path": path, "in": list(values)}


def test_a_whole_sweep_works() -> None:
    sweep = whole_sweep()
    assert faults(sweep_spec(*sweep.pop("parameters"), **sweep)) == []
    assert faults(sweep_spec(SEEDS).model_copy(update={"sweep": None})) == []


@pytest.mark.parametrize(
    ("parameters", "change", "complaints"),
    [
        # Paths
        (
            [parameter("model.padim.nFeature", choices=[1])],
            {},
            ["parameters[0].path: model.padim.nFeature is no field of the spec; did you mean model.padim.nFeatures or"],
        ),
        (
            [SEEDS, parameter("training.epochs", int={"low": 1, "high": 9})],
            {},
            ["parameters[1].path: training.epochs is no field of the spec; did you mean training.maxEpochs or"],
        ),
        ([parameter("dataset.seed.value", choices=[1])], {}, ["parameters[0].path: dataset.seed.value is no field"]),
        (
            [parameter("scheduling.resources.limits.memory.bytes", choices=[1])],
            {},
            ["parameters[0].path: scheduling.resources.limits.memory.bytes is no field of the spec"],
        ),
        ([parameter("scheduling.resources.limits.memory", choices=["4Gi", "8Gi"])], {}, []),
        # Types and bounds
        (
            [parameter("model.padim.nFeatures", choices=[10, "many", 0, 2.5])],
            {},
            [
                'parameters[0].choices[1]: "many": Input should be a valid integer',
                "parameters[0].choices[2]: 0: Input should be greater than or equal to 1",
                "parameters[0].choices[3]: 2.5: Input should be a valid integer",
            ],
        ),
        (
            [parameter("model.padim.nFeatures", choices=[0])],
            {},
            ["parameters[0].choices[0]: 0: Input should be greater"],
        ),
        (
            [parameter("model.padim.nFeatures", int={"low": 0, "high": 4000})],
            {},
            [
                "parameters[0].int.low: 0: Input should be greater than or equal to 1",
                "parameters[0].int.high: 4000: Input should be less than or equal to 2048",
            ],
        ),
        (
            [parameter("model.padim.nFeatures", float={"low": 10, "high": 90})],
            {},
            ["parameters[0].float: 40.557280000000006: Input should be a valid integer"],
        ),
        ([parameter("model.padim.nFeatures", float={"low": 10, "high": 90, "step": 10})], {}, []),
        (
            [parameter("model.padim.preTrained", int={"low": 0, "high": 1})],
            {},
            ["parameters[0]: no value works: Input"],
        ),
        (
            [parameter("model.cflow.conditionVector", int={"low": 4, "high": 64})],
            {"model": {"name": "cflow", "padim": None}},
            ["parameters[0].int: 5: Input should be a multiple of 4"],
        ),
        (
            [parameter("model.cflow.conditionVector", int={"low": 4, "high": 66, "step": 4})],
            {"model": {"name": "cflow", "padim": None}},
            [],
        ),
        (
            [parameter("model.padim.layers", choices=[["layer1"], []])],
            {},
            ["parameters[0].choices[1]: []: Tuple should"],
        ),
        (
            [parameter("transforms.inputSize", choices=[{"height": 64}, {"height": 64, "depth": 3}, {"width": 8}])],
            {},
            [
                'parameters[0].choices[1]: {"height": 64, "depth": 3}: Extra inputs are not permitted',
                'parameters[0].choices[2]: {"width": 8}: Input should be greater than or equal to 32',
            ],
        ),
        ([parameter("model.padim.nFeatures", choices=[None, 10])], {}, []),
        ([parameter("dataset.seed", choices=[None, 10])], {}, []),
        # Rules between fields
        (
            [parameter("model.name", choices=["fastflow", "padim"])],
            {"model": {"name": "fastflow", "padim": None}, "training": {"maxEpochs": 3}},
            ['parameters[0].choices[1]: "padim": training.maxEpochs: maxEpochs cannot be set for this model'],
        ),
        (
            [parameter("model.name", choices=["padim", "fastflow"]), parameter("training.maxEpochs", choices=[3, 4])],
            {},
            ['parameters[0].choices[0]: "padim": training.maxEpochs: maxEpochs cannot be set for this model'],
        ),
        (
            [
                parameter("model.name", choices=["padim", "fastflow"]),
                parameter("training.maxEpochs", choices=[3, 4], when=where("model.name", "fastflow")),
            ],
            {},
            [],
        ),
        (
            [
                parameter("model.name", choices=["padim", "fastflow"]),
                parameter("training.maxEpochs", choices=[3, 4], when=where("model.name", "fastflow", "padim")),
            ],
            {},
            [
                'parameters[0].choices[0]: "padim": training.maxEpochs',
                'parameters[1]: no value works: where model.name is "padim": training.maxEpochs: maxEpochs cannot be',
            ],
        ),
        (
            [parameter("model.name", choices=["padim", "fastflow"])],
            {"model": {"tiling": {"tileSize": 64, "stride": 64}}},
            ['parameters[0].choices[1]: "fastflow": model: tiling: tiling may be set only when name is padim or'],
        ),
        (
            [parameter("model.tiling.tileSize", choices=[64, 32]), parameter("model.tiling.stride", choices=[64, 128])],
            {},
            [
                "parameters[0].choices[1]: 32: model.tiling: stride: stride may be at most tileSize",
                "parameters[1].choices[1]: 128: model.tiling: stride: stride may be at most tileSize",
            ],
        ),
        (
            [parameter("model.tiling.tileSize", choices=[64, 32])],
            {},
            ["parameters[0]: no value works: model.tiling.stride: Field required"],
        ),
        (
            [parameter("model.patchcore.numNeighbors", choices=[3, 9])],
            {},
            ["parameters[0]: no value works: model: patchcore: patchcore may be set only when name is patchcore"],
        ),
        (
            [parameter("training.devices", choices=[1, 2])],
            {},
            ["parameters[0].choices[1]: 2: training.devices: devices may be at most scheduling.gpus.count"],
        ),
        ([parameter("training.devices", choices=[1, 2]), parameter("scheduling.gpus.count", choices=[1, 2])], {}, []),
        (
            [parameter("export.types", choices=[["onnx"], []])],
            {"tracking": {"mlflow": {"registerModel": "screws"}}},
            ["parameters[0].choices[1]: []: tracking.mlflow.registerModel: registerModel needs a model that is kept"],
        ),
        # Conditions
        (
            [NAMES, parameter("model.patchcore.numNeighbors", choices=[3, 9])],
            {},
            [
                "parameters[1]: model.patchcore.numNeighbors exists for patchcore alone, and padim would have it too: "
                "add when: {path: model.name, in: [patchcore]}"
            ],
        ),
        (
            [
                NAMES,
                parameter("model.patchcore.numNeighbors", choices=[3], when=where("model.name", "padim", "patchcore")),
            ],
            {},
            ["parameters[1]: model.patchcore.numNeighbors exists for patchcore alone, and padim would"],
        ),
        (
            [NAMES, parameter("model.patchcore.numNeighbors", choices=[3, 99], when=where("model.name", "patchcore"))],
            {},
            ['parameters[1].choices[1]: 99: where model.name is "patchcore": Input should be less than or equal to 64'],
        ),
        (
            [NAMES, parameter("dataset.seed", choices=[3], when=where("model.name", "fastflow"))],
            {},
            ['parameters[1].when.in[0]: model.name is never "fastflow"'],
        ),
        (
            [SEEDS, parameter("model.padim.nFeatures", choices=[9], when=where("dataset.seed", 3, 10, True, 2.5, 4.0))],
            {},
            [
                "parameters[1].when.in[1]: dataset.seed is never 10",
                "parameters[1].when.in[2]: dataset.seed is never true",
                "parameters[1].when.in[3]: dataset.seed is never 2.5",
            ],
        ),
        (
            [
                NAMES,
                parameter("model.patchcore.backbone", choices=["a", "b"], when=where("model.name", "patchcore")),
                parameter("model.patchcore.layers", choices=[["c"], []], when=where("model.patchcore.backbone", "b")),
            ],
            {},
            ['parameters[2].choices[1]: []: where model.patchcore.backbone is "b": Tuple should have at least 1 item'],
        ),
        (
            [parameter("model.padim.nFeatures", choices=[1, 1.0, 2, 2])],
            {},
            ["parameters[0].choices[1]: 1.0 is listed twice", "parameters[0].choices[3]: 2 is listed twice"],
        ),
        ([parameter("model.padim.layers", choices=[["a", "b"], ["b", "a"]])], {}, []),
    ],
)
def test_parameters(parameters: list[dict[str, Any]], change: dict[str, Any], complaints: list[str]) -> None:
    found = faults(sweep_spec(*parameters, change=change))
    assert len(found) == len(complaints), found
    for fault, complaint in zip(found, complaints, strict=True):
        assert fault.startswith(f"spec.sweep.{complaint}"), fault


@pytest.mark.parametrize(
    ("change", "sweep", "complaints"),
    [
        (
            {},
            {"replicates": {"paths": [parameter("dataset.categories", values=["a"])]}},
            ["replicates.paths[0].path: dataset.categories is no field of the spec; did you mean dataset.category"],
        ),
        (
            {},
            {"replicates": {"paths": [parameter("dataset.category", values=["a", "../b"])]}},
            ['replicates.paths[0].values[1]: "../b": String should match'],
        ),
        (
            {},
            {"replicates": {"paths": [parameter("dataset.category", values=["a", "a"])]}},
            ['replicates.paths[0].values[1]: "a" is listed twice'],
        ),
        ({}, {"fidelity": {"path": "dataset.fraction", "values": [0.25, 1]}}, []),
        (
            {},
            {"fidelity": {"path": "dataset.fraction", "values": [0.5, 1.5]}},
            ["fidelity.values[1]: 1.5: Input should be less than or equal to 1"],
        ),
        ({}, {"fidelity": {"path": "dataset.share", "values": [0.5, 1]}}, ["fidelity.path: dataset.share is no field"]),
        (
            {},
            {"fidelity": {"path": "training.maxEpochs", "values": [3, 9]}},
            ["fidelity: no value works: training.maxEpochs: maxEpochs cannot be set for this model"],
        ),
        (FASTFLOW, {"fidelity": {"path": "training.maxEpochs", "values": [3, 9]}}, []),
        # Metrics
        (
            {},
            {"objectives": [{"metric": "image.F1Max", "goal": "maximize"}]},
            ["objectives[0].metric: image.F1Max is not computed: add F1Max to evaluation.metrics.image"],
        ),
        ({"evaluation": {"metrics": {"image": ["F1Max"]}}}, {"objectives": [AUROC | {"metric": "image.F1Max"}]}, []),
        (
            {},
            {"constraints": [{"metric": "pixel.AUROC", "min": 0.9}]},
            ["constraints[0].metric: pixel.AUROC is not computed: dataset.task is classification, which has image"],
        ),
        ({"dataset": {"task": "segmentation"}}, {"constraints": [{"metric": "pixel.AUROC", "min": 0.9}]}, []),
        (
            {"dataset": {"task": "segmentation"}},
            {"constraints": [{"metric": "pixel.AUPRO", "min": 0.9}]},
            ["constraints[0].metric: pixel.AUPRO is not computed: add AUPRO to evaluation.metrics.pixel"],
        ),
        ({}, {"constraints": [{"metric": "performance.modelBytes", "max": 1}]}, []),
        (
            {"scheduling": {"gpus": {"count": 0}}},
            {"constraints": [{"metric": "performance.peakGpuMemoryBytes", "max": 1}]},
            ["constraints[0].metric: performance.peakGpuMemoryBytes is not measured: scheduling.gpus.count is 0"],
        ),
        (
            {"scheduling": {"gpus": {"count": 1}}},
            {"constraints": [{"metric": "performance.peakGpuMemoryBytes", "max": 1}]},
            [],
        ),
        (
            {},
            {"objectives": [AUROC | {"metric": "synthetic.imageAUROC"}]},
            ["objectives[0].metric: synthetic.imageAUROC is not computed: add dataset.splits.syntheticDefects"],
        ),
        (
            {"dataset": {"splits": {"syntheticDefects": {}}}},
            {"objectives": [AUROC | {"metric": "synthetic.imageAUROC"}]},
            [],
        ),
        (
            {"dataset": {"task": "segmentation", "splits": {"syntheticDefects": {}}}},
            {"constraints": [{"metric": "synthetic.pixelAUPRO", "min": 0.9}]},
            ["constraints[0].metric: synthetic.pixelAUPRO is not computed: add AUPRO to evaluation.metrics.pixel"],
        ),
        # Start points
        (
            {},
            {"start": {"points": [{"dataset.seed": 3}, {}, {"dataset.seed": 10}]}},
            ["start.points[2].dataset.seed: 10 is not one of its values"],
        ),
        (
            {},
            {"start": {"points": [{"dataset.seeds": 3}]}},
            ["start.points[0].dataset.seeds: it is not searched; did you mean dataset.seed?"],
        ),
        (
            {},
            {"start": {"points": [{"model.padim.nFeatures": 3}]}},
            ["start.points[0].model.padim.nFeatures: it is not searched"],
        ),
    ],
)
def test_the_rest_of_a_sweep(change: dict[str, Any], sweep: dict[str, Any], complaints: list[str]) -> None:
    found = faults(sweep_spec(SEEDS, change=change, **sweep))
    assert len(found) == len(complaints), found
    for fault, complaint in zip(found, complaints, strict=True):
        assert fault.startswith(f"spec.sweep.{complaint}"), fault


@pytest.mark.parametrize(
    ("point", "complaint"),
    [
        ({"model.name": "patchcore", "model.patchcore.numNeighbors": 3}, ""),
        ({"model.patchcore.numNeighbors": 3}, ""),
        (
            {"model.name": "padim", "model.patchcore.numNeighbors": 3},
            '.model.patchcore.numNeighbors: it is not searched where model.name is "padim"',
        ),
        ({"model.patchcore.numNeighbors": 4}, ".model.patchcore.numNeighbors: 4 is not one of its values"),
        ({"model.tiling.tileSize": 64, "model.tiling.stride": 128}, ": model.tiling: stride: stride may be at most"),
        ({"model.tiling.stride": 128}, ""),
    ],
)
def test_a_start_point_is_one_of_the_space(point: dict[str, Any], complaint: str) -> None:
    space = [
        NAMES,
        parameter("model.patchcore.numNeighbors", choices=[3, 9], when=where("model.name", "patchcore")),
        parameter("model.tiling.tileSize", choices=[64, 128]),
        parameter("model.tiling.stride", choices=[64, 128]),
    ]
    found = faults(sweep_spec(*space, start={"points": [point]}))
    assert len(found) == bool(complaint), found
    assert not complaint or found[0].startswith(f"spec.sweep.start.points[0]{complaint}")


def test_each_start_point_is_looked_at() -> None:
    points = [{"dataset.seed": 10}, {"dataset.seed": 3}, {"dataset.seed": 11, "model.name": "padim"}]
    assert faults(sweep_spec(SEEDS, start={"points": points})) == [
        "spec.sweep.start.points[0].dataset.seed: 10 is not one of its values",
        "spec.sweep.start.points[2].dataset.seed: 11 is not one of its values",
        "spec.sweep.start.points[2].model.name: it is not searched",
    ]


def test_gpu_memory_is_measured_where_some_trials_have_a_gpu() -> None:
    gpus, memory = {"scheduling": {"gpus": {"count": 0}}}, {"metric": "performance.peakGpuMemoryBytes", "max": 1}
    count = parameter("scheduling.gpus.count", choices=[0, 1])
    assert faults(sweep_spec(count, change=gpus, constraints=[memory])) == []


def test_two_faults_elsewhere_are_told() -> None:
    """A crop area needs four numbers, of which this one is searched."""
    assert faults(sweep_spec(parameter("dataset.cropArea.left", choices=[1, 2]))) == [
        "spec.sweep.parameters[0]: no value works: dataset.cropArea.top: Field required; "
        "dataset.cropArea.width: Field required"
    ]


def test_what_a_start_point_leaves_open_is_such_that_its_values_exist() -> None:
    """Two devices exist for seed 1 alone, and never fit on one GPU: another seed would hide that."""
    space = [
        parameter("dataset.seed", choices=[0, 1]),
        parameter("training.devices", choices=[1, 2], when=where("dataset.seed", 1)),
        parameter("scheduling.gpus.count", choices=[1, 2]),
    ]
    assert faults(sweep_spec(*space, start={"points": [{"training.devices": 2}]})) == []
    found = faults(sweep_spec(*space, start={"points": [{"training.devices": 2, "scheduling.gpus.count": 1}]}))
    assert len(found) == 1
    assert found[0].startswith("spec.sweep.start.points[0]: training.devices: devices may be at most")


def test_values_that_work_only_together_are_found_in_a_large_space() -> None:
    """Two of ten choices each, and twenty parameters beside them: the one pair that works is not the first."""
    others = [parameter(f"training.{name}", choices=[1, 2]) for name in ("evalBatchSize", "trainBatchSize")]
    augmented = [
        parameter(f"transforms.augmentations.{name}", float={"low": 0, "high": 0.5})
        for name in ("horizontalFlip", "verticalFlip", "rotationDegrees", "brightness", "contrast")
    ]
    pair = [
        parameter("model.tiling.stride", choices=[512, 480, 448, 416, 384, 352, 320, 288, 256, 64]),
        parameter("model.tiling.tileSize", choices=[64]),
    ]
    found = faults(sweep_spec(*others, *augmented, *pair))
    assert len(found) == 9
    assert all("stride may be at most tileSize" in fault for fault in found)


def test_two_choices_that_must_both_be_others_are_found_in_a_large_space() -> None:
    space = [
        parameter("training.devices", choices=[2, 1]),
        parameter("scheduling.gpus.count", choices=[1, 2]),
        parameter("training.precision", choices=["bfloat16", "float32"]),
        parameter("model.name", choices=["padim", "fastflow"]),
        *(parameter(path, choices=[1, 2, 3, 4]) for path in ("dataset.seed", "training.evalBatchSize")),
    ]
    assert faults(sweep_spec(*space, change={"model": {"padim": None}})) == []


def test_the_largest_spaces_are_judged_soon() -> None:
    """32 parameters of 64 choices that cannot be, and nine of 64 that can, one of them with a bad one."""
    numbers = [path for path in searchable_paths() if path.startswith("model.") and path.count(".") == 2]
    started = time.monotonic()
    hopeless = check_sweep(sweep_spec(*(parameter(path, choices=list(range(64))) for path in numbers[4:36])))
    assert len(hopeless) == MOST_FAULTS
    settings = [parameter(path, choices=list(range(1, 65))) for path in WIDE_FIELDS]
    stride = parameter("model.tiling.stride", choices=[*range(32, 95), 128])
    tiling = {"name": "reverseDistillation", "padim": None, "tiling": {"tileSize": 96, "stride": 96}}
    assert faults(sweep_spec(stride, *settings, change={"model": tiling})) == [
        "spec.sweep.parameters[0].choices[63]: 128: model.tiling: stride: stride may be at most tileSize"
    ]
    assert time.monotonic() - started < 60


WIDE_FIELDS = (
    "dataset.seed",
    "dataset.limits.maxUnreadableImages",
    "training.maxEpochs",
    "training.maxSteps",
    "training.trainBatchSize",
    "training.evalBatchSize",
    "training.accumulateGradientBatches",
    "training.checkValEveryNEpoch",
    "training.numWorkers",
)
"""Fields of models with epochs that take any of 1 .. 64."""


def test_faults_in_one_line() -> None:
    many = [Fault(f"spec.sweep.parameters[{index}]", "bad") for index in range(7)]
    assert describe_faults(many[:2]) == "spec.sweep.parameters[0]: bad; spec.sweep.parameters[1]: bad"
    assert describe_faults(many).endswith("spec.sweep.parameters[4]: bad (and 2 more)")


def test_the_example_of_the_documentation_can_work() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sweeps.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    spec = ExperimentSpec.model_validate(yaml.safe_load(example)["spec"])
    assert spec.sweep is not None
    assert check_sweep(spec) == ()
