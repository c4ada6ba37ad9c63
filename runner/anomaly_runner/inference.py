"""An inference from end to end: fetch, dataset, predict, evaluate, visualize, publish. Imports no torch.

Only the order of the stages is decided here; what a stage does is in its own package.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from anomaly_api.inference import InferenceSpec
from anomaly_api.run import ModelManifest, RunConfig
from anomaly_api.status import Stage, TrainedBy
from anomaly_api.storage import LocationRole
from anomaly_runner import publish
from anomaly_runner.context import About, Context
from anomaly_runner.data.batches import Batch, IntegrityLog, read_batches
from anomaly_runner.data.fetch import list_inference, prefetch_images
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.samples import DatasetIndex, Sample
from anomaly_runner.devices import asked_gpus, check_required, record_device, warn_without_tf32
from anomaly_runner.evaluation.evaluate import EvaluationResult, evaluate
from anomaly_runner.evaluation.inference_thresholds import inference_thresholds
from anomaly_runner.evaluation.labelled import sort_labelled_scores
from anomaly_runner.evaluation.normalize import inference_normalizer
from anomaly_runner.reporting.gallery import make_gallery
from anomaly_runner.reporting.report import Results
from anomaly_runner.reporting.visualize import PredictionRenderer, visualize
from anomaly_runner.scoring.predict import Predictions, Predictor, maps_by_key, predict
from anomaly_runner.scoring.trained_model import (
    gpu_problem,
    inference_preprocessor,
    load_predictor,
    read_trained_model,
)
from anomaly_runner.storage import Prefetcher
from anomaly_runner.system.environment import versions
from anomaly_runner.system.machine import cpu_limit, peak_memory
from anomaly_runner.tracking.run_results import flat_parameters

_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "torch", "numpy", "pillow")


@dataclass(frozen=True)
class _InferenceInputs:
    """The fixed inputs of an inference."""

    spec: InferenceSpec
    manifest: ModelManifest
    trained_by: TrainedBy
    predictor: Predictor
    dataset: DatasetIndex
    prefetcher: Prefetcher
    preprocessor: Preprocessor
    integrity: IntegrityLog
    context: Context


def run_inference(config: RunConfig, spec: InferenceSpec, context: Context) -> publish.Published:
    """Score images with a trained model and publish the results.

    Args:
        config: the run's configuration, which the report repeats.
        spec: the inference in ``config``.
        context: stores, progress and stopping.

    Raises:
        RunFailed: a stage failed or was stopped; nothing has been published.
    """
    # A GPU that cannot be used is found out before anything is listed; the model shows later whether it is used.
    check_required(asked_gpus(config), gpu_problem(spec.runtime))
    model = read_trained_model(context.stores[LocationRole.MODEL])
    manifest = model.manifest
    listed = list_inference(spec, manifest, context, known=config.listing)
    # From here on images are downloaded in the background, while the model is fetched and loaded.
    prefetcher = prefetch_images(listed, context)
    try:
        inputs = _InferenceInputs(
            spec=spec,
            manifest=manifest,
            trained_by=model.trained_by,
            predictor=_load_predictor(config, spec, manifest, context),
            dataset=listed.dataset,
            prefetcher=prefetcher,
            preprocessor=inference_preprocessor(spec, manifest, context),
            integrity=IntegrityLog(spec.input.limits),
            context=context,
        )
        return _run(config, inputs)
    finally:
        prefetcher.close()


def _load_predictor(config: RunConfig, spec: InferenceSpec, manifest: ModelManifest, context: Context) -> Predictor:
    predictor = load_predictor(spec, manifest, context)
    record_device(context, asked_gpus(config), predictor.provider, predictor.fallback)
    if spec.precision == "tf32":
        warn_without_tf32(context)
    return predictor


def _run(config: RunConfig, inputs: _InferenceInputs) -> publish.Published:
    # Files that cannot be decoded count against the input's limits before any image is scored.
    inputs.integrity.extend_unreadable(inputs.dataset.unreadable)
    inputs.context.tracker.start(flat_parameters(inputs.spec))
    inputs.context.tracker.check(inputs.context.stop.check)
    predictions = _predict(inputs)
    inputs.context.record.warn(*inputs.integrity.warnings(inputs.preprocessor.size, inputs.dataset))
    evaluated = _evaluate(inputs, predictions)
    # All artifacts are made in one folder on this machine; nothing is uploaded before everything has succeeded.
    output = inputs.context.stores[LocationRole.OUTPUT].subfolder(config.run.folder)
    folder = publish.fresh_folder(inputs.context.work, output)
    renderer = PredictionRenderer(
        predictions, evaluated, inputs.prefetcher, inputs.preprocessor, inputs.spec.input.limits
    )
    visualize(renderer, inputs.spec.visualization, folder.here / publish.PICTURES, inputs.context)
    # The report's pictures need maps of a few images, and most runs keep no maps: these few are scored again.
    gallery = make_gallery(renderer, lambda samples: maps_by_key(inputs.predictor, _read(inputs, samples)))
    results = Results(
        dataset=inputs.dataset,
        predictions=predictions,
        evaluated=evaluated,
        integrity=inputs.integrity,
        environment=_environment(inputs),
        gallery=gallery,
        performance=_performance(inputs, predictions),
        model_thresholds=inputs.manifest.thresholds,
        trained_by=inputs.trained_by,
    )
    return publish.publish(config, results, folder, inputs.spec.output.upload_artifacts, inputs.context)


def _performance(inputs: _InferenceInputs, predictions: Predictions) -> dict[str, float]:
    """What this inference cost: its pace includes reading, decoding and resizing the images."""
    seconds = inputs.context.record.seconds[Stage.PREDICT]
    pace = {"imagesPerSecond": float(f"{len(predictions.samples) / seconds:.6g}")} if seconds else {}
    return pace | {"peakMemoryBytes": float(peak_memory())}


def _environment(inputs: _InferenceInputs) -> dict[str, str]:
    """Versions of libraries, and the model's URI, which names the version of a registered model."""
    uri = inputs.context.stores[LocationRole.MODEL].uri
    return versions(_LIBRARIES) | {"model": uri}


