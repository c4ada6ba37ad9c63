"""Execute one run, an experiment or an inference, from its RunConfig to its artifacts and report.

Before any library is imported, its telemetry is switched off here, and torch is told to load no code from files.
"""

import os

for _switch in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_switch, "1")
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # torchvision's weights would be unpickled with all that is in them
