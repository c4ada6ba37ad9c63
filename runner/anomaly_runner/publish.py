"""Stage publish: upload the artifacts to <output>/<namespace>/<name>/<uid>/.

Readers may rely on the order of uploads: everything that model.json names comes before it, and report.json comes last,
so a folder with a report.json is complete. A retried run writes the same names again.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from anomaly_api.base import Contract
from anomaly_api.results import RESULTS, ImageResults
from anomaly_api.run import FAILURE, MODEL_MANIFEST, REPORT, ModelFile, RunConfig, RunReport, RunSummary
from anomaly_api.status import Artifacts, Stage
from anomaly_api.storage import LocationRole
from anomaly_runner.context import About, Context
from anomaly_runner.data.stored_listing import LISTING
from anomaly_runner.data.valid_area import FILE as VALID_AREA
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import RunFailed
from anomaly_runner.reporting.html_report import render
from anomaly_runner.reporting.image_results import image_results
from anomaly_runner.reporting.pictures import has_own_name
from anomaly_runner.reporting.report import (
    PrunedTraining,
    Results,
    make_pruned_report,
    make_report,
    make_search_report,
    timestamp,
)
from anomaly_runner.reporting.tables import prediction_rows, write_tables
from anomaly_runner.storage import Store, download_all
from anomaly_runner.storage.s3 import THREADS
from anomaly_runner.storage.store import join_uri
from anomaly_runner.system.digest import digest
from anomaly_runner.system.parallel import ordered_map
from anomaly_runner.tracking.mlflow_names import metric_label
from anomaly_runner.tracking.run_results import tracked_result
from anomaly_runner.tracking.tracker import TrackedResult

logger = logging.getLogger(__name__)

PAGE = "report.html"
MANIFEST = MODEL_MANIFEST
PREDICTIONS = "predictions.parquet"
PICTURES = "visualizations"
CHECKPOINT = "model.safetensors"
SWEEP_PAGE = "sweep.html"
PROFILE_FOLDER = "profile"
PROFILE = f"{PROFILE_FOLDER}/trace.json.gz"


@dataclass(frozen=True)
class Folder:
    """The artifacts of a run: ``here`` is the folder on this machine where they are made, ``store`` their target."""

    here: Path
    store: Store

    def write(self, name: str, content: Contract) -> Path:
        """Write a contract as a JSON file, and return the file."""
        file = self.here / name
        file.write_text(content.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n", encoding="utf-8")
        return file

    def files(self) -> list[Path]:
        """All files made so far, model.json last."""
        found = (path for path in self.here.rglob("*") if path.is_file())
        return sorted(found, key=lambda path: (path.name == MANIFEST, path.as_posix()))


def report_uri(folder: Folder) -> Artifacts:
    """URIs of a run of which report.json alone is uploaded."""
    return Artifacts(root=folder.store.uri, report=join_uri(folder.store.uri, REPORT))


def artifact_uris(folder: Folder, exports: Sequence[tuple[str, str]]) -> Artifacts:
    """URIs of all that will be published.

    Args:
        folder: the run's artifacts.
        exports: format and file name of each export.
    """
    at = partial(join_uri, folder.store.uri)
    return Artifacts(
        root=folder.store.uri,
        report=at(REPORT),
        html=at(PAGE),
        checkpoint=at(CHECKPOINT) if (folder.here / CHECKPOINT).exists() else None,
        model=at(MANIFEST) if (folder.here / MANIFEST).exists() else None,
        exports={name: at(file) for name, file in exports},
        predictions=at(PREDICTIONS),
        visualizations=at(PICTURES) if (folder.here / PICTURES).exists() else None,
        profile=at(PROFILE) if (folder.here / PROFILE).exists() else None,
        sweep=at(SWEEP_PAGE) if (folder.here / SWEEP_PAGE).exists() else None,
    )


def keep_profile(folder: Folder, work: Path) -> None:
    """Move the training's profile, if there is one, from the run's scratch folder to the artifacts."""
    if (work / PROFILE_FOLDER).is_dir():
        shutil.move(work / PROFILE_FOLDER, folder.here / PROFILE_FOLDER)


def write_valid_area(folder: Folder, area: ValidArea | None) -> ModelFile | None:
    """Write the valid-area mask and return its entry for model.json; None where there is no mask."""
    if area is None:
        return None
    file = folder.here / VALID_AREA
    file.write_bytes(area.to_png())
    return ModelFile(file=file.name, sha256=digest(file))


@dataclass(frozen=True)
class Published:
    """A stored report, and the result that the tracker gets."""

    report: RunReport
    tracked: TrackedResult


def publish(config: RunConfig, results: Results, folder: Folder, complete: bool, context: Context) -> Published:
    """Write the tables and the report, and upload everything, report.json last.

    Args:
        config: the run's configuration, which the report repeats.
        results: everything that the report, the page and the tables show.
        folder: holds the other artifacts.
        complete: false uploads only report.json.
        context: for progress, timing and stopping.

    Raises:
        StorageDenied, StorageUnavailable, DataInvalid: the output cannot be written.
        Stopped: the run was asked to stop.
    """
    with context.stage(Stage.PUBLISH, unit="files"):
        # The tables are written first: the stage's total is the number of files.
        files = _with_tables(results, folder) if complete else []
        context.progress.enter(Stage.PUBLISH, len(files) + 1, "files")
        # Everything that model.json names goes first, in parallel: a reader of model.json finds the whole model.
        bulk = [file for file in files if file.name != MANIFEST]
        for _ in ordered_map(partial(_upload, folder), bulk, THREADS):
            context.advance(1)
        for file in files[len(bulk) :]:
            _upload(folder, file)
        # The report holds the duration of everything before it, and the URIs of all artifacts.
        exports = [(export.format, export.file) for export in results.exports]
        uris = artifact_uris(folder, exports) if complete else report_uri(folder)
        context.record.warn(*_changed_names(config, results, folder), about=About.EXTRAS)
        report = make_report(config, results, uris, context.tracker.status(), context.record)
        if complete:
            page = folder.here / PAGE
            page.write_text(render(report, results.evaluated.labelled, results.gallery), encoding="utf-8")
            _upload(folder, page)
        # report.json comes last: a retried run that finds it is done.
        _upload(folder, folder.write(REPORT, report))
    return Published(report, tracked_result(report, folder.here, complete))


def publish_search(config: RunConfig, folder: Folder, context: Context) -> Published:
    """Upload what a search left and nothing was trained with, then the report; raises as ``publish``."""
    files = folder.files()
    with context.stage(Stage.PUBLISH, len(files) + 1, "files"):
        for _ in ordered_map(partial(_upload, folder), files, THREADS):
            context.advance(1)
        uris = report_uri(folder).model_copy(update={"sweep": join_uri(folder.store.uri, SWEEP_PAGE)})
        report = make_search_report(config, uris, context.tracker.status(), context.record)
        _upload(folder, folder.write(REPORT, report))
    return Published(report, tracked_result(report, folder.here, complete=True))


def publish_pruned(config: RunConfig, pruned: PrunedTraining, folder: Folder, context: Context) -> Published:
    """Upload the report of a run whose training was ended, alone; raises as ``publish``."""
    with context.stage(Stage.PUBLISH, 1, "files"):
        report = make_pruned_report(config, pruned, report_uri(folder), context.tracker.status(), context.record)
        _upload(folder, folder.write(REPORT, report))
    return Published(report, tracked_result(report, folder.here, complete=False))


def _with_tables(results: Results, folder: Folder) -> list[Path]:
    """Write the tables, and return all files made so far."""
    write_tables(prediction_rows(results.predictions, results.evaluated), folder.here)
    folder.write(RESULTS, _image_results(results, folder.here))
    return folder.files()


def _image_results(results: Results, folder: Path) -> ImageResults:
    evaluated = results.evaluated
    return image_results(results.predictions, evaluated, results.model_thresholds or evaluated.thresholds, folder)


def _changed_names(config: RunConfig, results: Results, folder: Folder) -> list[str]:
    """Warnings about names that a target does not take as they are."""
    samples = results.predictions.samples if (folder.here / PICTURES).exists() else ()
    pictures = sum(not has_own_name(sample) for sample in samples)
    labels = results.evaluated.metrics_by_defect if config.spec.tracking.mlflow else ()
    metrics = sum(metric_label(label) != label for label in labels)
    changed = (
        (pictures, "images", "their pictures' names"),
        (metrics, "kinds of defects", "MLflow's names of metrics"),
    )
    return [
        f"the names of {count} {what} are changed in {where}: characters that do not fit are _UHHHH_ (their code in "
        "Unicode), long names end in a digest"
        for count, what, where in changed
        if count
    ]


def _upload(folder: Folder, file: Path) -> None:
    folder.store.upload(file, file.relative_to(folder.here).as_posix())


def leave_failure(config: RunConfig, summary: RunSummary, context: Context) -> None:
    """Tell why a sweep's trial failed, for the sweep's page: its resource may be gone by then.

    Best effort: the run's own failure is what matters.

    Args:
        config: of a run that left no report.
        summary: why it failed.
        context: has the output.
    """
    if config.experiment is None or config.experiment.trial is None or config.step == "check":
        return
    seconds, started = dict(context.record.seconds), timestamp(context.record.started)
    report = RunReport(run=config.run, summary=summary, config=config, started=started, seconds=seconds)
    try:
        store = context.stores[LocationRole.OUTPUT].subfolder(config.run.folder)
        folder = fresh_folder(context.work, store)
        _upload(folder, folder.write(FAILURE, report))
    except (RunFailed, OSError) as error:
        logger.warning("the sweep's page will not tell of this failure: %s", error)


def fresh_folder(work: Path, store: Store) -> Folder:
    """Make an empty folder for artifacts in the run's scratch folder."""
    here = work / "artifacts"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    return Folder(here, store)


def already_published(config: RunConfig, context: Context) -> Published | None:
    """The results that an earlier pod of the same run has published; None if there are none.

    Called before any other work, so that an output that cannot be reached is found out early.

    Raises:
        StorageDenied, StorageUnavailable, DataInvalid: the output cannot be read.
        Stopped: the run was asked to stop.
    """
    store = context.stores[LocationRole.OUTPUT].subfolder(config.run.folder)
    content = store.read(REPORT)
    report = _same_run(content, config) if content else None
    if report is None:
        return None
    left_out = {LISTING, FAILURE}  # of earlier steps and attempts, which the pod that published did not track
    artifacts = [info for info in store.list() if info.key not in left_out]
    here = download_all(store, artifacts, context.work / "published", context.stop.check)
    return Published(report, tracked_result(report, here, complete=True, leave_out=left_out))


def _same_run(content: bytes, config: RunConfig) -> RunReport | None:
    try:
        report = RunReport.model_validate_json(content)
    except ValidationError:  # the report is of another version of this program: this version does the run again
        return None
    return report if report.config == config else None
