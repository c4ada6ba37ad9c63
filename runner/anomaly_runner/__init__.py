"""Execute one run, an experiment or an inference, from its RunConfig to its artifacts and report.

The telemetry of libraries is switched off here, before any of them is imported.
"""

import os

for _switch in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_switch, "1")
