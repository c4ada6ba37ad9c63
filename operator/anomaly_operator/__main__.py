"""Run the operator: ``python -m anomaly_operator``."""

import gc
import os
import sys

import kopf

from anomaly_operator import handlers, logging_setup
from anomaly_operator.settings import parse


def main() -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        SystemExit: a flag is not known or its value is not valid.
    """
    settings = parse(sys.argv[1:], os.environ)
    logging_setup.configure(settings.log_level)
    registry = kopf.OperatorRegistry()
    handlers.register(registry, settings)
    # Imported modules stay for the life of the process: the garbage collector need not scan them every time.
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
