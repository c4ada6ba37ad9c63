"""Two replicas, of which one leads; the other takes over when it ends, by SIGTERM or SIGKILL."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_kubelet import experiment
from support.kube import Namespace, kubectl
from support.process import OperatorProcess

pytestmark = pytest.mark.cluster

LEASE_SECONDS = 20
"""Somewhat more than by default, for machines that are busy with other tests."""


@pytest.fixture
def pair(account: Path, namespace: Namespace, tmp_path: Path) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    first, second = (
        OperatorProcess(account, namespace.name, tmp_path / f"{name}.log", f"--lease-seconds={LEASE_SECONDS}")
        for name in ("first", "second")
    )
    OperatorProcess.forget_lease()
    first.start()
    first.wait_until(lambda: first.leads, "leading")
    second.start()
    yield first, second
    for process in (second, first):
        process.stop()
    OperatorProcess.forget_lease()


def holder() -> str:
    return kubectl("-n", "anomaly-system", "get", "lease", "anomaly-operator", "-o", "jsonpath={.spec.holderIdentity}")


def acted(namespace: Namespace, name: str) -> bool:
    return any(job["metadata"]["name"] == f"{name}-experiment" for job in namespace.list("jobs"))


@pytest.mark.parametrize("gently", [True, False], ids=["stopped", "killed"])
def test_takeover(pair: tuple[OperatorProcess, OperatorProcess], namespace: Namespace, gently: bool) -> None:
    first, second = pair
    leader = holder()
    namespace.apply(experiment("before"))
    first.wait_until(lambda: acted(namespace, "before"), "acting")
    assert not second.leads
    assert second.writes() == 0
    if gently:
        first.stop()
    else:
        first.kill()
    began = time.monotonic()
    namespace.apply(experiment("between"))
    second.wait_until(lambda: acted(namespace, "between"), "acting", seconds=4 * LEASE_SECONDS)
    if gently:
        assert time.monotonic() - began < LEASE_SECONDS, "it did not wait until the Lease ran out"
    assert holder() != leader


def test_a_replica_that_lost_the_lease_ends(pair: tuple[OperatorProcess, OperatorProcess]) -> None:
    first, _ = pair
    kubectl(
        "-n",
        "anomaly-system",
        "patch",
        "lease",
        "anomaly-operator",
        "--type=merge",
        "-p",
        '{"spec": {"holderIdentity": "somebody-else"}}',
    )
    process = first._process
    assert process
    # At its next attempt to renew; one that only ran into the deadline for renewals would end after two thirds.
    assert process.wait(LEASE_SECONDS / 2) == 1
    assert "lease lost" in first.log.read_text()
    first._process = None
