"""OpenVINO models, loaded only to compare an export with torch; no inference uses this runtime."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_api.artifacts import MAPS, SCORES
from anomaly_runner.errors import ModelInvalid
from anomaly_runner.system.out_of_memory import is_out_of_memory


@dataclass(frozen=True)
class OpenvinoModel:
    """An OpenVINO model, compiled for the CPU."""

    compiled: Any

    @property
    def provider(self) -> str:
        """What executes the model."""
        return "OpenVINO CPU"

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Score model input (B, 3, H, W): raw scores (B,) and maps (B, H, W), or None."""
        answer = self.compiled(images).to_dict()
        found = {name: np.array(values) for port, values in answer.items() for name in port.names}
        maps = found.get(MAPS)
        reshaped = None if maps is None else maps.reshape(len(images), *maps.shape[-2:])
        return found[SCORES].reshape(len(images)), reshaped


def load_openvino(file: Path) -> OpenvinoModel:
    """Compile a model for the CPU in float32: OpenVINO's default on recent CPUs is bfloat16, which changes scores.

    Raises:
        ModelInvalid: the file is not a model of OpenVINO, or has an operator that it lacks.
        RuntimeError: OpenVINO's own, where memory ran out (``is_out_of_memory``).
    """
    import openvino

    try:
        compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ModelInvalid(f"{file.name} cannot be loaded: {error}") from error
    return OpenvinoModel(compiled)