def _predict(inputs: _InferenceInputs) -> Predictions:
    context, count = inputs.context, len(inputs.dataset.test)
    with context.stage(Stage.PREDICT, count):
        # Maps take much disk space: they are kept only for pixel metrics and pictures.
        keep_maps = inputs.dataset.has_masks or inputs.spec.visualization.enabled
        return predict(
            inputs.predictor,
            _read(inputs, inputs.dataset.test),
            expected=count,
            size=inputs.preprocessor.size,
            keep_maps=keep_maps,
            context=context,
            valid=inputs.preprocessor.valid,
        )


def _read(inputs: _InferenceInputs, samples: Sequence[Sample]) -> Iterator[Batch]:
    readers = inputs.spec.num_workers or cpu_limit()
    return read_batches(
        inputs.prefetcher,
        samples,
        inputs.preprocessor,
        inputs.integrity,
        batch_size=inputs.predictor.preferred_batch_size,
        threads=readers,
    )


def _evaluate(inputs: _InferenceInputs, predictions: Predictions) -> EvaluationResult:
    preprocessor = inputs.preprocessor
    masks = inputs.integrity.masks.reader(preprocessor.size)
    with inputs.context.stage(Stage.EVALUATE):
        labelled = sort_labelled_scores(
            predictions, masks if inputs.dataset.has_masks else None, inputs.context.work, preprocessor.valid
        )
        thresholds, warnings = inference_thresholds(
            inputs.spec.threshold, inputs.manifest.thresholds, labelled, inputs.manifest.score_range
        )
        evaluated = evaluate(
            predictions,
            labelled,
            thresholds,
            normalizer=inference_normalizer(inputs.manifest, thresholds),
            metrics=inputs.spec.metrics.of_task(inputs.manifest.task),
            good=inputs.manifest.good_scores,
            warnings=warnings,
        )
    inputs.context.record.warn(*evaluated.warnings, about=About.RESULTS)
    return evaluated
