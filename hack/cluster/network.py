"""The bridge that connects pods, and the kernel settings that let Services reach them.

The host is the gateway on the bridge, so pods reach the processes that run beside them (the API
server, CoreDNS) at its address, and the host reaches pods directly.
"""

from __future__ import annotations

from pathlib import Path

from hack.cluster import settings
from hack.cluster.shell import run, succeeds

PREFIX_LENGTH = settings.POD_CIDR.rpartition("/")[2]
# Pods of one node communicate through the bridge, where replies would bypass the address translation
# of Services if netfilter did not see bridged packets.
BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def ensure() -> None:
    """Create the bridge with the gateway's address, and let the kernel forward packets."""
    if not succeeds("ip", "link", "show", settings.BRIDGE):
        run("ip", "link", "add", settings.BRIDGE, "type", "bridge")
    if settings.GATEWAY not in run("ip", "-4", "address", "show", "dev", settings.BRIDGE):
        address = f"{settings.GATEWAY}/{PREFIX_LENGTH}"
        run("ip", "address", "add", address, "dev", settings.BRIDGE)
    run("ip", "link", "set", settings.BRIDGE, "up")
    if not BRIDGE_NETFILTER.exists():
        run("modprobe", "br_netfilter")
    for switch in (BRIDGE_NETFILTER, IP_FORWARD):
        if switch.read_text().strip() != "1":
            switch.write_text("1")


def remove() -> None:
    """Delete the bridge and the rules of Services; kernel settings stay, since others may rely on them."""
    if succeeds("ip", "link", "show", settings.BRIDGE):
        run("ip", "link", "delete", settings.BRIDGE)
    for family in ("ip", "ip6"):
        run("nft", "delete", "table", family, "kube-proxy", check=False)
