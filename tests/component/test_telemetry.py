"""Libraries send no usage statistics."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import anomaly_runner
import onnxruntime
from huggingface_hub import constants
from mlflow.telemetry.utils import is_telemetry_disabled
assert is_telemetry_disabled()
assert constants.HF_HUB_DISABLE_TELEMETRY
"""
SWITCHES = ("TELEMETRY", "DO_NOT_TRACK", "PYTEST", "CI")
"""In names of variables of this process that might do the work of ours."""


def test_telemetry_of_libraries_is_off(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not any(part in name for part in SWITCHES)}
    homes = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME")}
    subprocess.run([sys.executable, "-c", CODE], env=environment | homes, check=True)
    assert list(tmp_path.rglob("onnxruntime*")) == [], "onnxruntime prepared an upload"
