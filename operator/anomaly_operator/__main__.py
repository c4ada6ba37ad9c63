"""Run the operator: ``python -m anomaly_operator``."""

import asyncio
import gc
import os
import sys
from dataclasses import replace

import kopf

from anomaly_operator import handlers, logging_setup
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.cluster.credentials import login
from anomaly_operator.cluster.watchable import readable_namespaces
from anomaly_operator.settings import Settings, parse


def main() -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        SystemExit: a flag is not known or its value is not valid.
    """
    settings = parse(sys.argv[1:], os.environ)
    logging_setup.configure(settings.log_level)
    kopf_settings = handlers.kopf_settings()
    settings = asyncio.run(without_unreadable_namespaces(settings, kopf_settings))
    registry = kopf.OperatorRegistry()
    handlers.register(registry, settings)
    # Imported modules stay for the life of the process: the garbage collector need not scan them every time.
    gc.collect()
    gc.freeze()
    kopf.run(
        registry=registry,
        settings=kopf_settings,
        memo=kopf.Memo(),
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )


async def without_unreadable_namespaces(settings: Settings, kopf_settings: kopf.OperatorSettings) -> Settings:
    """Return the settings without the namespaces that cannot be read: one of several must not stop the others.

    Where none can be read, all stay: the process then ends with the API server's own message, and is started again.
    """
    client = ApiClient(lambda: login(kopf_settings), connections=1)
    try:
        readable = await readable_namespaces(client, settings.namespaces)
    finally:
        await client.close()
    skipped = tuple(name for name in settings.namespaces if name not in readable)
    return replace(settings, namespaces=readable, skipped_namespaces=skipped) if readable else settings


if __name__ == "__main__":
    main()
