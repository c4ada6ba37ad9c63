"""What etcd holds, and what becomes of the cluster when etcd loses some of it.

etcd runs without fsync: hundreds of Jobs at once would otherwise wait for the disk. Nothing is lost
when it stops, not even when it is killed, because the kernel has its writes by then. When the machine
dies, or a disk is put back to what it was, the last seconds of acknowledged writes are gone, which
shows in two ways.

etcd may go on from an older state. It counts its revisions anew from there, so whoever read from it
before knows objects and versions that do not exist: watches stay silent until the count has come
as far again, controllers wait for their own writes to appear in their caches, and the API server
serves objects from its memory that are in no store. None of them finds out by itself. Therefore all
readers of etcd stop before it starts, and start after it. Pods read as well (an operator is one),
and some may be forgotten: all of them are removed, as if the node had been rebooted, and the kubelet
starts those that there still are. This happens at every start of etcd, whether it was killed or
stopped in peace, and whether or not its revision went back: it costs seconds, and is rare. A mark
of an unclean stop, or a revision to compare with, would spare little, and could be lost or wrong
itself.

etcd may also be unable to go on. Damaged files make it crash at the start. Or its database has
reached the disk while the end of its log, which is written first, has not: it then takes every new
write for one that the database holds already, its own announcement too, and never begins to serve.
So a start counts only when everything can be read and something can be written. A store that fails
this is beyond repair, as no copy of it exists: the cluster is deleted and made anew, as by `down`
and `up`. Objects and the data of volumes are lost; images, binaries and certificates stay.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from http.client import HTTPException

from hack.cluster import components, processes, settings
from hack.cluster.shell import ClusterError, tail

# Busy machines take long to start anything, and the verdict costs the whole cluster.
PATIENCE_SECONDS = 60.0
REQUEST_SECONDS = 15.0
# Beside the keys of the API server, which all start with /registry.
PROBE_KEY = "/anomaly-cluster/probe"
# How programs in Go end by their own decision, or by that of etcd's logger.
CRASH_MARKS = ('"level":"fatal"', '"level":"panic"', "panic: ", "fatal error: ")
# Crashes that another store would share.
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
    """etcd cannot work with its store; the message says how that showed."""


def ensure_usable() -> None:
    """Wait until etcd, which is running, reads all of its store and writes to it.

    Raises DamagedError when the store is to blame that it does not, ClusterError for other reasons.
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
    """Use etcd's JSON interface, past the machine's proxy; raises OSError or HTTPException unless all of it came."""
    request = urllib.request.Request(f"{settings.ETCD}/v3/kv/{method}", json.dumps(question).encode())
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=REQUEST_SECONDS) as answer:
        answer.read()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _reason_of_death() -> ClusterError:
    """DamagedError if etcd's log shows a crash that comes from its store, else ClusterError."""
    log = components.etcd().log
    lines = log.read_text(errors="replace").splitlines()
    crash = next((line for line in lines if any(mark in line for mark in CRASH_MARKS)), None)
    if crash is None or any(fault in crash.lower() for fault in FAULTS_OF_THE_MACHINE):
        return ClusterError(f"etcd died; {log} ends:\n{tail(log)}")
    return DamagedError(f"etcd crashed: {_gist(crash)}")


def _gist(line: str) -> str:
    """The error, or else the message, of a line of etcd's log; a line that is not JSON as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return str(entry.get("error") or entry.get("msg") or line)
