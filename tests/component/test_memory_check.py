"""What a run will need of a GPU's or the host's memory is told before any image is read, activations included."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.parameters import PadimParameters, PatchcoreParameters
from anomaly_runner.errors import OutOfMemory
from anomaly_runner.models.activations import peak_activations
from anomaly_runner.models.backbone import choose_backbone
from anomaly_runner.models.base import MemoryModel
from anomaly_runner.models.compiled import torch_only
from anomaly_runner.models.padim import Padim
from anomaly_runner.models.patchcore import Patchcore
from anomaly_runner.models.threads import MICRO_BATCH, TorchThreads
from anomaly_runner.training import memory_check
from anomaly_runner.training.memory_check import check_memory, free_for_fit, memory_needs

SIDE, IMAGES = 96, 20
ON_CPU, ON_GPU = TorchThreads(torch.device("cpu")), TorchThreads(torch.device("cuda"))


def padim(backbone: str = "resnet18") -> Padim:
    choice, parameters = (
        choose_backbone(backbone, ("layer1", "layer2")),
        PadimParameters(pre_trained=False, n_features=20),
    )
    return Padim(choice, parameters, (SIDE, SIDE), ON_CPU).eval()


def patchcore(backbone: str = "resnet18", **parameters_too: Any) -> Patchcore:
    choice = choose_backbone(backbone, ("layer2", "layer3"))
    parameters = PatchcoreParameters(pre_trained=False, **parameters_too)
    return Patchcore(choice, parameters, (SIDE, SIDE), 0, lambda _: None, threads=ON_CPU).eval()


def spec(**training: int) -> ExperimentSpec:
    return ExperimentSpec.model_validate(
        {
            "model": {"name": "padim"},
            "dataset": {"category": "textures", "source": {"s3": {"uri": "s3://data"}}},
            "output": {"s3": {"uri": "s3://results"}},
            "transforms": {"inputSize": {"height": SIDE, "width": SIDE}},
            "training": training,
        }
    )


def profiled(function: Callable[[Tensor], object], images: Tensor) -> int:
    """Bytes at the peak of a real pass on the CPU, by torch's profiler, with those of the images."""
    with torch.no_grad(), torch_only():
        function(images[:1])  # the first pass also makes what later ones find
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            function(images)
    now = peak = 0
    events: list[Any] = seen.profiler.kineto_results.events()
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes() if event.name() == "[memory]" else 0
        peak = max(peak, now)
    return peak + images.nbytes


@pytest.mark.parametrize("build", [padim, patchcore])
@pytest.mark.parametrize("backbone", ["resnet18", "wide_resnet50_2"])
@pytest.mark.parametrize("method", ["embed", "forward"])
def test_the_peak_of_activations_is_that_of_a_real_pass(
    build: Callable[[str], MemoryModel], backbone: str, method: str, measured: Callable[[str], None]
) -> None:
    model, images = build(backbone), torch.randn(MICRO_BATCH, 3, SIDE, SIDE)
    fitted = model.fitted_shapes(IMAGES)
    estimate = peak_activations(getattr(model, method), model, (MICRO_BATCH, 3, SIDE, SIDE), fitted)
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    for name, shape in fitted.items():
        setattr(model, name, torch.rand(shape))
    peak = profiled(getattr(model, method), images)
    measured(f"{build.__name__} on {backbone}, {method}: {estimate / peak:.4f} of the peak")
    assert estimate == pytest.approx(peak, rel=0.01)


@pytest.mark.parametrize(
    ("batches", "field"),
    [
        ({"trainBatchSize": 512, "evalBatchSize": 1}, "lower training.trainBatchSize"),
        ({"trainBatchSize": 1, "evalBatchSize": 512}, "lower training.evalBatchSize"),
    ],
)
def test_a_batch_that_does_not_fit_on_the_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch, batches: dict[str, int], field: str
) -> None:
    model, asked, images = padim(), spec(**batches), 600
    most = max(memory_needs(model, asked, images, ON_GPU), key=lambda need: need.total)
    assert most.activations > most.model
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (most.total - 1, most.total))
    with pytest.raises(OutOfMemory, match=r"GPU memory .* for the model, .* for the images of a batch") as failure:
        check_memory(model, asked, images, ON_GPU)
    assert field in str(failure.value)
    assert "take a larger GPU" in str(failure.value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (most.total, most.total))
    check_memory(model, asked, images, ON_GPU)


def test_all_patches_of_the_fit_are_told_where_they_are_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1, 1))
    with pytest.raises(
        OutOfMemory, match=r"the end of the fit needs about .* are free: all patches of 100000 training"
    ):
        check_memory(patchcore(), spec(trainBatchSize=1, evalBatchSize=1), 100_000, ON_GPU)


