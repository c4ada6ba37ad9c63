"""The API of anomaly-operator: what users write, what the operator passes to pods, and what pods report back.

Nothing but pydantic types and their rules lives here. The operator and the runner both import this package and never
each other; the CRDs under ``crds/`` are generated from it (``make generate``), so that one definition
serves the API server, the operator and a run on a laptop.
"""

GROUP = "anomalyops.io"
VERSION = "v1alpha1"
RELEASE = "0.1.0"
"""Version of the software."""
API_VERSION = f"{GROUP}/{VERSION}"
