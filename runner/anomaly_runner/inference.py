"""An inference from end to end: a trained model over images. torch is imported only by the runtimes that are torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from anomaly_api.inference import InferenceSpec
from anomaly_api.resource import describe_invalid
from anomaly_api.run import ExportedModel, ModelFile, ModelManifest, RunConfig
from anomaly_api.status import Stage
from anomaly_api.storage import LocationRole
from anomaly_runner import publish
from anomaly_runner.context import Context
from anomaly_runner.data.batches import Batch, IntegrityLog, Preprocessor, read_batches
from anomaly_runner.data.fetch import list_inference, prefetch_images
from anomaly_runner.data.masks import mask_reader
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import DataInvalid, ModelInvalid
from anomaly_runner.evaluation.evaluate import EvaluationResult, evaluate
from anomaly_runner.evaluation.labelled import sort_labelled_scores
from anomaly_runner.evaluation.normalize import inference_normalizer
from anomaly_runner.evaluation.thresholds import inference_thresholds
from anomaly_runner.reporting.gallery import make_gallery
from anomaly_runner.reporting.report import Results
from anomaly_runner.reporting.visualize import PredictionRenderer, visualize
from anomaly_runner.scoring.onnx_predictor import load_onnx
from anomaly_runner.scoring.predict import Predictions, Predictor, maps_by_key, predict
from anomaly_runner.storage import Prefetcher, Store, download_all
from anomaly_runner.system.digest import digest
from anomaly_runner.system.environment import versions
from anomaly_runner.system.machine import cpu_limit
from anomaly_runner.tracking.run_results import flat_parameters

_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "torch", "numpy", "pillow")


class Provided(Predictor, Protocol):
    """A predictor that can say what executes it."""

    @property
    def provider(self) -> str:
        """What executes the model."""


@dataclass(frozen=True)
class _Job:
    """An inference's fixed inputs."""

    spec: InferenceSpec
    manifest: ModelManifest
    predictor: Provided
    dataset: DatasetIndex
    prefetcher: Prefetcher
    preprocessor: Preprocessor
    integrity: IntegrityLog
    context: Context


def run_inference(config: RunConfig, spec: InferenceSpec, context: Context) -> publish.Published:
    """Score images with a trained model and publish what was found.

    Args:
        config: what the report says that the run was told.
        spec: the inference in it.
        context: stores, progress and stopping.

    Raises:
        RunFailed: what stopped it. Nothing has been published then.
    """
    manifest = read_manifest(context.stores[LocationRole.MODEL])
    listed = list_inference(spec, manifest, context)
    prefetcher = prefetch_images(listed, context)
    try:
        predictor = _load(spec, manifest, context)
        preprocessor = Preprocessor(
            height=manifest.input_height,
            width=manifest.input_width,
            normalization=manifest.normalization,
            crop=spec.input.crop_area or manifest.crop_area,
            bit_depth=manifest.bit_depth,
            valid_area=_valid_area(spec, manifest, context),
        )
        integrity = IntegrityLog(spec.input.limits)
        return _run(
            config, _Job(spec, manifest, predictor, listed.dataset, prefetcher, preprocessor, integrity, context)
        )
    finally:
        prefetcher.close()


def read_manifest(store: Store) -> ModelManifest:
    """model.json of a folder of artifacts.

    Raises:
        ModelInvalid: there is none, or it is not of a preprocessor that this version reads.
    """
    try:
        content = store.read(publish.MANIFEST)
    except DataInvalid as error:
        raise ModelInvalid(f"no trained model: {error}") from error
    if content is None:
        raise ModelInvalid(f"no {publish.MANIFEST} in {store.uri}: is it the artifacts' folder of a complete run?")
    try:
        return ModelManifest.model_validate_json(content)
    except ValidationError as error:
        raise ModelInvalid(f"{publish.MANIFEST} in {store.uri}: {describe_invalid(error, 'model')}") from error


def _load(spec: InferenceSpec, manifest: ModelManifest, context: Context) -> Provided:
    store = context.stores[LocationRole.MODEL]
    if spec.runtime == "torch":
        if manifest.checkpoint is None:
            raise ModelInvalid("the model's state was not kept; train it with output.keepCheckpoint: true")
        from anomaly_runner.scoring.checkpoint import load_torch

        return load_torch(manifest, fetch_model_file(store, manifest.checkpoint, context), spec.batch_size)
    exported = next((model for model in manifest.exports if model.format == spec.runtime), None)
    if exported is None:
        raise ModelInvalid(f"the model has no {spec.runtime} export; train it with export.types: [{spec.runtime}]")
    file = fetch_model_file(store, exported, context)
    if spec.runtime == "onnx":
        return load_onnx(file, spec.batch_size)
    from anomaly_runner.scoring.torchscript_predictor import load_torchscript

    return load_torchscript(file, spec.batch_size)


