"""Write a model in OpenVINO's format, converted from its ONNX graph."""

from pathlib import Path

from torch import Tensor, nn

from anomaly_runner.exporting.onnx_writer import write_onnx


def write_openvino(model: nn.Module, example: Tensor, folder: Path) -> list[Path]:
    """Write model.xml and model.bin from the folder's model.onnx, or from a temporary one, in the same precision.

    Raises:
        OnnxExporterError: the model cannot be written as ONNX.
    """
    import openvino

    graph = folder / "model.onnx"
    temporary = [] if graph.exists() else write_onnx(model, example, folder)
    try:
        file = folder / "model.xml"
        openvino.save_model(openvino.convert_model(str(graph)), str(file), compress_to_fp16=False)
        return [file, file.with_suffix(".bin")]
    finally:
        for written in temporary:
            written.unlink()
