"""The command line of each process that makes up the cluster."""

from __future__ import annotations

from hack.cluster import config, settings
from hack.cluster.pki import path as pki
from hack.cluster.processes import Component


def _binary(name: str) -> str:
    return str(settings.BIN / name)


def registry() -> Component:
    """The loopback registry: the node pulls from it only the layers that it lacks."""
    command = (_binary("registry"), "serve", str(config.path("registry.yaml")))
    return Component("registry", command, ("registry.yaml",))


def containerd() -> Component:
    """The container runtime, with its own sockets and state, separate from any other containerd."""
    command = ("/usr/bin/containerd", "--config", str(config.path("containerd.toml")))
    return Component("containerd", command, ("containerd.toml", "hosts.toml"))


def etcd() -> Component:
    """The database, without fsync; `store` explains what that costs and how the cluster copes."""
    command = (
        _binary("etcd"),
        f"--data-dir={settings.STORE}",
        f"--listen-client-urls={settings.ETCD}",
        f"--advertise-client-urls={settings.ETCD}",
        f"--listen-peer-urls={settings.ETCD_PEER}",
        f"--initial-advertise-peer-urls={settings.ETCD_PEER}",
        f"--initial-cluster=default={settings.ETCD_PEER}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    return Component("etcd", command)


def api_server() -> Component:
    """The API server, with the authorizers and admission of a production cluster."""
    command = (
        _binary("kube-apiserver"),
        f"--etcd-servers={settings.ETCD}",
        "--secure-port=6443",
        f"--advertise-address={settings.GATEWAY}",
        f"--service-cluster-ip-range={settings.SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,PodSecurity",
        "--allow-privileged",
        f"--client-ca-file={pki('ca.crt')}",
        f"--tls-cert-file={pki('kube-apiserver.crt')}",
        f"--tls-private-key-file={pki('kube-apiserver.key')}",
        f"--kubelet-certificate-authority={pki('ca.crt')}",
        f"--kubelet-client-certificate={pki('kubelet-client.crt')}",
        f"--kubelet-client-key={pki('kubelet-client.key')}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki('sa.pub')}",
        f"--service-account-signing-key-file={pki('sa.key')}",
    )
    return Component("kube-apiserver", command)


def controller_manager() -> Component:
    """The controllers, with raised client limits: otherwise hundreds of Jobs at once would queue."""
    command = (
        _binary("kube-controller-manager"),
        f"--kubeconfig={pki('kube-controller-manager.conf')}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--root-ca-file={pki('ca.crt')}",
        f"--service-account-private-key-file={pki('sa.key')}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    )
    return Component("kube-controller-manager", command)


def scheduler() -> Component:
    """The scheduler."""
    command = (
        _binary("kube-scheduler"),
        f"--config={config.path('kube-scheduler.yaml')}",
        "--bind-address=127.0.0.1",
    )
    return Component("kube-scheduler", command, ("kube-scheduler.yaml",))


def kubelet() -> Component:
    """The kubelet of the only node."""
    command = (
        _binary("kubelet"),
        f"--config={config.path('kubelet.yaml')}",
        f"--kubeconfig={pki('kubelet.conf')}",
        f"--root-dir={settings.RUN / 'kubelet'}",
        f"--cert-dir={settings.RUN / 'kubelet' / 'pki'}",
        f"--hostname-override={settings.NODE}",
        f"--node-ip={settings.GATEWAY}",
    )
    return Component("kubelet", command, ("kubelet.yaml",))


def proxy() -> Component:
    """kube-proxy: Services for pods and for the host."""
    command = (_binary("kube-proxy"), f"--config={config.path('kube-proxy.yaml')}")
    return Component("kube-proxy", command, ("kube-proxy.yaml",))


def dns() -> Component:
    """CoreDNS, on the host."""
    command = (_binary("coredns"), "-conf", str(config.path("Corefile")))
    return Component("coredns", command, ("Corefile",))


def readers() -> tuple[Component, ...]:
    """Return the processes that cache the contents of etcd, in the order in which they start."""
    return api_server(), controller_manager(), scheduler(), kubelet(), proxy(), dns()


def all_components() -> tuple[Component, ...]:
    """Return every process, in the order in which they start."""
    return registry(), containerd(), etcd(), *readers()
