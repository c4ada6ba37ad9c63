"""A manifest on a laptop means what it means in a cluster: both judge random manifests alike.

``--random-manifests N`` compares more of them; a manifest depends only on its kind and number.
"""

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException, CustomObjectsApi
from pydantic import ValidationError

from anomaly_api import GROUP, VERSION
from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference
from anomaly_runner.manifests import parse_resource
from anomaly_runner.system.kubectl_yaml import read_documents
from support.kube import Manifest, Namespace, api_client
from support.manifest_fuzz import random_manifest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
KINDS = (AnomalyExperiment, AnomalyInference)
REFUSED = (400, 422)
"""Statuses of an API server that refuses fields it does not know, and values that do not fit."""
CONNECTIONS = 4


def schema_of(kind: type[AnomalyExperiment | AnomalyInference]) -> dict[str, Any]:
    crd = yaml.safe_load((ROOT / "crds" / f"{kind.plural}.yaml").read_text())
    schema: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def samples(kind: str) -> list[Manifest]:
    files = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
    return [sample for file in files for sample in yaml.safe_load_all(file.read_text()) if sample["kind"] == kind]


def pydantic_accepts(manifest: Manifest) -> bool:
    try:
        parse_resource(manifest)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind_name)
def test_random_manifests_are_judged_alike(
    namespace: Namespace, kind: type[AnomalyExperiment | AnomalyInference], request: pytest.FixtureRequest
) -> None:
    api = CustomObjectsApi(api_client())
    schema, valid = schema_of(kind), samples(kind.kind_name)

    def manifest(number: int) -> Manifest:
        chance = random.Random(f"{kind.plural} {number}")
        made = random_manifest(chance.choice(valid), schema, chance)
        # As kubectl sends it: 1.0 is 1.
        sent: Manifest = read_documents(json.dumps(made | {"metadata": {"name": "random"}}))[0]
        return sent

    def api_server_accepts(sent: Manifest) -> bool:
        options = {"dry_run": "All", "field_validation": "Strict"}
        try:
            api.create_namespaced_custom_object(GROUP, VERSION, namespace.name, kind.plural, sent, **options)
        except ApiException as error:
            if error.status not in REFUSED:
                raise
            return False
        return True

    def judge(number: int) -> tuple[bool, bool, str]:
        sent = manifest(number)
        return pydantic_accepts(sent), api_server_accepts(sent), json.dumps(sent["spec"])

    count = request.config.getoption("--random-manifests") // len(KINDS)
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        judged = list(threads.map(judge, range(count)))
    apart = [(mine, theirs, spec) for mine, theirs, spec in judged if mine != theirs]
    assert not apart, f"{len(apart)} of {count}, as pydantic and the API server accept them: {apart[:3]}"
    sides = Counter(accepted for accepted, _, _ in judged)
    assert min(sides[True], sides[False]) > count / 10, f"both sides are tried: {sides}"
