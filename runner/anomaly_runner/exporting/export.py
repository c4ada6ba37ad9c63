"""Stage export: the fitted model in portable forms, each held against torch on real images.

Every form takes normalised input (B, 3, H, W), float32, with any batch size, and answers raw scores and, if the model
localises, raw maps. Parity is measured, not assumed: a form that disagrees, or that has the batch size of the tracing
baked in, fails the run, once everything else is published.

- ONNX, written by torch's tracing exporter: these models are plain tensor programs that it covers, and it takes 1 s
  where the newer one takes 5. Weights are inside the one file.
- TorchScript, by tracing, for CPUs and GPUs alike.
- OpenVINO, from the ONNX graph; weights are a second file.
"""

import contextlib
import copy
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError

from anomaly_api.artifacts import INPUT, MAPS, SCORES, Export, ExportFormat
from anomaly_api.run import ExportedModel, ExportReport
from anomaly_runner.data.batches import Batch
from anomaly_runner.errors import ExportMismatch, InvalidConfig, RunFailed
from anomaly_runner.evaluation.normalize import ScoreRanges
from anomaly_runner.exporting.torchscript import write_torchscript
from anomaly_runner.models.base import ScoringModel
from anomaly_runner.scoring.onnx_predictor import load_onnx
from anomaly_runner.scoring.openvino_predictor import load_openvino, write_openvino
from anomaly_runner.scoring.predict import ScoredBatch
from anomaly_runner.scoring.torchscript_predictor import load_torchscript
from anomaly_runner.system.digest import digest
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.system.parallel import ordered_map

logger = logging.getLogger(__name__)

OPSET = 18
REFERENCE_IMAGES = 32
"""Real images on which an export is held against torch."""
_AT_ONCE = 3
"""Of them; not two, as in the example that graphs are traced with. Runtimes keep room for all that they see at once."""
TOLERANCES = {"float32": 1e-4, "float16": 2e-2}
"""Largest difference from torch, as a share of the largest raw score of the run, for images and pixels apart.

float32: scores are roots of sums of hundreds of products, added up in another order; rounding alone gives some 1e-6 of
their size, and a wrong operator shows at 1e-2 and more. float16: its rounding is 5e-4 a number, and tens of layers add
up; a wrong operator shows at 1e-1.
"""
_OF_SPREAD = 0.1
"""Nor may it be more than this share of the distance between the lowest and the highest score of the run, if they
differ: a form that is further from torch tells images apart no longer."""
_WIDE = 1 << 14
"""Numbers that are normalised together, from which on that is written out."""
_ROUNDING = {"float32": 1e-6, "float16": 1e-3}
"""What is always allowed, as a share of the largest score: of all images alike, the scores differ by no more."""

Outputs = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class LoadedExport(Protocol):
    """An export, loaded as inference loads it."""

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Raw scores (B,) and maps (B, H, W), or None."""


@dataclass(frozen=True)
class Exported:
    """One exported model and its comparison with torch."""

    model: ExportedModel
    report: ExportReport


@dataclass(frozen=True)
class Exports:
    """The forms that agree with torch, and what was wrong with the first that does not, if any."""

    good: tuple[Exported, ...] = ()
    failure: RunFailed | None = None


class Float16Model(nn.Module):
    """A model that computes in float16, between float32 inputs and outputs."""

    def __init__(self, model: ScoringModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()
        for part in self.model.modules():
            if part._parameters:
                part.register_forward_pre_hook(_in_half)
        self.eval()  # an exporter puts every part back into the mode of the whole

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As the model, in float32."""
        return tuple(found.float() for found in self.model(images.half()) if found is not None)


