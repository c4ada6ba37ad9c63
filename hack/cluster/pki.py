"""Certificates and kubeconfigs: one certificate authority, one client certificate per component.

Each component has its own identity, as on a production cluster, so the API server's RBAC and Node
authorizers decide what it may do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hack.cluster import settings
from hack.cluster.shell import run

VALID_DAYS = "3650"


@dataclass(frozen=True)
class Identity:
    """A certificate's file name, its subject, and the names it may serve under."""

    name: str
    subject: str
    alternative_names: tuple[str, ...]


API_SERVER_NAMES = (
    "IP:127.0.0.1",
    f"IP:{settings.GATEWAY}",
    f"IP:{settings.KUBERNETES_SERVICE_IP}",
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    "DNS:kubernetes.default.svc.cluster.local",
)
SERVERS = (
    Identity("kube-apiserver", "/CN=kube-apiserver", API_SERVER_NAMES),
    Identity("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", ()),
)
CLIENTS = (
    Identity("admin", "/O=system:masters/CN=kubernetes-admin", ()),
    Identity("kube-controller-manager", "/CN=system:kube-controller-manager", ()),
    Identity("kube-scheduler", "/CN=system:kube-scheduler", ()),
    Identity("kube-proxy", "/CN=system:kube-proxy", ()),
    Identity("coredns", "/CN=system:coredns", ()),
    Identity(
        "kubelet",
        f"/O=system:nodes/CN=system:node:{settings.NODE}",
        (f"DNS:{settings.NODE}", "IP:127.0.0.1", f"IP:{settings.GATEWAY}"),
    ),
)


def ensure() -> None:
    """Issue missing certificates; existing ones are kept, so that a user's copy of the kubeconfig keeps working."""
    settings.PKI.mkdir(parents=True, exist_ok=True)
    settings.PKI.chmod(0o700)
    _ensure_authority()
    _ensure_service_account_key()
    for identity in SERVERS + CLIENTS:
        _ensure_certificate(identity)
    for identity in CLIENTS:
        _ensure_kubeconfig(identity.name)


def path(name: str) -> Path:
    """Return the path of the file `name` of the public key infrastructure."""
    return settings.PKI / name


def _ensure_authority() -> None:
    if path("ca.crt").exists():
        return
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", VALID_DAYS),
        *("-subj", "/CN=kubernetes-ca", "-keyout", path("ca.key"), "-out", path("ca.crt")),
    )


def _ensure_service_account_key() -> None:
    if path("sa.pub").exists():
        return
    run("openssl", "genrsa", "-out", path("sa.key"), "2048")
    run("openssl", "rsa", "-in", path("sa.key"), "-pubout", "-out", path("sa.pub"))


def _ensure_certificate(identity: Identity) -> None:
    if path(f"{identity.name}.crt").exists():
        return
    request, key = path(f"{identity.name}.csr"), path(f"{identity.name}.key")
    run(
        *("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", identity.subject),
        *("-keyout", key, "-out", request),
    )
    names = ",".join(identity.alternative_names or (f"DNS:{identity.name}",))
    extensions = path(f"{identity.name}.ext")
    extensions.write_text(f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n")
    run(
        *("openssl", "x509", "-req", "-in", request, "-days", VALID_DAYS),
        *("-CA", path("ca.crt"), "-CAkey", path("ca.key"), "-CAcreateserial"),
        *("-extfile", extensions, "-out", path(f"{identity.name}.crt")),
    )
    request.unlink()
    extensions.unlink()


def _ensure_kubeconfig(name: str) -> None:
    """Write a kubeconfig with all certificates embedded, so that it can be copied."""
    target = path(f"{name}.conf")
    if target.exists():
        return
    config = (settings.BIN / "kubectl", "config", f"--kubeconfig={target}")
    run(
        *config,
        *("set-cluster", "embedded", f"--server={settings.API_SERVER}", "--embed-certs"),
        f"--certificate-authority={path('ca.crt')}",
    )
    run(
        *config,
        *("set-credentials", name, "--embed-certs"),
        f"--client-certificate={path(f'{name}.crt')}",
        f"--client-key={path(f'{name}.key')}",
    )
    run(*config, "set-context", "embedded", "--cluster=embedded", f"--user={name}")
    run(*config, "use-context", "embedded")
