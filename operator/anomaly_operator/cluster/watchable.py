"""What kopf may watch: it ends the process when a watch is refused or its resource is not served.

kopf looks at the cluster once, when it starts. So the operator looks before it does, and again while it runs: a change
for the better ends the process too, and the next one, which the kubelet starts within seconds, watches what there is.
"""

import asyncio
from collections.abc import Iterable

import structlog

from anomaly_api import GROUP, VERSION
from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.errors import ApiError, Forbidden, NotFound
from anomaly_operator.resources import EXPERIMENTS, INFERENCES, JOBS, PODS, Resource

log = structlog.get_logger()

POLL_SECONDS = 2.0
"""Pause between two looks at custom resource definitions that are missing."""
NAMESPACE_POLL_SECONDS = 10.0
"""Pause between two looks at namespaces that could not be read."""
_WATCHED = (EXPERIMENTS, INFERENCES, JOBS, PODS)


async def wait_until_served(client: ApiClient) -> None:
    """Wait until discovery lists both custom resources: their definitions may be installed after the operator.

    kopf, too, asks discovery. That a resource can be read is not enough: the API server lists it a little later.
    """
    told = False
    while missing := await _missing(client):
        if not told:
            log.warning("waiting for custom resource definitions", missing=missing)
        told = True
        await asyncio.sleep(POLL_SECONDS)


async def _missing(client: ApiClient) -> list[str]:
    try:
        served = await client.discover(GROUP, VERSION)
    except ApiError as error:  # told by what needs the answer
        log.error("cannot look for custom resource definitions", message=str(error))
        return []
    return [resource.plural for resource in (EXPERIMENTS, INFERENCES) if resource.plural not in served]


async def readable_namespaces(client: ApiClient, namespaces: Iterable[str]) -> tuple[str, ...]:
    """Return those namespaces in which everything that is watched may be read; the others are logged."""
    return tuple([namespace for namespace in namespaces if await _is_readable(client, namespace)])


async def _is_readable(client: ApiClient, namespace: str) -> bool:
    for resource in _WATCHED:
        try:
            await _read(client, resource, namespace)
        except Forbidden as error:
            log.error("namespace skipped", namespace=namespace, message=str(error), retry_s=NAMESPACE_POLL_SECONDS)
            return False
        except NotFound:
            continue  # a custom resource definition that is not installed yet
    return True


async def wait_until_readable(client: ApiClient, namespaces: Iterable[str]) -> str:
    """Wait until one of these namespaces can be read, and return it."""
    while True:
        await asyncio.sleep(NAMESPACE_POLL_SECONDS)
        if found := await readable_namespaces(client, namespaces):
            return found[0]


async def _read(client: ApiClient, resource: Resource, namespace: str | None) -> None:
    async for _ in client.list(resource, namespace):
        return
