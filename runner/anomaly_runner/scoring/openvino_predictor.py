"""An OpenVINO model, loaded to be compared with torch; no run is scored with it."""

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

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Score model input (B, 3, H, W): raw scores (B,) and maps (B, H, W), or None."""
        answer = self.compiled(images).to_dict()
        found = {name: np.array(values) for port, values in answer.items() for name in port.names}
        maps = found.get(MAPS)
        reshaped = None if maps is None else maps.reshape(len(images), *maps.shape[-2:])
        return found[SCORES].reshape(len(images)), reshaped


def load_openvino(file: Path) -> OpenvinoModel:
    """Compile for the CPU, in float32: its own choice on recent CPUs is bfloat16, which is another model."""
    import openvino

    return OpenvinoModel(openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))
