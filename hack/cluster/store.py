"""The data of etcd, and how the cluster recovers when etcd loses some of it.

etcd runs without fsync: hundreds of Jobs at once would otherwise wait for the disk. Nothing is lost
when it stops, not even when it is killed, because the kernel has its writes by then. When the machine
dies, or a disk is restored to an older state, the last seconds of acknowledged writes are gone, with
one of two effects.

etcd may continue from an older state. It counts its revisions from there, so earlier readers know
objects and versions that no longer exist: watches stay silent until the revision has caught up,
controllers wait for their own writes to appear in their caches, and the API server serves objects
from its memory that are in no store. None of them notices this by itself. Therefore all readers of
etcd stop before it starts, and start after it. Pods may be readers too (an operator is one), and
some may no longer exist in the store: all of them are removed, as if the node had been rebooted, and
the kubelet starts those that still exist. This happens at every start of etcd, whether it was killed
or stopped properly, and whether or not its revision went back: it takes seconds, and is rare. A mark
of an unclean stop, or a revision to compare with, would save little, and could itself be lost or
wrong.

etcd may also be unable to continue. Damaged files make it crash at the start. Or its database has
reached the disk while the end of its log, which is written first, has not: it then mistakes every
new write for one that the database holds already, its own announcement too, and never begins to
serve. So a start succeeds only when everything can be read and something can be written. A store that
fails this cannot be repaired, as no copy of it exists: the cluster is deleted and created again, as
by `down` and `up`. Objects and the data of volumes are lost; images, binaries and certificates stay.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from http.client import HTTPException

from hack.cluster import components, processes, settings
from hack.cluster.shell import ClusterError, tail

# Long, because busy machines start slowly, and a store that is declared damaged costs the whole cluster.
PATIENCE_SECONDS = 60.0
REQUEST_SECONDS = 15.0
# Outside the API server's keys, which all start with /registry.
PROBE_KEY = "/anomaly-cluster/probe"
# Log texts with which a Go program, or etcd's logger, ends the process by itself.
CRASH_MARKS = ('"level":"fatal"', '"level":"panic"', "panic: ", "fatal error: ")
# Causes of crashes that are not the store's fault.
FAULTS_OF_THE_MACHINE = (
    "address already in use",
    "cannot allocate memory",
    "no space left on device",
    "out of memory",
    "permission denied",
    "read-only file system",
    "too many open files",
)


class DamagedError(ClusterError):
    """etcd cannot work with its store; the message describes the symptom."""


def ensure_usable() -> None:
    """Wait until the running etcd reads all of its store and writes to it.

    Raises:
        DamagedError: it does not, because of its store.
        ClusterError: it does not, for another reason.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _reads_and_writes():
        if not processes.is_running(components.etcd()):
            raise _reason_of_death()
        if time.monotonic() > deadline:
            raise DamagedError(f"etcd answered no read and write of its store within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.1)


def _reads_and_writes() -> bool:
    try:
        _ask("range", {"key": _encoded("\0"), "range_end": _encoded("\0")})
        _ask("put", {"key": _encoded(PROBE_KEY), "value": _encoded("written")})
    except (OSError, HTTPException):
        return False
    return True


def _ask(method: str, question: dict[str, str]) -> None:
    """Send a request to etcd's JSON interface, without a proxy.

    Raises:
        OSError, HTTPException: the response did not arrive completely.
    """
    request = urllib.request.Request(f"{settings.ETCD}/v3/kv/{method}", json.dumps(question).encode())
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=REQUEST_SECONDS) as answer:
        answer.read()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _reason_of_death() -> ClusterError:
    """Return a DamagedError if etcd's log shows a crash caused by its store, else a ClusterError."""
    log = components.etcd().log
    lines = log.read_text(errors="replace").splitlines()
    crash = next((line for line in lines if any(mark in line for mark in CRASH_MARKS)), None)
    if crash is None or any(fault in crash.lower() for fault in FAULTS_OF_THE_MACHINE):
        return ClusterError(f"etcd died; {log} ends:\n{tail(log)}")
    return DamagedError(f"etcd crashed: {_gist(crash)}")


def _gist(line: str) -> str:
    """Return the error, or else the message, of a line of etcd's log; a line that is not JSON unchanged."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return str(entry.get("error") or entry.get("msg") or line)
