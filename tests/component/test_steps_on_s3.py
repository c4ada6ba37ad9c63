"""The step check and the step after it, on a real S3 server: what is listed, verified, and done about changed data."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.inference import InferenceSpec
from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import RunConfig, RunIdentity, RunReport, s3_env
from anomaly_api.status import Listing, StepName
from anomaly_api.storage import LocationRole
from anomaly_runner import locations
from anomaly_runner.context import Context, RunRecord
from anomaly_runner.data import images, preprocessor
from anomaly_runner.engine import execute
from anomaly_runner.in_cluster import tracker_of
from anomaly_runner.locations import pod_stores
from anomaly_runner.progress import ProgressMeter
from anomaly_runner.system.stop import StopSignal
from anomaly_runner.termination import FinishedRun, capture_failures
from support.optional import not_none
from support.s3_server import KEY, SECRET, needs_s3_server, s3_server
from support.textures import EXPERIMENT, INFERENCE, write_textures

pytestmark = [needs_s3_server, pytest.mark.slow, pytest.mark.usefixtures("disk_with_space")]

Spec = dict[str, Any]


@dataclass
class S3:
    """A server, the folder of its buckets, and the log of its requests."""

    url: str
    root: Path
    log: Path
    work: Path
    _read: int = 0
    uids: Iterator[int] = field(default_factory=lambda: iter(range(1000)))

    def requests(self) -> list[str]:
        """The requests since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        new, self._read = lines[self._read :], len(lines)
        return new

    def put(self, key: str, content: bytes) -> None:
        """Create or replace a file of the textures, through the server, which gives it an ETag."""
        client(self).put_object(Bucket="data", Key=f"textures/{key}", Body=content)

    def listed(self) -> list[str]:
        """Of these, the listings of the bucket of the images."""
        return [line for line in self.requests() if "ListObjectsV2" in line and " data " in line]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    root = tmp_path_factory.mktemp("s3")
    for bucket in ("data", "results", "weights"):
        (root / bucket).mkdir()
    log = tmp_path_factory.mktemp("log") / "access.log"
    with s3_server(root, log) as url:
        yield S3(url, root, log, Path())


