"""A training's profile: whole runs on the CPU, whose trace is read back."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from anomaly_api.run import RunReport
from anomaly_runner.local import run_locally
from support.textures import EXPERIMENT, write_manifest, write_textures

BATCH, STEPS = 2, 4
PADIM = {"name": "padim", "padim": {"backbone": "resnet18", "preTrained": False, "layers": ["layer1"], "nFeatures": 10}}
FASTFLOW = {"name": "fastflow", "fastflow": {"backbone": "resnet18", "preTrained": False, "flowSteps": 2}}
MEGABYTES = 2**20


def run(folder: Path, model: dict[str, Any], profile: dict[str, int], **training: Any) -> tuple[Path, RunReport]:
    """Train on ``STEPS`` batches of textures; the folder of the artifacts and the report."""
    write_textures(folder / "data/textures", train=BATCH * STEPS)

    def change(document: dict[str, Any]) -> None:
        document["metadata"]["name"] = "profiled"
        document["spec"] |= {
            "model": model,
            "evaluation": {},
            "export": {"types": []},
            "training": {"trainBatchSize": BATCH, "profile": profile} | training,
        }

    assert run_locally(write_manifest(folder, EXPERIMENT, change), folder) == 0
    artifacts = folder / "results/factory/profiled/local"
    return artifacts, RunReport.model_validate_json((artifacts / "report.json").read_bytes())


@pytest.mark.parametrize(
    ("model", "training", "operator"),
    [(PADIM, {}, "aten::baddbmm_"), (FASTFLOW, {"maxEpochs": 1}, "aten::convolution_backward")],
    ids=["padim", "fastflow"],
)
def test_the_trace_holds_the_operators_of_the_steps_that_were_asked_for(
    tmp_path: Path, model: dict[str, Any], training: dict[str, Any], operator: str
) -> None:
    artifacts, report = run(tmp_path, model, {"warmup": 1, "active": 2}, **training)
    trace = artifacts / "profile/trace.json.gz"
    assert report.summary.artifacts is not None
    assert report.summary.artifacts.profile == f"{report.summary.artifacts.root}/profile/trace.json.gz"
    assert report.summary.artifacts.profile in (artifacts / "report.html").read_text()
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    found = [event for event in events if event["name"] == operator]
    assert found
    assert all(event["args"]["Input Dims"] for event in found)
    steps = {event["name"] for event in events if event["name"].startswith("ProfilerStep#")}
    assert steps == {"ProfilerStep#1", "ProfilerStep#2"}
    assert operator in (artifacts / "profile/operators.txt").read_text()
    assert trace.stat().st_size < 4 * MEGABYTES
    assert not any("training.profile" in warning for warning in report.summary.warnings)


@pytest.mark.parametrize(
    ("profile", "recorded"), [({"warmup": 1, "active": 50}, STEPS - 1), ({"wait": STEPS, "active": 3}, 0)]
)
def test_a_short_training_is_recorded_as_far_as_it_goes(tmp_path: Path, profile: dict[str, int], recorded: int) -> None:
    artifacts, report = run(tmp_path, PADIM, profile)
    assert (artifacts / "profile/trace.json.gz").exists() == bool(recorded)
    expected = f"training.profile: {recorded} of {profile['active']} steps recorded: the training had {STEPS}"
    assert expected in report.summary.warnings
    if recorded:
        events = json.loads(gzip.decompress((artifacts / "profile/trace.json.gz").read_bytes()))["traceEvents"]
        assert {event["name"] for event in events if event["name"] == "aten::baddbmm_"}
