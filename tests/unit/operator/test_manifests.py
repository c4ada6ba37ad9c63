"""The objects with which the operator is installed: its rights, its settings, its pods."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomaly_operator.handlers import kopf_settings
from anomaly_operator.settings import Settings, parse

BASE = Path(__file__).parents[3] / "manifests" / "base"
RUNS = "anomalyops.io"
RIGHTS = {
    f"{RUNS}/anomalyexperiments": {"list", "watch", "get", "create", "patch", "delete"},
    f"{RUNS}/anomalyinferences": {"list", "watch"},
    f"{RUNS}/anomalyexperiments/status": {"update"},
    f"{RUNS}/anomalyinferences/status": {"update"},
    "batch/jobs": {"get", "list", "watch", "create", "patch", "delete"},
    "/pods": {"list", "watch", "delete"},
    "/events": {"list"},
    "events.k8s.io/events": {"create"},
    "authentication.k8s.io/tokenreviews": {"create"},
}
"""What the operator may do in all namespaces, and nothing else."""


def load(name: str) -> dict[tuple[str, str], Any]:
    """The objects of a file by kind and name."""
    found = yaml.safe_load_all((BASE / name).read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def rights(rules: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return found


def test_the_operator_has_these_rights_alone() -> None:
    objects = load("rbac.yaml")
    assert rights(objects["ClusterRole", "anomaly-operator"]["rules"]) == RIGHTS
    named, unnamed = objects["Role", "anomaly-operator"]["rules"]
    assert named["resourceNames"] == ["anomaly-operator"]
    assert rights([named]) == {"coordination.k8s.io/leases": {"get", "update"}}
    assert rights([unnamed]) == {"coordination.k8s.io/leases": {"create"}}


@pytest.mark.parametrize("kind", ["ClusterRole", "Role"])
def test_the_rights_are_those_of_the_operators_own_account(kind: str) -> None:
    binding = load("rbac.yaml")[f"{kind}Binding", "anomaly-operator"]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (kind, "anomaly-operator")
    account = {"kind": "ServiceAccount", "name": "anomaly-operator", "namespace": "anomaly-system"}
    assert binding["subjects"] == [account]
    assert pod_spec()["serviceAccountName"] == "anomaly-operator"


def test_those_who_may_view_or_edit_a_namespace_may_do_so_with_its_runs() -> None:
    objects = load("user-roles.yaml")
    read = {"get", "list", "watch"}
    write = {"create", "update", "patch", "delete", "deletecollection"}
    both = ("anomalyexperiments", "anomalyinferences")
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    for name, verbs, roles in (("anomaly-view", read, {"view"}), ("anomaly-edit", read | write, {"edit", "admin"})):
        role = objects["ClusterRole", name]
        assert rights(role["rules"]) == {f"{RUNS}/{resource}": verbs for resource in both}
        labels = role["metadata"]["labels"].items()
        assert {
            key.removeprefix(aggregate) for key, value in labels if key.startswith(aggregate) and value == "true"
        } == roles


def deployment() -> dict[str, Any]:
    found: dict[str, Any] = load("deployment.yaml")["Deployment", "anomaly-operator"]
    return found


def pod_spec() -> dict[str, Any]:
    spec: dict[str, Any] = deployment()["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (found,) = pod_spec()["containers"]
    one: dict[str, Any] = found
    return one


def settings(variables: dict[str, str]) -> Settings:
    return replace(parse([], variables), identity="another at each start")


def test_a_process_that_does_not_end_is_killed_before_the_kubelet_would() -> None:
    allowed = kopf_settings().process.ultimate_exiting_timeout or 0
    assert 10 <= allowed < pod_spec()["terminationGracePeriodSeconds"]


def test_each_variable_of_the_deployment_is_a_setting() -> None:
    variables = {one["name"]: one.get("value", "10.0.0.7") for one in container()["env"]}
    assert container()["env"][-1] == {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    found = settings(variables)
    assert (found.address, found.port, found.namespaces, found.lease_seconds) == ("10.0.0.7", 8080, (), 15.0)
    assert (found.pods.runner_image, found.pods.inference_image) == ("anomaly-runner:0.1.0", "anomaly-inference:0.1.0")
    assert found.pods.service_url == "http://anomaly-operator.anomaly-system.svc:8080"
    assert (found.pods.image_pull_policy, found.pods.node_cache, found.log_level) == ("IfNotPresent", None, "INFO")
    for name in variables:
        assert settings(variables | {name: "61"}) != found, f"{name} has no effect"


def test_the_pod_has_no_more_than_it_needs() -> None:
    assert pod_spec()["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "limits" in container()["resources"]


def test_probes_ask_the_port_that_the_operator_serves() -> None:
    (port,) = container()["ports"]
    assert port == {"name": "http", "containerPort": 8080}
    assert container()["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container()["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


def test_everything_selects_the_operators_pods() -> None:
    labels = deployment()["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/name": "anomaly-operator"}
    assert deployment()["spec"]["selector"]["matchLabels"] == labels
    service = load("service.yaml")["Service", "anomaly-operator"]["spec"]
    assert service["selector"] == labels
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(8080, "http")]
    budget = load("disruption.yaml")["PodDisruptionBudget", "anomaly-operator"]["spec"]
    assert (budget["selector"]["matchLabels"], budget["maxUnavailable"]) == (labels, 1)
    policy = load("network-policy.yaml")["NetworkPolicy", "anomaly-operator"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert (policy["policyTypes"], policy["ingress"]) == (
        ["Ingress"],
        [{"ports": [{"port": "http", "protocol": "TCP"}]}],
    )


def test_the_base_has_all_of_its_files() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    there = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert there <= set(listed)
