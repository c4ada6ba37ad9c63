"""The operator's credentials: its ServiceAccount in a cluster, a kubeconfig elsewhere.

kopf reads both; this module only decides which of them is used. KUBECONFIG, when set, wins.
"""

import dataclasses
import os

import kopf
import yaml

from anomaly_operator.errors import LoginError


def login(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    """Read the current credentials: the token of a ServiceAccount changes every hour.

    Raises:
        LoginError: there is neither a ServiceAccount nor a kubeconfig, or it cannot be read, or names what it lacks.
    """
    try:
        info = kopf.login_with_kubeconfig(settings=settings) if os.environ.get("KUBECONFIG") else None
        info = info or _in_cluster(settings) or kopf.login_with_kubeconfig(settings=settings)
    except (OSError, yaml.YAMLError, kopf.LoginError, KeyError) as error:
        raise LoginError(f"the credentials cannot be read: {type(error).__name__}: {error}") from error
    if info is None:
        raise LoginError("neither a service account nor a kubeconfig: set KUBECONFIG")
    return info


def _in_cluster(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo | None:
    """Return the ServiceAccount's credentials, with the API server's IP address, which needs no cluster DNS."""
    info = kopf.login_with_service_account(settings=settings)
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if info is None or host is None:
        return info
    address = f"[{host}]" if ":" in host else host
    return dataclasses.replace(info, server=f"https://{address}:{port}")
