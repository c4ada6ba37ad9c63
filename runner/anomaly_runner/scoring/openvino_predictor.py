"""OpenVINO models, loaded only to compare an export with torch; no inference uses this runtime."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly_api.artifacts import MAPS, SCORES


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
    """Compile a model for the CPU in float32: OpenVINO's default on recent CPUs is bfloat16, which changes scores."""
    import openvino

    return OpenvinoModel(openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))
