"""Leader election, as in client-go: the one replica that holds the Lease acts; by default the same 15/10/2 seconds.

A replica that cannot renew in time ends its process: what it was doing stops at once, and its successor begins with
a fresh LIST. Clocks of different machines are never compared: a Lease has expired when it has not changed for its
duration by the clock of the replica that watches it.

This module holds and renews the Lease; what a leader does is the manager's business.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from anomaly_operator.cluster.client import ApiClient
from anomaly_operator.errors import Conflict, NotFound, OperatorError
from anomaly_operator.metrics import LEADER
from anomaly_operator.resources import LEASES, Manifest
from anomaly_operator.settings import Settings

log = structlog.get_logger()

ADDRESS_ANNOTATION = "anomalyops.io/address"
"""Annotation of the Lease with the URL at which the other replicas reach the leader."""


class LeaderElector:
    """This process as a candidate in the leader election.

    Args:
        client: the API server; with a connection of its own, so that a renewal never waits for other requests.
        settings: identity, address, name and durations of the Lease.
        monotonic: a clock in seconds.
    """

    def __init__(self, client: ApiClient, settings: Settings, monotonic: Callable[[], float]) -> None:
        self._client = client
        self._settings = settings
        self._monotonic = monotonic
        # Holder and resourceVersion of the Lease as last seen, and since when they have been unchanged.
        self._observed_record: tuple[str, str] = ("", "")
        self._observed_at = monotonic()
        self.is_leader = False
        self.leader_address: str | None = None
        """URL of the leader, as the Lease said last; None before the Lease was seen."""

    async def acquire(self) -> None:
        """Wait until this process is the leader."""
        while not await self._try_acquire_or_renew(within=self._settings.lease_renew_deadline):
            await asyncio.sleep(self._settings.lease_retry_seconds)
        self.is_leader = True
        LEADER.set(1)
        log.info("leading", identity=self._settings.identity)

    async def renew(self) -> None:
        """Renew the Lease until leadership is lost."""
        deadline = self._monotonic() + self._settings.lease_renew_deadline
        while self._monotonic() < deadline:
            await asyncio.sleep(self._settings.lease_retry_seconds)
            if await self._try_acquire_or_renew(within=deadline - self._monotonic()):
                deadline = self._monotonic() + self._settings.lease_renew_deadline
                continue
            # Another holder is final, whereas a failed request may succeed before the deadline.
            holder = self._observed_record[0]
            if holder not in ("", self._settings.identity):
                break
        self.is_leader = False
        LEADER.set(0)
        log.error("lease lost", holder=self._observed_record[0])

    async def release(self) -> None:
        """Give the Lease up, so that no replica has to wait until it expires. Failures are logged, not raised."""
        if not self.is_leader:
            return
        self.is_leader = False
        try:
            lease = await self._client.get(LEASES, self._settings.lease_namespace, self._settings.lease_name)
            if lease["spec"].get("holderIdentity") == self._settings.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.replace(LEASES, self._settings.lease_namespace, self._settings.lease_name, lease)
        except OperatorError as error:
            log.warning("lease not released", message=str(error))

    async def _try_acquire_or_renew(self, within: float) -> bool:
        """Make one attempt to get or renew the Lease, and return whether this process holds it.

        Args:
            within: seconds that are left; an attempt takes half the renew deadline at most, so that one that hangs
                leaves time for another.
        """
        try:
            async with asyncio.timeout(max(0.0, min(within, self._settings.lease_renew_deadline / 2))):
                return await self._acquire_or_renew()
        except (OperatorError, TimeoutError) as error:
            if not isinstance(error, Conflict):  # a Conflict means that another replica was faster
                log.warning("lease not renewed", message=str(error) or type(error).__name__)
            return False

    async def _acquire_or_renew(self) -> bool:
        namespace, name = self._settings.lease_namespace, self._settings.lease_name
        try:
            lease = await self._client.get(LEASES, namespace, name)
        except NotFound:
            await self._client.create(LEASES, namespace, self._claimed({"metadata": {"name": name}}))
            return True
        if not self._is_available(lease):
            return False
        # The resourceVersion of what was read makes this fail if another replica wrote in between.
        written = await self._client.replace(LEASES, namespace, name, self._claimed(lease))
        self._observed_record = _record_of(written)
        return True

    def _is_available(self, lease: Manifest) -> bool:
        """Observe the Lease, and return whether it is held by this process, by nobody, or has expired."""
        if _record_of(lease) != self._observed_record:
            self._observed_record, self._observed_at = _record_of(lease), self._monotonic()
        self.leader_address = lease["metadata"].get("annotations", {}).get(ADDRESS_ANNOTATION)
        holder = lease["spec"].get("holderIdentity")
        duration = float(lease["spec"].get("leaseDurationSeconds", self._settings.lease_seconds))
        expired = self._monotonic() - self._observed_at > duration
        return holder in (None, "", self._settings.identity) or expired

    def _claimed(self, lease: Manifest) -> Manifest:
        """Return the Lease with this process as its holder, renewed now."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = lease.get("spec", {})
        is_renewal = spec.get("holderIdentity") == self._settings.identity
        spec = spec | {
            "holderIdentity": self._settings.identity,
            "leaseDurationSeconds": max(1, round(self._settings.lease_seconds)),
            "renewTime": now,
            "acquireTime": spec.get("acquireTime", now) if is_renewal else now,
            "leaseTransitions": spec.get("leaseTransitions", 0) + (0 if is_renewal else 1),
        }
        address = f"http://{self._settings.address}:{self._settings.port}"
        metadata = lease["metadata"] | {
            "annotations": lease["metadata"].get("annotations", {}) | {ADDRESS_ANNOTATION: address}
        }
        return lease | {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _record_of(lease: Manifest) -> tuple[str, str]:
    return lease["spec"].get("holderIdentity") or "", lease["metadata"]["resourceVersion"]
