"""The CRDs that are committed are those of the types: a default, a bound or a rule that changes is seen in the diff."""

import json
from pathlib import Path

import pytest

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference
from hack.generate import crds


@pytest.mark.parametrize("kind", [AnomalyExperiment, AnomalyInference])
def test_the_committed_crd_is_that_of_the_types(kind: crds.Kind) -> None:
    committed = (crds.CRD_DIR / f"{kind.plural}.yaml").read_text()
    assert crds.render(kind) == committed, "make generate"


@pytest.mark.parametrize("folder", crds.COPIES, ids=lambda folder: folder.parent.name)
def test_what_is_installed_is_what_is_committed(folder: Path) -> None:
    for kind in (AnomalyExperiment, AnomalyInference):
        name = f"{kind.plural}.yaml"
        assert (folder / name).read_text() == (crds.CRD_DIR / name).read_text(), "make generate"


@pytest.mark.parametrize("kind", [AnomalyExperiment, AnomalyInference])
def test_kubectl_applies_a_crd_on_the_client_side_too(kind: crds.Kind) -> None:
    """It keeps the whole object in an annotation, of which there may be 256 KiB."""
    assert len(json.dumps(crds.crd(kind), separators=(",", ":"))) < 262_144
