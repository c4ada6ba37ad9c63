"""How the operator proves who it is: its service account in a cluster, KUBECONFIG elsewhere.

kopf reads both; here the result is turned into what an aiohttp session needs. KUBECONFIG, when set, wins.
"""

import dataclasses
import os

import kopf

from anomaly_operator.errors import LoginError


def login(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    """Credentials, read anew: a service account's token changes every hour."""
    info = kopf.login_with_kubeconfig(settings=settings) if os.environ.get("KUBECONFIG") else None
    info = info or _in_cluster(settings) or kopf.login_with_kubeconfig(settings=settings)
    if info is None:
        raise LoginError("neither a service account nor a kubeconfig: set KUBECONFIG")
    return info


def _in_cluster(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo | None:
    info = kopf.login_with_service_account(settings=settings)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if info is None or host is None:
        return info
    address = f"[{host}]" if ":" in host else host
    return dataclasses.replace(info, server=f"https://{address}:{port}")
