"""The rights of the operator's ServiceAccount: what it needs, and nothing else."""

import json
from pathlib import Path

import pytest

from support.kube import KubectlError, kubectl

pytestmark = pytest.mark.cluster

ALLOWED = [
    ("list", "anomalyexperiments.anomalyops.io"),
    ("watch", "anomalyinferences.anomalyops.io"),
    ("update", "anomalyexperiments.anomalyops.io/status"),
    ("create", "anomalyexperiments.anomalyops.io"),
    ("patch", "anomalyexperiments.anomalyops.io"),
    ("delete", "anomalyexperiments.anomalyops.io"),
    ("create", "jobs.batch"),
    ("patch", "jobs.batch"),
    ("list", "pods"),
    ("list", "events"),
    ("create", "events.events.k8s.io"),
    ("create", "tokenreviews.authentication.k8s.io"),
]
REFUSED = [
    ("get", "secrets"),
    ("list", "secrets"),
    ("watch", "secrets"),
    ("create", "secrets"),
    ("get", "configmaps"),
    ("list", "configmaps"),
    ("create", "configmaps"),
    ("update", "configmaps"),
    ("list", "nodes"),
    ("get", "nodes"),
    ("patch", "nodes"),
    ("create", "pods"),
    ("patch", "pods"),
    ("update", "pods"),
    ("create", "pods/exec"),
    ("get", "pods/log"),
    ("create", "pods/ephemeralcontainers"),
    ("update", "anomalyexperiments.anomalyops.io"),
    ("patch", "anomalyinferences.anomalyops.io"),
    ("create", "anomalyinferences.anomalyops.io"),
    ("delete", "anomalyinferences.anomalyops.io"),
    ("update", "jobs.batch"),
    ("patch", "jobs.batch/status"),
    ("create", "cronjobs.batch"),
    ("create", "deployments.apps"),
    ("list", "deployments.apps"),
    ("create", "daemonsets.apps"),
    ("create", "serviceaccounts"),
    ("create", "serviceaccounts/token"),
    ("impersonate", "users"),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("escalate", "clusterroles.rbac.authorization.k8s.io"),
    ("list", "namespaces"),
    ("create", "namespaces"),
    ("list", "persistentvolumeclaims"),
    ("list", "customresourcedefinitions.apiextensions.k8s.io"),
    ("get", "leases.coordination.k8s.io"),
    ("watch", "events"),
    ("create", "events"),
    ("delete", "leases.coordination.k8s.io"),
    ("*", "*"),
]


def may(account: Path, verb: str, resource: str, namespace: str = "default") -> bool:
    kind, _, subresource = resource.partition("/")
    words = [verb, kind, *([f"--subresource={subresource}"] if subresource else [])]
    try:
        answer = kubectl(f"--kubeconfig={account}", "auth", "can-i", *words, f"--namespace={namespace}")
    except KubectlError:
        return False
    return answer.strip() == "yes"


@pytest.mark.parametrize(("verb", "resource"), ALLOWED, ids=" ".join)
def test_needed_rights_are_granted(account: Path, verb: str, resource: str) -> None:
    assert may(account, verb, resource)


@pytest.mark.parametrize(("verb", "resource"), REFUSED, ids=" ".join)
def test_other_rights_are_refused(account: Path, verb: str, resource: str) -> None:
    assert not may(account, verb, resource)


def test_only_its_own_lease(account: Path) -> None:
    assert not may(account, "update", "leases.coordination.k8s.io", "anomaly-system")
    rules = json.loads(kubectl("-n", "anomaly-system", "get", "role", "anomaly-operator", "-o", "json"))["rules"]
    assert [rule["resources"] for rule in rules] == [["leases"], ["leases"]]
    assert rules[0]["resourceNames"] == ["anomaly-operator"]
    assert rules[1]["verbs"] == ["create"]


def test_forbidden_requests_of_the_account_fail(account: Path) -> None:
    """Not only the access review says no: the requests themselves are refused."""
    for words in (["get", "secrets"], ["get", "nodes"], ["get", "configmaps"]):
        with pytest.raises(KubectlError, match="Forbidden"):
            kubectl(f"--kubeconfig={account}", *words)