def test_a_layer_of_which_no_channel_is_chosen_takes_nothing() -> None:
    choice, parameters = (
        choose_backbone("resnet18", ("layer1", "layer2")),
        PadimParameters(pre_trained=False, n_features=1),
    )
    model, images = Padim(choice, parameters, (SIDE, SIDE), ON_CPU).eval(), torch.randn(2, 3, SIDE, SIDE)
    assert model.embed(images).shape == ((SIDE // 4) ** 2, 2, 1)
    assert peak_activations(model.embed, model, (2, 3, SIDE, SIDE)) > 0


def test_on_the_cpu_each_thread_works_on_a_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model, threads = padim(), TorchThreads(torch.device("cpu"))
    monkeypatch.setattr(threads, "_threads", 3)
    few = peak_activations(model.embed, model, (MICRO_BATCH, 3, SIDE, SIDE))

    def step(batch: int) -> int:
        return next(iter(memory_needs(model, spec(trainBatchSize=batch), IMAGES, threads))).activations

    assert step(MICRO_BATCH) == pytest.approx(step(2 * MICRO_BATCH) / 2)
    assert 0 < step(1000) == step(3 * MICRO_BATCH) <= 3 * few


def test_activations_of_tiles_refuse_no_run_on_the_cpu() -> None:
    tiled = {"model": {"name": "padim", "tiling": {"tileSize": SIDE // 2, "stride": SIDE // 2}}}
    asked = ExperimentSpec.model_validate(spec().model_dump(by_alias=True, exclude_unset=True) | tiled)
    assert all(need.activations == 0 for need in memory_needs(padim(), asked, IMAGES, ON_CPU))
    assert any(need.activations > 0 for need in memory_needs(padim(), asked, IMAGES, ON_GPU))


@pytest.mark.parametrize("build", [padim, patchcore])
def test_weights_that_need_a_second_onnx_file_are_no_reason_to_refuse(
    build: Callable[[], MemoryModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    monkeypatch.setattr(memory_check, "_IN_ONE_FILE", 1)
    monkeypatch.setattr(memory_check, "available_memory", lambda: 1 << 40)
    check_memory(model, spec(), IMAGES, ON_CPU)


def test_the_generator_of_synthetic_defects_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"dataset": spec().dataset.to_json_object() | {"splits": {"syntheticDefects": {}}}}
    painting = ExperimentSpec.model_validate(spec().model_dump(by_alias=True, exclude_unset=True) | splits)
    monkeypatch.setattr(memory_check, "available_memory", lambda: 550_000_000)
    check_memory(padim(), spec(evalBatchSize=1), IMAGES, ON_CPU)
    with pytest.raises(OutOfMemory, match=r"0\.18 GB to paint synthetic defects") as failure:
        check_memory(padim(), painting, IMAGES, ON_CPU)
    assert "leave out dataset.splits.syntheticDefects" in str(failure.value)
    free = free_for_fit(padim(), spec(), IMAGES, ON_CPU) - free_for_fit(padim(), painting, IMAGES, ON_CPU)
    assert free == 180_000_000 + 150 * SIDE * SIDE


MANY = 20_000
"""Images with more patches than a chunk has at most."""


def test_a_training_set_that_does_not_fit_is_reduced_by_chunks() -> None:
    model = patchcore(coreset_sampling_ratio=0.01)
    exact = model.memory_estimate(MANY)
    assert model.adapt_to_memory(MANY, exact.peak) == ""
    assert model.memory_estimate(MANY) == exact
    told = model.adapt_to_memory(MANY, exact.peak - 1)
    assert "2,880,000 training patches do not fit into memory" in told  # 20,000 images of 12 x 12
    assert len(told) <= 256
    chunked = model.memory_estimate(MANY)
    assert chunked.fitted == exact.fitted
    assert chunked.peak < exact.peak / 5
    assert chunked.reading < exact.reading / 5


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_chunks_fit_into_the_memory_there_is(share: float) -> None:
    model = patchcore(coreset_sampling_ratio=0.01)
    free = int(share * model.memory_estimate(MANY).peak)
    model.adapt_to_memory(MANY, free)
    assert model.memory_estimate(MANY).peak <= free


@pytest.mark.parametrize("coreset", ["Auto", "Chunked"])
def test_slightly_less_memory_makes_the_same_chunks_and_smaller_ones_are_told(coreset: str) -> None:
    model = patchcore(coreset_sampling_ratio=0.01, coreset=coreset)
    kept = 4 * int(MANY * 144 * 0.02) * sum(model.backbone.channels)
    told = model.adapt_to_memory(MANY, kept * 5)
    sizes = {model.memory_estimate(MANY).peak}
    for share in (0.97, 0.98, 0.99):
        assert model.adapt_to_memory(MANY, int(share * kept * 5)).partition(" free")[2] == told.partition(" free")[2]
        sizes.add(model.memory_estimate(MANY).peak)
    assert len(sizes) == 1
    assert "chunks of" in told


def test_chunks_as_large_as_they_get_are_not_told() -> None:
    assert patchcore(coreset="Chunked").adapt_to_memory(MANY, 1 << 45) == ""


@pytest.mark.parametrize(
    ("coreset", "advice"),
    [
        ("Exact", "set model.patchcore.coreset to Chunked"),
        ("Chunked", "lower model.patchcore.coresetSamplingRatio"),
        ("Auto", "lower model.patchcore.coresetSamplingRatio"),
    ],
)
def test_what_does_not_fit_in_either_way_is_refused(coreset: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, free = patchcore(coreset=coreset), 1_500_000_000
    monkeypatch.setattr(memory_check, "available_memory", lambda: free)
    told = model.adapt_to_memory(MANY, free_for_fit(model, spec(), MANY, ON_CPU))
    assert bool(told) == (coreset != "Exact"), "both chunks are smaller than they would be with more memory"
    with pytest.raises(OutOfMemory, match=advice):
        check_memory(model, spec(), MANY, ON_CPU)


def test_few_patches_are_reduced_at_once_even_where_chunks_are_asked_for() -> None:
    asked, plain = patchcore(coreset="Chunked"), patchcore()
    assert asked.adapt_to_memory(IMAGES, 1 << 40) == ""
    assert asked.memory_estimate(IMAGES) == plain.memory_estimate(IMAGES)