def _in_half(part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a layer is given, in its own type: some models make numbers of their own on the way, in float32."""
    return tuple(value.half() if isinstance(value, Tensor) and value.is_floating_point() else value for value in inputs)


class TupleOutputModel(nn.Module):
    """A model whose outputs are a tuple of tensors, as graphs want them: maps are left out where there are none."""

    def __init__(self, model: ScoringModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Scores, and maps if there are any."""
        return tuple(found for found in self.model(images) if found is not None)


def tolerance(precision: str, seen: tuple[float, float]) -> float:
    """Largest difference of a raw score that passes, where scores from the lowest to the highest were seen."""
    low, high = seen
    largest = max(abs(low), abs(high))
    telling = _OF_SPREAD * (high - low) or math.inf
    return max(min(TOLERANCES[precision] * largest, telling), _ROUNDING[precision] * largest)


def export_all(
    model: ScoringModel, spec: Export, reference: Sequence[ScoredBatch], ranges: ScoreRanges, folder: Path
) -> Exports:
    """Write the wanted forms into a folder and hold each against torch; one that fails leaves no file.

    Args:
        model: ready to score.
        spec: which forms.
        reference: torch's own scores of real images.
        ranges: raw scores seen in the run, to which differences are related.
        folder: where files go.

    ``failure`` is an ExportMismatch where a form is further from torch than rounding explains, InvalidConfig where the
    model cannot be written in it.
    """
    size = reference[0].batch.images.shape[-2:]
    example = torch.zeros(2, 3, *size, device=_device(model))
    allowed = {level: tolerance(spec.precision, seen) for level, seen in ranges.items()}
    found, failure = [], None
    for name in spec.types:
        before = set(folder.iterdir())
        try:
            with _explained(name):
                portable = Float16Model(model) if spec.precision == "float16" else TupleOutputModel(model)
                files = _WRITERS[name](portable, example, folder)
            found.append(_described(files, compare(name, files[0], reference, allowed), spec.precision))
        except (ExportMismatch, InvalidConfig) as error:
            logger.error("export failed", extra={"format": name, "detail": str(error)})
            failure = failure or error
            for file in set(folder.iterdir()) - before:
                file.unlink()
    return Exports(tuple(found), failure)


def _described(files: Sequence[Path], report: ExportReport, precision: Literal["float32", "float16"]) -> Exported:
    size_bytes = sum(file.stat().st_size for file in files)
    companions = {file.name: digest(file) for file in files[1:]}
    model = ExportedModel(format=report.format, file=files[0].name, sha256=digest(files[0]), companions=companions)
    return Exported(model, report.model_copy(update={"precision": precision, "size_bytes": size_bytes}))


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.buffers(), *model.parameters())), torch.device("cpu"))


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except (OnnxExporterError, RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise InvalidConfig(f"export.types: this model cannot be written as {name}: {str(error)[:500]}") from error


def write_onnx(model: nn.Module, example: Tensor, folder: Path) -> list[Path]:
    """Write model.onnx, and model.onnx.data where weights do not fit into a protocol buffer (2 GB)."""
    with tempfile.TemporaryDirectory(dir=folder) as made, _quiet(), torch.no_grad(), _written_out(model):
        file = Path(made, "model.onnx")
        names = [SCORES, MAPS][: len(model(example))]
        try:
            _trace(model, example, file, names)
        except OnnxExporterError as error:
            why = str(error).partition("\n")[0]  # the rest is the whole graph
            logger.info("the tracing exporter cannot write this model (%s); using torch.export", why)
            _torch_export(model, example, file, names)
        return merge_external_data(file, folder)


def merge_external_data(file: Path, folder: Path) -> list[Path]:
    """Move an ONNX file into a folder; weights that lie beside it, each in a file of its own, become one."""
    import onnx

    target = folder / file.name
    if len(list(file.parent.iterdir())) == 1:
        return [file.replace(target)]
    weights = target.with_name(f"{target.name}.data")
    onnx.save_model(onnx.load(file), target, save_as_external_data=True, location=weights.name)
    return [target, weights]


def write_openvino_files(model: nn.Module, example: Tensor, folder: Path) -> list[Path]:
    """Write model.xml and model.bin."""
    exported = folder / "model.onnx"
    made = [] if exported.exists() else write_onnx(model, example, folder)
    try:
        return write_openvino(exported, folder)
    finally:
        for file in made:
            file.unlink()


_WRITERS: dict[ExportFormat, Callable[[nn.Module, Tensor, Path], list[Path]]] = {
    "onnx": write_onnx,
    "torchscript": write_torchscript,
    "openvino": write_openvino_files,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own deprecations, and their notes on traced constants: shapes are fixed here."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _written_out(model: nn.Module) -> Iterator[None]:
    """With layer normalisations over whole feature maps as plain arithmetic: onnxruntime's own loses digits in them."""
    wide = [
        part for part in model.modules() if isinstance(part, nn.LayerNorm) and math.prod(part.normalized_shape) > _WIDE
    ]
    for part in wide:
        part.forward = partial(_layer_norm, part)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in wide:
            del part.forward


def _layer_norm(norm: nn.LayerNorm, values: Tensor) -> Tensor:
    """The same in float32, by a reciprocal: a division would be recognised and fused again."""
    centred = values.float() - _mean(values.float(), norm)
    scaled = (centred * torch.rsqrt(_mean(centred.square(), norm) + norm.eps)).to(values.dtype)
    weighed = scaled if norm.weight is None else scaled * norm.weight
    return weighed if norm.bias is None else weighed + norm.bias


def _mean(values: Tensor, norm: nn.LayerNorm) -> Tensor:
    """One axis after the other: sums of many numbers are what onnxruntime loses digits in."""
    for axis in range(1, len(norm.normalized_shape) + 1):
        values = values.mean(-axis, keepdim=True)
    return values


def _trace(model: nn.Module, example: Tensor, file: Path, names: list[str]) -> None:
    axes = {name: {0: "batch"} for name in (INPUT, *names)}
    torch.onnx.export(
        model,
        (example,),
        str(file),
        dynamo=False,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=names,
        dynamic_axes=axes,
    )


def _torch_export(model: nn.Module, example: Tensor, file: Path, names: list[str]) -> None:
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model,
        (example,),
        str(file),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=names,
        dynamic_shapes=({0: batch},),
        external_data=False,
        verbose=False,
    )


def load(name: ExportFormat, file: Path) -> LoadedExport:
    """An export as inference would load it."""
    if name == "onnx":
        return load_onnx(file, REFERENCE_IMAGES)
    if name == "openvino":
        return load_openvino(file)
    return load_torchscript(file, REFERENCE_IMAGES)


def compare(
    name: ExportFormat, file: Path, reference: Sequence[ScoredBatch], allowed: Mapping[str, float]
) -> ExportReport:
    """Hold an export against torch's raw outputs for real images, a few at once and one alone.

    Raises:
        ExportMismatch: further apart than ``allowed``, by level, or not a number.
    """
    loaded = load(name, file)
    apart = {"image": 0.0} | ({} if reference[0].maps is None else {"pixel": 0.0})
    batches = (*_few(reference), _rows(reference[0], slice(1)))
    threads = 1 if name == "openvino" else cpu_limit()  # which takes all CPUs for each batch
    answers = ordered_map(lambda expected: _run(name, loaded, expected.batch.images), batches, threads)
    for expected, (scores, maps) in zip(batches, answers, strict=True):
        apart["image"] = max(apart["image"], _distance(scores, expected.scores))
        if expected.maps is not None:
            apart["pixel"] = max(apart["pixel"], _distance(maps, expected.maps))
    if any(distance > allowed[level] for level, distance in apart.items()):
        told = ", ".join(
            f"{level} scores by {distance:.3g}, where {allowed[level]:.3g} is allowed"
            for level, distance in apart.items()
        )
        raise ExportMismatch(f"the {name} model disagrees with torch: {told}")
    count = sum(len(scored.scores) for scored in reference)
    return ExportReport(
        format=name,
        file=file.name,
        size_bytes=file.stat().st_size,
        max_score_difference=apart["image"],
        max_map_difference=apart.get("pixel"),
        tolerance=allowed["image"],
        map_tolerance=allowed.get("pixel"),
        images_compared=count,
    )


def _run(name: str, loaded: LoadedExport, images: NDArray[np.float32]) -> Outputs:
    try:
        return loaded.run(images)
    except Exception as error:  # whatever the runtime raises for a graph that takes one batch size alone
        raise ExportMismatch(f"the {name} model cannot score a batch of {len(images)}: {str(error)[:300]}") from error


def _few(reference: Sequence[ScoredBatch]) -> Iterator[ScoredBatch]:
    """The same in batches of ``_AT_ONCE``."""
    for scored in reference:
        for start in range(0, len(scored.scores), _AT_ONCE):
            yield _rows(scored, slice(start, start + _AT_ONCE))


def _rows(scored: ScoredBatch, rows: slice) -> ScoredBatch:
    batch = Batch(scored.batch.samples[rows], scored.batch.images[rows])
    return ScoredBatch(batch, scored.scores[rows], None if scored.maps is None else scored.maps[rows])


def _distance(found: NDArray[np.float32] | None, expected: NDArray[np.float32]) -> float:
    """Largest difference; infinite where something is missing or not a number."""
    if found is None or not np.isfinite(found).all():
        return math.inf
    return float(np.abs(found.astype(np.float64) - expected).max())
