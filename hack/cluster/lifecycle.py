"""Up, down and status: the commands of the command line, composed from the other modules.

`up` is level-triggered like the operator it serves: it observes the state, starts or
replaces only what is missing or outdated, and can be repeated at any time.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hack.cluster import components, config, images, network, pki, processes, prune, settings, store, toolchain, volumes
from hack.cluster.shell import ClusterError, kubectl, run, say, succeeds, wait_until

# Seconds before a reader of etcd is killed: the API server would wait much longer for a stopped etcd, and none of them
# has anything to save.
READERS_PATIENCE_SECONDS = 2.0


@contextmanager
def exclusive(what: str = "cluster") -> Iterator[None]:
    """Hold a lock on this machine: two people may run `up` in two terminals at once."""
    settings.HOME.mkdir(parents=True, exist_ok=True)
    with (settings.HOME / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def up() -> None:
    """Bring the cluster up, or repair it; what is up to date stays untouched.

    A store that etcd cannot work with is replaced by an empty one.

    Raises:
        ClusterError: something cannot be installed, built or started.
    """
    toolchain.ensure()
    pki.ensure()
    config.ensure()
    try:
        _start()
    except store.DamagedError as damage:
        say(f"THE CLUSTER'S STORE IS DAMAGED, and begun anew: {damage}")
        say("all objects and the data of volumes are lost; images stay")
        down()
        _start()
    say(f"ready; KUBECONFIG={settings.KUBECONFIG}")


def down(purge: bool = False) -> None:
    """Delete the cluster: its pods, processes, mounts, bridge and state.

    Binaries, certificates and current images stay, so that the next `up` takes seconds; `purge`
    removes these as well.
    """
    _stop_pods()
    if not purge and processes.is_running(components.registry()) and processes.is_running(components.containerd()):
        prune.prune()
    for component in reversed(components.all_components()):
        processes.stop(component)
    network.remove()
    _unmount(settings.HOME if purge else settings.RUN)
    shutil.rmtree(settings.HOME if purge else settings.RUN, ignore_errors=True)


def status() -> bool:
    """Print the state of each process and of the node, and return whether all processes run."""
    all_run = True
    for component in components.all_components():
        alive = processes.is_running(component)
        all_run &= alive
        print(f"{component.name:26}{'running' if alive else 'stopped'}")
    if all_run:
        print(kubectl("get", "nodes", "--output=wide", check=False).strip())
    return all_run


def environment() -> str:
    """Return shell commands that point kubectl, cri and buildah at this cluster."""
    variables = {
        "KUBECONFIG": str(settings.KUBECONFIG),
        "CONTAINER_RUNTIME_ENDPOINT": f"unix://{settings.CONTAINERD_SOCKET}",
        **images.buildah_environment(),
    }
    lines = [f"export {name}={value}" for name, value in variables.items()]
    return "\n".join([*lines, f"export PATH={settings.BIN}:$PATH"])


def ensure_running() -> None:
    """Check that the registry and the container runtime, through which images are delivered, are running.

    Raises:
        ClusterError: one of them is not running.
    """
    for component in (components.registry(), components.containerd()):
        if not processes.is_running(component):
            raise ClusterError(f"{component.name} is not running: bring the cluster up first")


def _start() -> None:
    """Start what is not running, from the network to the node.

    Raises:
        store.DamagedError: etcd cannot work with its store.
        ClusterError: a process died, or was not ready in time.
    """
    network.ensure()
    _start_runtime()
    _start_control_plane()
    _start_node()


def _start_runtime() -> None:
    """Start registry and containerd, then deliver the images that every pod needs."""
    for component in (components.registry(), components.containerd()):
        processes.ensure_running(component)
    wait_until(_registry_answers, "an answer from the registry")
    images.ensure_base_images()
    wait_until(_containerd_answers, "an answer from containerd")
    images.load(settings.PAUSE_IMAGE)


def _registry_answers() -> bool:
    processes.check_alive(components.registry())
    try:
        images.in_registry(settings.PAUSE_IMAGE)
    except OSError:
        return False
    return True


def _containerd_answers() -> bool:
    processes.check_alive(components.containerd())
    return succeeds(settings.BIN / "cri", f"--endpoint=unix://{settings.CONTAINERD_SOCKET}", "images")


def _start_control_plane() -> None:
    if not processes.is_current(components.etcd()):
        _stop_readers_of_etcd()
        processes.ensure_running(components.etcd())
    store.ensure_usable()
    processes.ensure_running(components.api_server())
    wait_until(_api_server_ready, "a ready API server", seconds=120)
    for component in (components.controller_manager(), components.scheduler()):
        processes.ensure_running(component)


def _api_server_ready() -> bool:
    processes.check_alive(components.etcd())
    processes.check_alive(components.api_server())
    return kubectl("get", "--raw=/readyz", check=False) == "ok"


def _start_node() -> None:
    """Start the node's processes, and wait until pods can be scheduled, resolve names and claim volumes."""
    kubectl("apply", "--filename", str(config.path("kube-dns.yaml")))
    for component in (components.kubelet(), components.proxy(), components.dns()):
        processes.ensure_running(component)
    wait_until(_node_ready, "a Ready node", seconds=120)
    _ensure_gpus()
    volumes.ensure()
    wait_until(_default_service_account_exists, "the default service account")


def _node_ready() -> bool:
    processes.check_alive(components.kubelet())
    path = '{.status.conditions[?(@.type=="Ready")].status}'
    return kubectl("get", "node", settings.NODE, f"--output=jsonpath={path}", check=False) == "True"


def _default_service_account_exists() -> bool:
    return kubectl("get", "serviceaccount", "default", "--output=name", check=False) != ""


def _ensure_gpus() -> None:
    """Add simulated GPUs to the node's capacity: scheduler and kubelet both account for them."""
    resource, count = settings.GPU_RESOURCE, str(settings.GPU_COUNT)
    node = json.loads(kubectl("get", "node", settings.NODE, "--output=json"))
    if node["status"]["capacity"].get(resource) == count:
        return
    pointer = resource.replace("/", "~1")
    patch = [{"op": "add", "path": f"/status/capacity/{pointer}", "value": count}]
    kubectl(
        *("patch", "node", settings.NODE, "--subresource=status", "--type=json"),
        f"--patch={json.dumps(patch)}",
    )


def _stop_readers_of_etcd() -> None:
    """Stop everything that caches the contents of etcd, which may continue from an older state."""
    _stop_pods()
    for component in reversed(components.readers()):
        processes.stop(component, READERS_PATIENCE_SECONDS)


def _stop_pods() -> None:
    """Stop the kubelet, so that it restarts no pod, and then the pods, while containerd still runs."""
    processes.stop(components.kubelet())
    if processes.is_running(components.containerd()):
        images.cri("remove-pods")


def _unmount(folder: Path) -> None:
    """Unmount everything below a folder, the innermost first: volumes, root and shm file systems."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{folder}/")]):
        run("umount", "--lazy", mount, check=False)
