"""One replica acts: whoever holds the Lease. As client-go's leader election, by default with the same 15/10/2 seconds.

A replica that cannot renew in time ends its process: what it was doing stops at once, and its successor begins with
a fresh LIST. Clocks of different machines are never compared; a Lease is free when it has not changed for its
duration by the watcher's own clock.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.errors import ApiError, Conflict, NotFound
from anomaly_operator.metrics import LEADER
from anomaly_operator.resources import LEASES
from anomaly_operator.settings import Settings

log = structlog.get_logger()

ADDRESS_ANNOTATION = "anomalyops.io/address"


class Lease:
    """Leadership of this process."""

    def __init__(self, client: ApiClient, settings: Settings, monotonic: Callable[[], float]) -> None:
        self._client = client
        self._settings = settings
        self._monotonic = monotonic
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = monotonic()
        self.held = False
        self.leader_address: str | None = None

    async def acquire(self) -> None:
        """Return when this process is the leader."""
        while not await self._try(within=self._settings.lease_renew_deadline):
            await asyncio.sleep(self._settings.lease_retry_seconds)
        self.held = True
        LEADER.set(1)
        log.info("leading", identity=self._settings.identity)

    async def hold(self) -> None:
        """Renew for ever; returns when the Lease was lost."""
        deadline = self._monotonic() + self._settings.lease_renew_deadline
        while self._monotonic() < deadline:
            await asyncio.sleep(self._settings.lease_retry_seconds)
            if await self._try(within=deadline - self._monotonic()):
                deadline = self._monotonic() + self._settings.lease_renew_deadline
            elif self._seen[0] not in ("", self._settings.identity):
                break
        self.held = False
        LEADER.set(0)
        log.error("lease lost", holder=self._seen[0])

    async def release(self) -> None:
        """Give the Lease back, so that the other replica need not wait for it to run out."""
        if not self.held:
            return
        self.held = False
        try:
            lease = await self._client.get(LEASES, self._settings.lease_namespace, self._settings.lease_name)
            if lease["spec"].get("holderIdentity") == self._settings.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(LEASES, self._settings.lease_namespace, self._settings.lease_name, lease)
        except ApiError as error:
            log.warning("lease not released", message=str(error))

    async def _try(self, within: float) -> bool:
        """One attempt to get or renew the Lease; a hanging one leaves time for another."""
        try:
            async with asyncio.timeout(max(0.0, min(within, self._settings.lease_renew_deadline / 2))):
                return await self._get_or_renew()
        except (ApiError, TimeoutError) as error:
            if not isinstance(error, Conflict):
                log.warning("lease not renewed", message=str(error) or type(error).__name__)
            return False

    async def _get_or_renew(self) -> bool:
        namespace, name = self._settings.lease_namespace, self._settings.lease_name
        try:
            lease = await self._client.get(LEASES, namespace, name)
        except NotFound:
            await self._client.create(LEASES, namespace, self._claimed({"metadata": {"name": name}}))
            return True
        if not self._free(lease):
            return False
        written = await self._client.replace(LEASES, namespace, name, self._claimed(lease))
        self._seen = _signature(written)
        return True

    def _free(self, lease: dict[str, Any]) -> bool:
        """Whether the Lease is ours, nobody's, or silent for longer than it lasts."""
        if _signature(lease) != self._seen:
            self._seen, self._seen_at = _signature(lease), self._monotonic()
        self.leader_address = lease["metadata"].get("annotations", {}).get(ADDRESS_ANNOTATION)
        holder = lease["spec"].get("holderIdentity")
        lasts = float(lease["spec"].get("leaseDurationSeconds", self._settings.lease_seconds))
        return holder in (None, "", self._settings.identity) or self._monotonic() - self._seen_at > lasts

    def _claimed(self, lease: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = lease.get("spec", {})
        ours = spec.get("holderIdentity") == self._settings.identity
        spec = spec | {
            "holderIdentity": self._settings.identity,
            "leaseDurationSeconds": max(1, round(self._settings.lease_seconds)),
            "renewTime": now,
            "acquireTime": spec.get("acquireTime", now) if ours else now,
            "leaseTransitions": spec.get("leaseTransitions", 0) + (0 if ours else 1),
        }
        address = f"http://{self._settings.address}:{self._settings.port}"
        metadata = lease["metadata"] | {
            "annotations": lease["metadata"].get("annotations", {}) | {ADDRESS_ANNOTATION: address}
        }
        return lease | {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _signature(lease: dict[str, Any]) -> tuple[str, str]:
    return lease["spec"].get("holderIdentity") or "", lease["metadata"]["resourceVersion"]
