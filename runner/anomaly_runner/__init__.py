"""Execute one run, an experiment or an inference, from its RunConfig to its artifacts and report.

Before any library is imported, its telemetry is switched off here, torch is told to load no code from files, and OpenMP
to leave CPUs that other runs of a node need.
"""

import os

for _switch in ("ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_switch, "1")
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # torchvision's weights would be unpickled with all that is in them
if "OMP_WAIT_POLICY" not in os.environ:
    # torch's threads try 300,000 times to go on before they sleep, on CPUs that other runs of the node need. 5,000 are
    # enough for a run that is alone: docs/benchmarks.md, "Several runs on one node".
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