def fetch_model_file(store: Store, exported: ExportedModel | ModelFile, context: Context) -> Path:
    """The exported file on this machine, beside it what it needs, all digests checked.

    Raises:
        ModelInvalid: missing, or not the file that was published.
    """
    wanted = {exported.file: exported.sha256}
    if isinstance(exported, ExportedModel):
        wanted |= exported.companions
    objects = [info for name in wanted for info in store.list(name) if info.key == name]
    for name in wanted.keys() - {info.key for info in objects}:
        raise ModelInvalid(f"{name} is missing in {store.uri}")
    folder = download_all(store, objects, context.work / "model", context.stop.check)
    for name, sha256 in wanted.items():
        if digest(folder / name) != sha256:
            raise ModelInvalid(f"{name} in {store.uri} is not the file that was published: its SHA-256 differs")
    return folder / exported.file


def _valid_area(spec: InferenceSpec, manifest: ModelManifest, context: Context) -> ValidArea | None:
    """What the model was trained to ignore."""
    if manifest.valid_area_mask is None:
        return None
    file = fetch_model_file(context.stores[LocationRole.MODEL], manifest.valid_area_mask, context)
    return ValidArea.read(file.read_bytes(), file.name, spec.input.limits.max_image_pixels)


def _run(config: RunConfig, job: _Job) -> publish.Published:
    job.integrity.extend_unreadable(job.dataset.unreadable)
    predictions = _predict(job)
    evaluated = _evaluate(job, predictions)
    output = job.context.stores[LocationRole.OUTPUT].subfolder(config.run.folder)
    folder = publish.fresh_folder(job.context.work, output)
    renderer = PredictionRenderer(predictions, evaluated, job.prefetcher, job.preprocessor, job.spec.input.limits)
    visualize(renderer, job.spec.visualization, folder.here / publish.PICTURES, job.context)
    # of a registered model: which version it was
    uri = job.context.stores[LocationRole.MODEL].uri
    environment = versions(_LIBRARIES) | {"provider": job.predictor.provider, "model": uri}
    gallery = make_gallery(renderer, lambda few: maps_by_key(job.predictor, _read(job, few)))
    results = Results(
        job.dataset,
        predictions,
        evaluated,
        job.integrity,
        environment,
        gallery=gallery,
        model_thresholds=job.manifest.thresholds,
    )
    return publish.publish(config, results, folder, job.spec.output.upload_artifacts, job.context)


def _predict(job: _Job) -> Predictions:
    context, count = job.context, len(job.dataset.test)
    context.tracker.start(flat_parameters(job.spec))
    with context.stage(Stage.PREDICT, count):
        keep_maps = job.dataset.has_masks or job.spec.visualization.enabled
        return predict(
            job.predictor,
            _read(job, job.dataset.test),
            expected=count,
            size=job.preprocessor.size,
            keep_maps=keep_maps,
            context=context,
            valid=job.preprocessor.valid,
        )


def _read(job: _Job, samples: Sequence[Sample]) -> Iterator[Batch]:
    readers = job.spec.num_workers or cpu_limit()
    return read_batches(
        job.prefetcher,
        samples,
        job.preprocessor,
        job.integrity,
        batch_size=job.predictor.preferred_batch_size,
        threads=readers,
    )


def _evaluate(job: _Job, predictions: Predictions) -> EvaluationResult:
    reader = mask_reader(job.prefetcher, job.preprocessor.size, job.spec.input.limits, job.preprocessor.crop)
    with job.context.stage(Stage.EVALUATE):
        labelled = sort_labelled_scores(
            predictions, reader if job.dataset.has_masks else None, job.context.work, job.preprocessor.valid
        )
        thresholds, warnings = inference_thresholds(
            job.spec.threshold, job.manifest.thresholds, labelled, job.manifest.score_range
        )
        evaluated = evaluate(
            predictions,
            labelled,
            thresholds,
            normalizer=inference_normalizer(job.manifest, thresholds),
            metrics=job.spec.metrics,
            warnings=warnings,
        )
    job.context.record.warn(*evaluated.warnings)
    return evaluated