@pytest.fixture
def s3(server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server with the textures as they were."""
    shutil.rmtree(server.root / "data" / "textures", ignore_errors=True)
    write_textures(tmp_path / "textures", train=4, good=2, defects=3)
    for file in (path for path in (tmp_path / "textures").rglob("*") if path.is_file()):
        server.put(file.relative_to(tmp_path / "textures").as_posix(), file.read_bytes())
    for role in LocationRole:
        monkeypatch.setenv(s3_env(role, "AWS_ACCESS_KEY_ID"), KEY)
        monkeypatch.setenv(s3_env(role, "AWS_SECRET_ACCESS_KEY"), SECRET)
    server.work = tmp_path
    server.requests()
    return server


class Run:
    """The steps of one resource, each in a scratch folder of its own, as in pods."""

    def __init__(self, s3: S3, text: str = EXPERIMENT, **changes: Any) -> None:
        document = yaml.safe_load(text)
        spec: Spec = document["spec"] | {"scheduling": {"gpus": {"count": 0}}} | changes
        source = spec["dataset" if "dataset" in spec else "input"]["source"]
        for location in (source, spec["output"], spec["model"].get("location")):
            if location:
                location["s3"] |= {"endpoint": s3.url, "region": "us-east-1"}
        self.s3, self.spec, self.kind = s3, spec, document["kind"]
        self.identity = RunIdentity(kind=self.kind, namespace="factory", name="a", uid=f"uid-{next(s3.uids)}")

    def step(self, step: StepName | None, listing: Listing | None = None) -> FinishedRun:
        spec: Any = (ExperimentSpec if self.kind == "AnomalyExperiment" else InferenceSpec).model_validate(self.spec)
        field = "experiment" if isinstance(spec, ExperimentSpec) else "inference"
        config = RunConfig.model_validate({"run": self.identity, "step": step, "listing": listing, field: spec})
        work = self.s3.work / f"work{next(self.s3.uids)}"
        work.mkdir()
        with ProgressMeter([]) as progress:
            context = Context(
                run=config.run,
                stores=pod_stores(config),
                work=work,
                progress=progress,
                stop=StopSignal(),
                tracker=tracker_of(config, None),
                record=RunRecord(),
            )
            return capture_failures(lambda: execute(config, context), context)

    @property
    def artifacts(self) -> Path:
        """Folder of the run's artifacts on the server."""
        return self.s3.root / "results" / self.identity.folder

    def names(self) -> list[str]:
        """Artifacts that are there."""
        return sorted(
            path.relative_to(self.artifacts).as_posix() for path in self.artifacts.rglob("*") if path.is_file()
        )

    def check(self) -> Listing:
        finished = self.step("check")
        assert finished.exit_code is ExitCode.DONE, finished.summary
        return not_none(finished.summary.listing)


def without_course(report: RunReport) -> dict[str, Any]:
    """A report without times, what the model costs, and the run's own identity."""
    found = report.model_dump(exclude={"run", "config", "started", "seconds", "performance"})
    found["summary"]["artifacts"] = found["summary"]["metrics"]["performance"] = None
    return found


def test_a_checked_experiment_is_listed_once_and_ends_as_one_that_was_not_checked(s3: S3) -> None:
    run = Run(s3)
    listing = run.check()
    assert run.names() == ["listing.parquet"]
    assert len(s3.listed()) == 1
    trained = run.step("train", listing)
    assert trained.exit_code is ExitCode.DONE, trained.summary
    assert s3.listed() == []
    plain = Run(s3).step(None)
    assert len(s3.listed()) == 1
    assert without_course(not_none(trained.report)) == without_course(not_none(plain.report))


def test_the_listing_holds_what_is_used(s3: S3) -> None:
    (s3.root / "data/textures/notes.txt").write_text("no image")
    run = Run(s3)
    run.check()
    table = pyarrow.parquet.read_table(run.artifacts / "listing.parquet").to_pylist()
    scratch = next(row for row in table if row["key"] == "test/scratch/000.png")
    assert (scratch["split"], scratch["label"]) == ("test", "scratch")
    assert scratch["masks"] == ["ground_truth/scratch/000_mask.png"]
    assert {row["key"].split("/")[0] for row in table} == {"train", "test", "ground_truth"}
    assert all(row["etag"] and row["size"] for row in table)


def replace(s3: S3, key: str) -> None:
    """Replace an image by another one of the same size in bytes."""
    file = s3.root / "data/textures" / key
    before, content = file.read_bytes(), BytesIO()
    Image.open(BytesIO(before)).rotate(180).save(content, "PNG")
    data = content.getvalue().ljust(len(before), b"\0")[: len(before)]
    assert data != before
    s3.put(key, data)


def client(s3: S3) -> Any:
    import boto3

    return boto3.client(
        "s3", endpoint_url=s3.url, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )


@pytest.mark.parametrize("key", ["train/good/000.png", "ground_truth/scratch/002_mask.png"])
@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_a_file_that_is_not_what_was_listed_ends_the_attempt_and_the_next_lists_anew(
    s3: S3, key: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(s3)
    listing = run.check()
    if how == "replaced":
        replace(s3, key)
    else:
        client(s3).delete_object(Bucket="data", Key=f"textures/{key}")
    s3.requests()
    first = run.step("train", listing)
    assert (first.exit_code, first.summary.reason) == (ExitCode.DATA_CHANGED, Reason.DATA_CHANGED)
    assert f"s3://data/textures/{key} was replaced or deleted" in first.summary.message
    assert s3.listed() == []
    assert run.names() == [], "the listing is gone"
    second = run.step("train", listing)
    assert second.exit_code is ExitCode.DONE, second.summary
    assert len(s3.listed()) == 1
    assert "the files are listed anew: it is gone" in caplog.text


def test_files_that_were_added_meanwhile_are_not_seen(s3: S3) -> None:
    run = Run(s3)
    listing = run.check()
    s3.put("train/good/999.png", (s3.root / "data/textures/train/good/000.png").read_bytes())
    trained = run.step("train", listing)
    assert trained.exit_code is ExitCode.DONE
    assert not_none(trained.summary.images).train == 4


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_listing_that_is_another_is_not_used(s3: S3, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(s3)
    listing = run.check()
    (run.artifacts / listing.file).write_bytes(content)
    s3.requests()
    assert run.step("train", listing).exit_code is ExitCode.DONE
    assert len(s3.listed()) == 1
    assert "listed anew: its SHA-256 differs" in caplog.text


def test_a_checked_inference_is_listed_once_and_verified(s3: S3) -> None:
    trained = Run(s3)
    assert trained.step(None).exit_code is ExitCode.DONE
    place = {"location": {"s3": {"uri": f"s3://results/{trained.identity.folder}"}}}
    run = Run(s3, INFERENCE, model=place)
    s3.requests()
    listing = run.check()
    assert run.names() == ["listing.parquet"]
    assert len(s3.listed()) == 1
    scored = run.step("score", listing)
    assert scored.exit_code is ExitCode.DONE, scored.summary
    assert s3.listed() == []
    other = Run(s3, INFERENCE, model=place)
    listing = other.check()
    replace(s3, "test/good/001.png")
    assert other.step("score", listing).summary.reason is Reason.DATA_CHANGED
    assert other.names() == []


def test_a_table_is_not_read_again(s3: S3) -> None:
    rows = ["path,label,split"]
    rows += [f"train/good/{place:03d}.png,good,train" for place in range(4)]
    rows += ["test/good/000.png,good,test", "test/scratch/000.png,scratch,test"]
    (s3.root / "data/textures/table.csv").write_text("\n".join(rows))
    run = Run(s3)
    run.spec["dataset"]["table"] = {"path": "table.csv"}
    listing = run.check()
    (s3.root / "data/textures/table.csv").unlink()
    trained = run.step("train", listing)
    assert trained.exit_code is ExitCode.DONE, trained.summary
    assert (not_none(trained.summary.images).train, not_none(trained.summary.images).predicted) == (4, 2)


def test_a_public_dataset_is_not_downloaded_for_a_check(s3: S3) -> None:
    run = Run(s3)
    run.spec["dataset"] = {"source": {"builtin": {"name": "mnist", "goodLabel": 1}}}
    finished = run.step("check")
    assert finished.exit_code is ExitCode.DONE, finished.summary
    assert finished.summary.listing is None
    assert finished.summary.message.startswith(
        "nothing wrong was found; not checked: the images of mnist, of which the run itself downloads"
    )
    assert run.names() == []


@pytest.mark.parametrize("role", [LocationRole.DATASET, LocationRole.OUTPUT])
def test_wrong_credentials_are_told_as_the_run_would(
    s3: S3, role: LocationRole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(s3_env(role, "AWS_SECRET_ACCESS_KEY"), "wrong")
    run = Run(s3)
    check, trained = run.step("check").summary, run.step("train").summary
    assert check.reason is Reason.STORAGE_DENIED
    assert (check.reason, check.message) == (trained.reason, trained.message)


def test_missing_weights_are_told_as_the_run_would(s3: S3) -> None:
    run = Run(s3)
    run.spec["model"]["padim"]["preTrained"] = True
    run.spec["model"]["weights"] = {"s3": {"uri": "s3://weights", "endpoint": s3.url, "region": "us-east-1"}}
    check, trained = run.step("check").summary, run.step("train").summary
    assert check.reason is Reason.WEIGHTS_NOT_FOUND
    assert (check.reason, check.message) == (trained.reason, trained.message)


@pytest.mark.parametrize(
    ("memory", "reason"), [("420Mi", Reason.OUT_OF_MEMORY), ("64Gi", Reason.COMPLETE), (None, Reason.COMPLETE)]
)
def test_the_estimate_is_compared_with_the_limit_of_the_training(s3: S3, memory: str | None, reason: Reason) -> None:
    run = Run(s3)
    run.spec["scheduling"] = {"gpus": {"count": 0}, "resources": {"limits": {"memory": memory}} if memory else {}}
    summary = run.step("check").summary
    assert summary.reason is reason, summary
    told = "not checked: memory (there is no scheduling.resources.limits.memory)" in summary.message
    assert told is (memory is None)


def images_pulled(s3: S3) -> list[str]:
    """Keys of the images and masks that were requested since the last call."""
    lines = (line for line in s3.requests() if "s3_GetObject" in line and "/data/textures/" in line)
    return sorted(line.split("/data/textures/")[1].split()[0] for line in lines)


def trial(s3: S3, number: int) -> Run:
    """One trial of a sweep, on the node that the others ran on too."""
    run = Run(s3, trial={"sweep": "textures", "number": number}, evaluation={}, export={"types": []})
    run.spec["dataset"]["cache"] = {"node": {}}
    run.spec["output"]["uploadArtifacts"] = False
    return run


def test_a_second_trial_pulls_no_image_and_decodes_none(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    (s3.work / "node").mkdir()
    monkeypatch.setattr(locations, "NODE_CACHE_PATH", str(s3.work / "node"))
    decode, decoded = images.decode, list[int]()

    def counted(data: bytes, *args: Any, **kwargs: Any) -> Any:
        decoded.append(len(data))
        return decode(data, *args, **kwargs)

    monkeypatch.setattr(preprocessor, "decode", counted)
    first = trial(s3, 0).step(None)
    assert first.exit_code is ExitCode.DONE, first.summary
    assert len(images_pulled(s3)) == (4 + 2 + 3 + 1) + 3, "to learn from, good, scratched and unknown; masks"
    assert len(decoded) == 4 + 2 + 3 + 1
    decoded.clear()
    second = trial(s3, 1).step(None)
    assert (images_pulled(s3), decoded) == ([], [])
    assert without_course(not_none(second.report)) == without_course(not_none(first.report))
    key = "train/good/000.png"
    replace(s3, key)
    third = trial(s3, 2).step(None)
    assert images_pulled(s3) == [key]
    assert len(decoded) == 1
    assert not_none(third.report).dataset_fingerprint != not_none(first.report).dataset_fingerprint
