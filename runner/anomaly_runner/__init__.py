"""One run in, artifacts and a report out: trains or infers as its RunConfig says.

Libraries that send usage statistics to their makers are kept from it before they are imported.
"""

import os

for _switch in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_switch, "1")
