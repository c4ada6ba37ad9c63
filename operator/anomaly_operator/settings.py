"""The operator's own configuration: flags, each with an environment variable for Deployments.

Read once at the start; nothing else in the operator looks at flags or, credentials apart, at the environment.
"""

import argparse
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anomaly_operator.decide.pod_settings import PodSettings

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Configuration of one operator process. Durations are in seconds."""

    pods: PodSettings
    """What every run's pod gets from the operator."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to watch; none means all."""
    skipped_namespaces: tuple[str, ...] = ()
    """Namespaces that were asked for, but could not be read when the process started."""
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}")
    """Identity of this process as holder of the Lease; unique to each process."""
    address: str = "127.0.0.1"
    """Host at which the other replicas reach this one."""
    bind: str = "0.0.0.0"  # noqa: S104 - probes and pods come from outside
    """Address to listen on."""
    port: int = 8080
    """Port of progress, metrics and probes."""
    lease_namespace: str = "anomaly-system"
    """Namespace of the Lease."""
    lease_name: str = "anomaly-operator"
    """Name of the Lease."""
    lease_seconds: float = 15.0
    """How long a leader that does not renew stays leader."""
    resync_seconds: float = 300.0
    """Pause between full LISTs, which heal lost watch events."""
    progress_seconds: float = 2.0
    """Shortest pause between status updates for progress alone."""
    workers: int = 16
    """Runs reconciled at the same time."""
    log_level: str = "INFO"
    """Least severe level that is logged."""

    @property
    def lease_renew_deadline(self) -> float:
        """Seconds after which a leader that could not renew ends itself; 10 of 15, as in client-go."""
        return self.lease_seconds * 2 / 3

    @property
    def lease_retry_seconds(self) -> float:
        """Seconds between attempts to get or renew the Lease; 2 of 15, as in client-go."""
        return self.lease_seconds * 2 / 15


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Parse the command line; every flag defaults to its environment variable.

    Raises:
        SystemExit: a flag is not known or its value is not valid (argparse).
        ValueError: an environment variable is not a number where one is needed.
    """
    flags = _parser(environment).parse_args(arguments)
    return Settings(
        pods=PodSettings(
            runner_image=flags.runner_image,
            inference_image=flags.inference_image,
            service_url=flags.service_url or None,
            image_pull_policy=flags.image_pull_policy,
            node_cache=flags.node_cache or None,
            installation=flags.lease_namespace,
        ),
        namespaces=tuple(name for name in flags.watch_namespaces.split(",") if name),
        address=flags.address,
        bind=flags.bind,
        port=flags.port,
        lease_namespace=flags.lease_namespace,
        lease_seconds=flags.lease_seconds,
        resync_seconds=flags.resync_seconds,
        log_level=flags.log_level.upper(),
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anomaly-operator", description="Turns AnomalyExperiments and AnomalyInferences into Jobs."
    )

    def flag(name: str, default: str, text: str, kind: type = str) -> None:
        variable = "ANOMALY_" + name.upper().replace("-", "_")
        value = environment.get(variable, default)
        parser.add_argument(f"--{name}", type=kind, default=kind(value), help=f"{text} ({variable}; now: {value!r})")

    flag("runner-image", "anomaly-runner:latest", "image that trains")
    flag("inference-image", "anomaly-inference:latest", "image that runs exported models")
    flag("image-pull-policy", "IfNotPresent", "pull policy of both")
    flag("service-url", "", "URL at which pods reach this operator, such as http://anomaly-operator.NAMESPACE:8080")
    flag("node-cache", "", "folder on every node that keeps pulled data for dataset.cache.node; empty means none")
    flag("watch-namespaces", "", "comma-separated namespaces; empty means all")
    flag("address", environment.get("POD_IP", "127.0.0.1"), "address at which the other replica reaches this one")
    flag("bind", "0.0.0.0", "address to listen on")  # noqa: S104 - probes and pods come from outside
    flag("port", "8080", "port of progress, metrics and probes", int)
    flag("lease-namespace", _own_namespace(), "namespace of the Lease")
    flag("lease-seconds", "15", "seconds until a silent replica is replaced; it ends itself after two thirds", float)
    flag("resync-seconds", "300", "seconds between full LISTs", float)
    flag("log-level", "INFO", "least severe level that is logged")
    return parser


def _own_namespace() -> str:
    """Return the namespace of the operator's pod, or ``anomaly-system`` outside of a cluster."""
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "anomaly-system"
