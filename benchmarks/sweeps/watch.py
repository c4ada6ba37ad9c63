"""New objects of a resource, from a watch of their metadata alone."""

import json
from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
import kopf

from anomaly_operator.resources import Resource

METADATA_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Added(NamedTuple):
    """A new object."""

    name: str
    uid: str
    labels: dict[str, str]


async def added(info: kopf.ConnectionInfo, resource: Resource, namespace: str) -> AsyncIterator[Added]:
    """Yield each object once, as soon as the API server tells of it; a watch that ends is begun again."""
    connector = aiohttp.TCPConnector(ssl=info.as_ssl_context())
    headers = {"Accept": METADATA_ALONE} | info.as_http_headers()
    url, seen = info.server + resource.path(namespace), set[str]()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**24) as session:
        while True:
            async with session.get(url, params={"watch": "1"}, timeout=timeout) as answer:
                async for line in answer.content:
                    event = json.loads(line)
                    meta = event["object"]["metadata"]
                    if event["type"] == "ADDED" and meta["uid"] not in seen:
                        seen.add(meta["uid"])
                        yield Added(meta["name"], meta["uid"], meta.get("labels", {}))
