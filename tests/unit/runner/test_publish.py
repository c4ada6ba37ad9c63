"""The order of uploads, which readers rely on, the URIs of what is uploaded, and what a retried pod finds."""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly_api.dataset import DatasetLimits
from anomaly_api.experiment import ExperimentSpec
from anomaly_api.reasons import Reason
from anomaly_api.run import ExportReport, RunConfig, RunIdentity, RunReport, RunSummary, TrainingReport
from anomaly_api.status import MetricValues, MlflowStatus, Progress, Stage, StepName, ThresholdValues
from anomaly_api.storage import LocationRole
from anomaly_api.sweep_status import Trial
from anomaly_runner.context import Context
from anomaly_runner.data.batches import IntegrityLog
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import ExportMismatch, Stopped, StorageDenied, StorageUnavailable
from anomaly_runner.evaluation.curves import ScoresByClass
from anomaly_runner.evaluation.evaluate import EvaluationResult
from anomaly_runner.evaluation.labelled import LabelledScores
from anomaly_runner.evaluation.normalize import ScoreNormalizer
from anomaly_runner.progress import ProgressMeter
from anomaly_runner.publish import (
    Folder,
    already_published,
    fresh_folder,
    keep_profile,
    leave_failure,
    publish,
    publish_pruned,
    publish_search,
    write_valid_area,
)
from anomaly_runner.reporting.gallery import GalleryItem
from anomaly_runner.reporting.report import PrunedTraining, Results
from anomaly_runner.scoring.predict import Predictions
from anomaly_runner.storage import FolderStore, ObjectInfo
from support.contexts import make_context

SPEC = ExperimentSpec.model_validate(
    {
        "dataset": {"source": {"s3": {"uri": "s3://data"}}},
        "model": {"name": "padim"},
        "output": {"s3": {"uri": "s3://results"}},
    }
)
INFERENCE = {
    "model": {"experiment": "screws"},
    "input": {"source": {"s3": {"uri": "s3://today"}}},
    "output": {"s3": {"uri": "s3://results"}},
}
RUN = RunIdentity(kind="AnomalyExperiment", namespace="factory", name="screws", uid="0-1")
CONFIG = RunConfig(run=RUN, experiment=SPEC)


