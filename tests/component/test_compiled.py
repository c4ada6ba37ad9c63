"""A backbone compiled by onnxruntime is the same network."""

import copy
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest
import torch
from torch import Tensor, nn

from anomaly_runner.models.backbone import Backbone, choose_backbone
from anomaly_runner.models.compiled import CompiledNetwork, can_run_compiled, torch_only


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    made = Backbone(choose_backbone("tf_efficientnet_lite0", ["blocks.0", "blocks.1"]), pre_trained=False)
    made.accelerate()
    return made


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_features_equal_those_of_torch(backbone: Backbone, count: int, size: tuple[int, int]) -> None:
    images = torch.randn(count, 3, *size)
    with torch.inference_mode():
        compiled = backbone(images)
        with torch_only():
            expected = backbone(images)
    assert [feature.shape for feature in compiled] == [feature.shape for feature in expected]
    for ours, theirs in zip(compiled, expected, strict=True):
        assert not torch.equal(ours, theirs), "another program computed them"
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_gradients_graphs_and_other_dtypes_run_in_torch(backbone: Backbone) -> None:
    images = torch.zeros(1, 3, 64, 64)
    assert not can_run_compiled(images)
    with torch.no_grad():
        assert can_run_compiled(images)
        assert not can_run_compiled(images.half())
        exported = torch.export.export(backbone, (images,))
    assert any("conv" in str(node.target) for node in exported.graph.nodes), "no graph holds a call of onnxruntime"


def test_a_copy_is_independent(backbone: Backbone) -> None:
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = backbone(images)[0]
        other = copy.deepcopy(backbone)
        for parameter in other.parameters():
            parameter.zero_()
        assert not torch.equal(other(images)[0], before)
        assert torch.equal(backbone(images)[0], before)


class _WaitsWhileTraced(nn.Module):
    """A network that calls a function while its graph is written, and is the network inside otherwise."""

    def __init__(self, network: nn.Module, when_traced: Callable[[], None]) -> None:
        super().__init__()
        self.network, self._when_traced = network, when_traced

    def forward(self, images: Tensor) -> list[Tensor]:
        if torch.onnx.is_in_onnx_export():
            self._when_traced()
        features: list[Tensor] = self.network(images)
        return features


def test_a_thread_that_comes_while_another_one_compiles_computes_the_same(backbone: Backbone) -> None:
    images, late = torch.randn(2, 3, 64, 64), ThreadPoolExecutor(1)
    calls: list[Future[Tensor]] = []

    @torch.inference_mode()
    def first_feature() -> Tensor:
        features: list[Tensor] = slow(images)
        return features[0]

    def come_late() -> None:
        calls.append(late.submit(first_feature))
        wait(calls, timeout=2)  # longer than torch takes for these images

    slow = copy.deepcopy(backbone)
    slow.network = _WaitsWhileTraced(backbone.network, come_late)
    slow.accelerate()
    with late:
        found = first_feature()
    assert torch.equal(calls[0].result(), found)
    with torch_only():
        assert not torch.equal(first_feature(), found), "torch and onnxruntime differ in the last digits"


class _Unwritable(nn.Module):
    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.linalg.eigvals(images).real]


def test_a_network_that_cannot_be_exported_runs_in_torch(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), torch.no_grad():
        assert CompiledNetwork(_Unwritable())(torch.zeros(1, 3, 32, 32)) is None
    assert "onnxruntime cannot compile it" in caplog.text
