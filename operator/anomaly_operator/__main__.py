"""Run the operator: ``python -m anomaly_operator``."""

import gc
import os
import sys

import kopf

from anomaly_operator import handlers, logs
from anomaly_operator.settings import parse


def main() -> None:
    """Run until told to stop."""
    settings = parse(sys.argv[1:], os.environ)
    logs.configure(settings.log_level)
    registry = kopf.OperatorRegistry()
    handlers.register(registry, settings)
    # What was imported stays: the garbage collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    kopf.run(
        registry=registry,
        settings=handlers.kopf_settings(),
        memo=kopf.Memo(),
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )


if __name__ == "__main__":
    main()