@dataclass
class Uploads:
    """A store that takes down, in order, what is uploaded, and refuses what it is told to."""

    uri: str = "s3://results/factory/screws/0-1"
    kept: dict[str, bytes] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    refuses: str = ""
    before: Callable[[str], None] = lambda key: None
    lock: threading.Lock = field(default_factory=threading.Lock)
    local_root: Path | None = None

    def upload(self, source: Path, key: str) -> None:
        self.before(key)
        if key == self.refuses:
            raise StorageDenied(f"no {key}")
        with self.lock:
            self.order.append(key)
            self.kept[key] = source.read_bytes()

    def read(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        return [ObjectInfo(key, len(content), "e") for key, content in sorted(self.kept.items())]

    def download(self, info: ObjectInfo, destination: Path) -> None:
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(self.kept[info.key])

    def subfolder(self, prefix: str) -> "Uploads":
        assert prefix == "factory/screws/0-1"
        return self

    def address(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        return ()

    def delete(self, key: str) -> None:
        del self.kept[key]


def results(**changes: object) -> Results:
    samples = (Sample("test/good/a.png", "good"), Sample("test/dent/b.png", "dent"))
    scores = np.array([1, 3], np.float32)
    thresholds = ThresholdValues(image=2.0, source="adaptive")
    evaluated = EvaluationResult(
        thresholds=thresholds,
        metrics=MetricValues(image={"AUROC": 1.0}),
        normalizer=ScoreNormalizer("none", thresholds, {}),
        anomalous=scores >= 2,
        normalized_scores=scores.astype(float),
        confusion=None,
        labels={},
    )
    made = Results(
        dataset=DatasetIndex(test=samples),
        predictions=Predictions(samples, scores, None, None),
        evaluated=evaluated,
        integrity=IntegrityLog(DatasetLimits()),
        environment={},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class Watching:
    """Takes down the progress."""

    seen: list[Progress]

    def report(self, stage: Stage, progress: Progress) -> None:
        self.seen.append(progress)

    def close(self) -> None:
        """Nothing to release."""


@pytest.fixture
def store() -> Uploads:
    return Uploads()


@pytest.fixture
def context(tmp_path: Path, store: Uploads) -> Context:
    return make_context(tmp_path, run=RUN, stores={LocationRole.OUTPUT: store})


@pytest.fixture
def folder(tmp_path: Path, store: Uploads) -> Folder:
    """A folder with a model, its manifest, and pictures, of which one has the manifest's name."""
    made = fresh_folder(tmp_path, store)
    for name in ("model.json", "model.onnx", "model.safetensors", "visualizations/dent/b.jpg"):
        (made.here / name).parent.mkdir(parents=True, exist_ok=True)
        (made.here / name).write_bytes(name.encode())
    (made.here / "model.json").write_text("{}")
    return made


ALL = {
    "model.onnx",
    "model.safetensors",
    "predictions.csv",
    "predictions.parquet",
    "results.json",
    "visualizations/dent/b.jpg",
}


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest of this folder is empty."""
    monkeypatch.setattr("anomaly_runner.tracking.run_results._model", lambda folder: None)


def test_the_model_comes_before_its_manifest_and_the_report_last(
    store: Uploads, folder: Folder, context: Context
) -> None:
    publish(CONFIG, results(), folder, True, context)
    assert set(store.order[:-3]) == ALL
    assert store.order[-3:] == ["model.json", "report.html", "report.json"]


def test_the_manifest_waits_for_the_slowest_file(store: Uploads, folder: Folder, context: Context) -> None:
    """Files are uploaded in parallel; one that takes long is not overtaken by what names it."""
    others = threading.Event()

    def before(key: str) -> None:
        if key == "model.onnx":
            others.wait(0.3)
        elif key in ("model.json", "report.json"):
            others.set()

    store.before = before
    publish(CONFIG, results(), folder, True, context)
    assert store.order.index("model.onnx") < store.order.index("model.json")


@pytest.mark.parametrize("refused", ["model.onnx", "model.json", "report.html"])
def test_a_folder_that_is_not_complete_has_no_report(
    store: Uploads, folder: Folder, context: Context, refused: str
) -> None:
    store.refuses = refused
    with pytest.raises(StorageDenied, match=f"no {refused}"):
        publish(CONFIG, results(), folder, True, context)
    assert "report.json" not in store.kept
    assert ("model.json" in store.kept) == (refused == "report.html")


def test_every_file_has_its_uri(store: Uploads, folder: Folder, context: Context) -> None:
    report = publish(CONFIG, results(), folder, True, context).report
    found = report.summary.artifacts
    assert found is not None
    root = "s3://results/factory/screws/0-1"
    assert found.model_dump(exclude_none=True, exclude_defaults=True) == {
        "root": root,
        "report": f"{root}/report.json",
        "html": f"{root}/report.html",
        "checkpoint": f"{root}/model.safetensors",
        "model": f"{root}/model.json",
        "predictions": f"{root}/predictions.parquet",
        "visualizations": f"{root}/visualizations",
    }
    assert RunReport.model_validate_json(store.kept["report.json"]) == report
    assert report.summary.warnings == ()
    for name in ("html", "checkpoint", "model", "predictions"):
        assert getattr(found, name).removeprefix(f"{root}/") in store.kept


def test_what_was_not_made_has_no_uri(store: Uploads, context: Context, tmp_path: Path) -> None:
    found = publish(CONFIG, results(), fresh_folder(tmp_path, store), True, context).report.summary.artifacts
    assert found is not None
    assert found.model_dump(exclude_none=True, exclude_defaults=True).keys() == {
        "root",
        "report",
        "html",
        "predictions",
    }


def test_a_profile_and_a_sweeps_page_are_published_with_the_rest(
    store: Uploads, folder: Folder, context: Context, tmp_path: Path
) -> None:
    keep_profile(folder, tmp_path)
    assert not (folder.here / "profile").exists(), "there was none"
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile/trace.json.gz").write_bytes(b"trace")
    keep_profile(folder, tmp_path)
    (folder.here / "sweep.html").write_text("page")
    found = publish(CONFIG, results(), folder, True, context).report.summary.artifacts
    assert found is not None
    assert (found.profile, found.sweep) == (f"{store.uri}/profile/trace.json.gz", f"{store.uri}/sweep.html")
    assert store.kept["profile/trace.json.gz"] == b"trace"


def test_without_artifacts_the_report_alone_is_uploaded_and_named(
    store: Uploads, folder: Folder, context: Context
) -> None:
    done = publish(CONFIG, results(), folder, False, context)
    assert store.order == ["report.json"]
    artifacts = done.report.summary.artifacts
    assert artifacts is not None
    assert artifacts.model_dump(exclude_none=True, exclude_defaults=True) == {
        "root": store.uri,
        "report": f"{store.uri}/report.json",
    }
    assert [file.name for _, file in done.tracked.artifacts] == ["report.json"]


def test_the_progress_counts_every_file_but_the_report(store: Uploads, folder: Folder, context: Context) -> None:
    seen = list[Progress]()
    meter = ProgressMeter([Watching(seen)])
    publish(CONFIG, results(), folder, True, replace(context, progress=meter))
    counted = [(0, 0, "files"), *((done, 8, "files") for done in range(7))]
    assert [(one.completed, one.total, one.unit) for one in seen] == counted


def test_a_failed_export_is_told_with_all_else_published(store: Uploads, folder: Folder, context: Context) -> None:
    failure = ExportMismatch("the onnx model disagrees with torch")
    done = publish(CONFIG, results(failure=failure), folder, True, context)
    assert done.report.summary.reason is Reason.EXPORT_MISMATCH
    assert done.report.summary.stage is Stage.EXPORT
    assert done.report.summary.message == f"the onnx model disagrees with torch; all else is in {store.uri}"
    assert done.tracked.failed
    assert set(store.kept) >= ALL


def test_names_that_are_changed_are_told(store: Uploads, folder: Folder, context: Context) -> None:
    odd = (Sample("test/dent/a:b.png", "dent"), Sample("test/good/b.png", "good"))
    found = results(predictions=Predictions(odd, np.array([3, 1], np.float32), None, None))
    publish(CONFIG, found, folder, True, context)
    context.record.warn("of the images")
    more_important, warning = context.record.warnings
    assert more_important == "of the images"
    assert warning == (
        "the names of 1 images are changed in their pictures' names: characters that do not fit are _UHHHH_ (their "
        "code in Unicode), long names end in a digest"
    )
    publish(CONFIG, found, fresh_folder(context.work, store), True, context)
    assert context.record.warnings == ("of the images", warning), "there are no pictures"


def test_odd_kinds_of_defects_are_told_where_mlflow_has_them(store: Uploads, folder: Folder, context: Context) -> None:
    found = results(
        evaluated=replace(results().evaluated, metrics_by_defect={label: MetricValues() for label in ("a:b", "c", "d")})
    )
    publish(CONFIG, found, folder, True, context)
    assert not context.record.warnings
    tracking = {"tracking": {"mlflow": {"trackingUri": "http://mlflow"}}}
    tracked = RunConfig.model_validate({"run": RUN, "experiment": SPEC.to_json_object() | tracking})
    publish(tracked, found, folder, True, context)
    (warning,) = context.record.warnings
    assert warning.startswith("the names of 1 kinds of defects are changed in MLflow's names of metrics")


def test_exports_are_named_by_their_form(store: Uploads, folder: Folder, context: Context) -> None:
    export = ExportReport(format="onnx", file="model.onnx", size_bytes=1, max_score_difference=0, images_compared=1)
    found = publish(CONFIG, results(exports=(export,)), folder, True, context).report.summary.artifacts
    assert found is not None
    assert found.exports == {"onnx": f"{store.uri}/model.onnx"}


def test_scores_are_told_in_percent_of_the_models_threshold_or_of_the_runs_own(
    store: Uploads, folder: Folder, context: Context
) -> None:
    publish(CONFIG, results(), folder, True, context)
    own = json.loads(store.kept["results.json"])
    assert [one["anomaly_score"] for one in own["observations"]] == [50, 150]
    publish(CONFIG, results(model_thresholds=ThresholdValues(image=4.0)), folder, True, context)
    trained = json.loads(store.kept["results.json"])
    assert [one["anomaly_score"] for one in trained["observations"]] == [25, 75]
    assert (own["threshold"], trained["threshold"]) == (100, 50)


def test_a_report_is_read_by_people_too(store: Uploads, folder: Folder, context: Context) -> None:
    """One field a line, names as in manifests, nothing that is unset."""
    publish(CONFIG, results(), folder, True, context)
    text = store.kept["report.json"].decode()
    assert text.startswith('{\n  "run": {\n    "kind": "AnomalyExperiment",\n')
    assert text.endswith("}\n")
    assert "null" not in text
    assert "thresholdsFrom" in text


PRUNED = PrunedTraining(
    dataset=DatasetIndex(),
    integrity=IntegrityLog(DatasetLimits()),
    environment={},
    trained_images=4,
    training=TrainingReport(epochs=3, steps=6, batch_size=2, pruned="others are better"),
    performance={"trainSeconds": 2.0},
)


def test_a_training_that_was_ended_leaves_its_report_alone(store: Uploads, folder: Folder, context: Context) -> None:
    done = publish_pruned(CONFIG, PRUNED, folder, context)
    assert store.order == ["report.json"]
    assert RunReport.model_validate_json(store.kept["report.json"]) == done.report
    summary = done.report.summary
    assert (summary.reason, summary.message) == (
        Reason.PRUNED,
        "the training was ended after 3 epochs: others are better",
    )
    assert summary.artifacts is not None
    assert summary.artifacts.model_dump(exclude_none=True, exclude_defaults=True) == {
        "root": store.uri,
        "report": f"{store.uri}/report.json",
    }
    assert [file.name for _, file in done.tracked.artifacts] == ["report.json"]
    assert (done.tracked.model, done.tracked.failed) == (None, False)
    assert "publish" in context.record.seconds


def test_a_training_that_was_ended_has_one_file_to_publish(store: Uploads, folder: Folder, context: Context) -> None:
    seen = list[Progress]()
    publish_pruned(CONFIG, PRUNED, folder, replace(context, progress=ProgressMeter([Watching(seen)])))
    assert [(one.completed, one.total, one.unit) for one in seen] == [(0, 1, "files")]


def test_a_search_leaves_its_page_and_then_its_report(store: Uploads, context: Context, tmp_path: Path) -> None:
    made = fresh_folder(tmp_path, store)
    (made.here / "sweep.html").write_text("page")
    report = publish_search(CONFIG, made, context).report
    assert store.order == ["sweep.html", "report.json"]
    artifacts = report.summary.artifacts
    assert artifacts is not None
    assert artifacts.model_dump(exclude_none=True, exclude_defaults=True) == {
        "root": store.uri,
        "report": f"{store.uri}/report.json",
        "sweep": f"{store.uri}/sweep.html",
    }


def test_the_progress_of_a_search_counts_every_file_but_the_report(
    store: Uploads, context: Context, tmp_path: Path
) -> None:
    made, seen = fresh_folder(tmp_path, store), list[Progress]()
    for name in ("sweep.html", "trials.csv"):
        (made.here / name).write_text("")
    publish_search(CONFIG, made, replace(context, progress=ProgressMeter([Watching(seen)])))
    assert [(one.completed, one.total, one.unit) for one in seen] == [(done, 3, "files") for done in range(3)]
    assert store.order[-1] == "report.json"
    assert {"seconds_publish"} <= publish_search(CONFIG, made, context).tracked.metrics.keys()


def test_all_that_a_search_left_is_tracked(store: Uploads, context: Context, tmp_path: Path) -> None:
    made = fresh_folder(tmp_path, store)
    for name in ("sweep.html", "trials.csv"):
        (made.here / name).write_text("")
    tracked = publish_search(CONFIG, made, context).tracked
    assert [file.name for _, file in tracked.artifacts] == ["report.json", "sweep.html", "trials.csv"]


def test_a_retried_pod_finds_what_was_published(store: Uploads, folder: Folder, context: Context) -> None:
    first = publish(CONFIG, results(), folder, True, context)
    store.kept["listing.parquet"] = b"of the step check"
    again = already_published(CONFIG, context)
    assert again is not None
    assert again.report == first.report
    assert again.tracked.metrics == first.tracked.metrics
    tracked = {file.name for _, file in again.tracked.artifacts}
    assert tracked == {Path(name).name for name in (*ALL, "model.json", "report.html", "report.json")}
    assert all(file.is_file() for _, file in again.tracked.artifacts)


def test_a_retried_pod_that_reads_in_place_tracks_what_the_first_did(
    folder: Folder, context: Context, tmp_path: Path
) -> None:
    here = FolderStore(tmp_path / "out")
    stores = {LocationRole.OUTPUT: here}
    first = publish(CONFIG, results(), Folder(folder.here, here.subfolder(RUN.folder)), True, context)
    for name in ("listing.parquet", ".0123.part"):
        (here.root / RUN.folder / name).write_bytes(b"no artifact")
    again = already_published(CONFIG, replace(context, stores=stores))
    assert again is not None
    assert [file.name for _, file in again.tracked.artifacts] == [file.name for _, file in first.tracked.artifacts]


def test_what_an_earlier_attempt_failed_for_is_no_artifact(store: Uploads, folder: Folder, context: Context) -> None:
    leave_failure(trial(CONFIG), FAILED, context)
    publish(trial(CONFIG), results(), fresh_folder(context.work, store), True, context)
    assert "failure.json" in store.kept
    again = already_published(trial(CONFIG), context)
    assert again is not None
    assert "failure.json" not in {file.name for _, file in again.tracked.artifacts}


def test_looking_for_what_was_published_ends_when_the_run_is_stopped(
    store: Uploads, folder: Folder, context: Context
) -> None:
    publish(CONFIG, results(), folder, True, context)
    context.stop.set()
    with pytest.raises(Stopped):
        already_published(CONFIG, context)


def test_an_output_that_cannot_be_read_is_found_out_at_once(
    store: Uploads, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(key: str) -> None:
        raise StorageUnavailable("gone")

    monkeypatch.setattr(store, "read", down)
    with pytest.raises(StorageUnavailable):
        already_published(CONFIG, context)


def test_what_was_published_by_another_spec_is_done_again(store: Uploads, folder: Folder, context: Context) -> None:
    assert already_published(CONFIG, context) is None
    publish(CONFIG, results(), folder, True, context)
    other = CONFIG.model_copy(update={"experiment": SPEC.model_copy(update={"model": SPEC.model.model_copy()})})
    assert already_published(other, context) is not None, "the same content"
    changed = RunConfig.model_validate(
        {"run": RUN, "experiment": SPEC.to_json_object() | {"training": {"trainBatchSize": 7}}}
    )
    assert already_published(changed, context) is None
    store.kept["report.json"] = json.dumps({"of": "another release"}).encode()
    assert already_published(CONFIG, context) is None


def test_artifacts_of_an_earlier_attempt_are_gone(tmp_path: Path, store: Uploads) -> None:
    (fresh_folder(tmp_path, store).here / "model.onnx").write_bytes(b"old")
    assert list(fresh_folder(tmp_path, store).here.iterdir()) == []
    assert list(fresh_folder(tmp_path / "not/yet/there", store).here.iterdir()) == []


def trial(config: RunConfig) -> RunConfig:
    spec = SPEC.model_copy(update={"trial": Trial(sweep="sweep", number=3)})
    return config.model_copy(update={"experiment": spec})


FAILED = RunSummary(reason=Reason.DATA_INVALID, message="no images", stage=Stage.TRAIN)


def test_a_trial_that_failed_leaves_why(store: Uploads, context: Context) -> None:
    leave_failure(CONFIG, FAILED, context)
    assert store.order == []
    context.record.seconds["train"] = 2.5
    leave_failure(trial(CONFIG), FAILED, context)
    left = RunReport.model_validate_json(store.kept["failure.json"])
    assert (store.order, left.summary, left.run) == (["failure.json"], FAILED, RUN)
    assert left.seconds == {"train": 2.5}
    assert left.started is not None


@pytest.mark.parametrize("step", [None, "check", "train"])
def test_nothing_but_the_work_of_a_trial_leaves_why(store: Uploads, context: Context, step: StepName | None) -> None:
    """The check of a trial that fails is told by the sweep's own."""
    leave_failure(trial(CONFIG).model_copy(update={"step": step}), FAILED, context)
    assert store.order == ([] if step == "check" else ["failure.json"])
    inference = RunConfig.model_validate({"run": RUN, "inference": INFERENCE})
    leave_failure(inference, FAILED, context)
    assert store.order == ([] if step == "check" else ["failure.json"])


@pytest.mark.parametrize("failure", [StorageUnavailable("gone"), OSError("gone")])
def test_a_failure_that_cannot_be_left_is_logged(
    store: Uploads, context: Context, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    def down(key: str) -> None:
        raise failure

    store.before = down
    leave_failure(trial(CONFIG), FAILED, context)
    assert [record.message for record in caplog.records] == ["the sweep's page will not tell of this failure: gone"]


def test_no_valid_area_is_no_file(tmp_path: Path, store: Uploads) -> None:
    made = fresh_folder(tmp_path, store)
    assert write_valid_area(made, None) is None
    assert list(made.here.iterdir()) == []


def test_the_valid_area_is_a_file_of_the_model_with_its_digest(tmp_path: Path, store: Uploads) -> None:
    made = fresh_folder(tmp_path, store)
    mask = Image.new("1", (3, 2), 1)
    found = write_valid_area(made, ValidArea(mask))
    assert found is not None
    (file,) = made.here.iterdir()
    assert (found.file, file.name) == ("valid_area.png", "valid_area.png")
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    with Image.open(file) as image:
        assert image.size == (3, 2)


def test_a_report_names_the_run_in_mlflow(folder: Folder, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(context.tracker), "status", lambda self: MlflowStatus(run_id="r"))
    for report in (
        publish(CONFIG, results(), folder, True, context).report,
        publish_search(CONFIG, folder, context).report,
        publish_pruned(CONFIG, PRUNED, folder, context).report,
    ):
        assert report.summary.mlflow == MlflowStatus(run_id="r")


def test_the_page_is_of_the_report_the_scores_and_the_pictures(
    store: Uploads, folder: Folder, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[tuple[object, ...]]()

    def render(*parts: object) -> str:
        given.append(parts)
        return "page \u00e9"

    monkeypatch.setattr("anomaly_runner.publish.render", render)
    scores = ScoresByClass(np.array([3], np.float32), np.array([1], np.float32))
    found = results(gallery=(GalleryItem.__new__(GalleryItem),))
    found = replace(found, evaluated=replace(found.evaluated, labelled=LabelledScores(scores, None)))
    report = publish(CONFIG, found, folder, True, context).report
    assert given == [(report, found.evaluated.labelled, found.gallery)]
    assert store.kept["report.html"] == b"page \xc3\xa9"


def test_folders_are_stores_too(tmp_path: Path) -> None:
    made = Folder(fresh_folder(tmp_path, FolderStore(tmp_path / "out")).here, FolderStore(tmp_path / "out"))
    (made.here / "deep").mkdir()
    (made.here / "deep/model.json").write_text("{}")
    (made.here / "a").write_text("a")
    assert [path.relative_to(made.here).as_posix() for path in made.files()] == ["a", "deep/model.json"]
