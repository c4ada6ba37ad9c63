"""An experiment from end to end: fetch, dataset, train, predict, evaluate, visualize, export, publish."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import ModelFile, ModelManifest, RunConfig
from anomaly_api.status import Stage
from anomaly_api.storage import LocationRole
from anomaly_runner import publish
from anomaly_runner.context import Context
from anomaly_runner.data.batches import IntegrityLog, Preprocessor
from anomaly_runner.data.fetch import ListedDataset, prefetch_images
from anomaly_runner.data.samples import Sample
from anomaly_runner.evaluation.evaluate import EvaluationResult, evaluate
from anomaly_runner.evaluation.labelled import LabelledScores, sort_labelled_scores
from anomaly_runner.evaluation.normalize import experiment_normalizer, score_range
from anomaly_runner.evaluation.thresholds import experiment_thresholds
from anomaly_runner.exporting.export import REFERENCE_IMAGES, Exports, export_all
from anomaly_runner.models.catalog import input_normalization
from anomaly_runner.models.check import check_devices, check_exports, check_model
from anomaly_runner.models.threads import TorchThreads, pick_device
from anomaly_runner.models.weights import bring_weights, wanted_weights
from anomaly_runner.reporting.gallery import make_gallery
from anomaly_runner.reporting.report import Results
from anomaly_runner.reporting.visualize import PredictionRenderer, visualize
from anomaly_runner.scoring.predict import Predictions, maps_by_key, predict
from anomaly_runner.scoring.torch_predictor import TorchPredictor
from anomaly_runner.system.digest import digest
from anomaly_runner.system.environment import versions
from anomaly_runner.tracking.run_results import flat_parameters
from anomaly_runner.training.inputs import ExperimentJob
from anomaly_runner.training.result import Trained
from anomaly_runner.training.train import checkpoint, train

_LIBRARIES = (
    "torch",
    "timm",
    "lightning",
    "anomalib",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
    "pillow",
)
_ON_TEST = (
    "no validation images (val/, or splits.validationFraction): the thresholds were chosen on the test images, "
    "so F1Score, Precision and Recall are better than on new ones"
)


def check_experiment(spec: ExperimentSpec) -> None:
    """Whatever can be known to be wrong before the first request.

    Raises:
        InvalidConfig: what the model, the input size, the devices or the exports cannot be.
    """
    size = spec.transforms.input_size
    input_normalization(spec)
    check_model(spec.model, (size.height, size.width))
    check_devices(spec, torch.cuda.device_count())
    check_exports(spec)


def run_experiment(
    config: RunConfig, spec: ExperimentSpec, listed: ListedDataset, context: Context
) -> publish.Published:
    """Train, test, export and publish what ``check_experiment`` accepts; weights are brought before any image is.

    Args:
        config: what the report says that the run was told.
        spec: the experiment in it.
        listed: its images.
        context: stores, progress and stopping.

    Raises:
        RunFailed: what stopped it. Nothing has been published then.
    """
    size, normalization = spec.transforms.input_size, input_normalization(spec)
    weights = _weights(spec, context)
    prefetcher = prefetch_images(listed, context)
    preprocessor = Preprocessor(
        size.height, size.width, normalization, spec.dataset.crop_area, spec.transforms.bit_depth, listed.valid_area
    )
    artifacts = context.stores[LocationRole.OUTPUT].subfolder(config.run.folder)
    job = ExperimentJob(
        spec,
        listed.dataset,
        prefetcher,
        preprocessor,
        IntegrityLog(spec.dataset.limits),
        TorchThreads(pick_device()),
        weights,
        artifacts,
        context,
    )
    try:
        return _run(config, job)
    finally:
        prefetcher.close()


def _weights(spec: ExperimentSpec, context: Context) -> Path:
    store, folder = context.stores.get(LocationRole.WEIGHTS), context.work / "weights"
    if store is None:
        return folder
    return bring_weights(store, wanted_weights(spec.model), folder, context.stop.check)


def _run(config: RunConfig, job: ExperimentJob) -> publish.Published:
    job.integrity.extend_unreadable(job.dataset.unreadable)
    job.context.tracker.start(flat_parameters(job.spec))
    trained = train(job)
    with trained.kept():
        done = _test_and_publish(config, job, trained)
    trained.forget()
    return done


def _test_and_publish(config: RunConfig, job: ExperimentJob, trained: Trained) -> publish.Published:
    predictor = TorchPredictor(trained.model, job.threads, job.spec.training.eval_batch_size)
    validation = _predict(job, predictor, job.dataset.validation) if job.dataset.validation else None
    predictions = _predict(job, predictor, job.dataset.test, reference=REFERENCE_IMAGES)
    evaluated = _evaluate(job, predictions, validation)
    folder = publish.fresh_folder(job.context.work, job.artifacts)
    renderer = PredictionRenderer(predictions, evaluated, job.prefetcher, job.preprocessor, job.spec.dataset.limits)
    visualize(renderer, job.spec.evaluation.visualization, folder.here / publish.PICTURES, job.context)
    exports = _export(job, predictor, predictions, folder.here)
    area = publish.write_valid_area(folder, job.preprocessor.valid_area)
    keeps_state = job.spec.output.keep_checkpoint or exports.failure is not None
    state = _save_checkpoint(trained, folder.here / publish.CHECKPOINT) if keeps_state else None
    files = {"area": area, "state": state}
    manifest = _manifest(config, job, evaluated, exports, files, localises=trained.model.localises)
    folder.write(publish.MANIFEST, manifest)
    results = Results(
        job.dataset,
        predictions,
        evaluated,
        job.integrity,
        _environment(job),
        trained.images,
        tuple(export.report for export in exports.good),
        trained.report,
        0 if validation is None else len(validation.samples),
        make_gallery(renderer, lambda few: maps_by_key(predictor, job.read(few, predictor.preferred_batch_size))),
        failure=exports.failure,
    )
    return publish.publish(config, results, folder, job.spec.output.upload_artifacts, job.context)


def _predict(
    job: ExperimentJob, predictor: TorchPredictor, samples: Sequence[Sample], reference: int = 0
) -> Predictions:
    keep_maps = any(sample.mask for sample in samples) or job.spec.evaluation.visualization.enabled
    with job.context.stage(Stage.PREDICT, len(samples)):
        batches = job.read(samples, predictor.preferred_batch_size)
        return predict(
            predictor,
            batches,
            expected=len(samples),
            size=job.preprocessor.size,
            keep_maps=keep_maps and predictor.model.localises,
            context=job.context,
            reference=reference,
            valid=job.preprocessor.valid,
        )


def _evaluate(job: ExperimentJob, predictions: Predictions, validation: Predictions | None) -> EvaluationResult:
    """Find thresholds on the validation images, or without any on the test images, and evaluate the test images."""
    spec = job.spec.evaluation
    with job.context.stage(Stage.EVALUATE):
        labelled = _sort_labelled(job, predictions)
        # Thresholds may not be chosen on the images that they are judged on, if there are others.
        found_on = labelled if validation is None else _sort_labelled(job, validation)
        thresholds, warnings = experiment_thresholds(spec.threshold, found_on, "validation" if validation else "test")
        # Normalised scores cover everything that was seen, so that validation and test share one scale.
        seen = score_range(validation or predictions, predictions)
        normalizer = experiment_normalizer(spec, thresholds, seen)
        evaluated = evaluate(
            predictions, labelled, thresholds, normalizer=normalizer, metrics=spec.metrics, warnings=warnings
        )
    if validation is None and thresholds.source == "adaptive":
        job.context.record.warn(_ON_TEST)
    job.context.record.warn(*evaluated.warnings)
    return evaluated


def _sort_labelled(job: ExperimentJob, predictions: Predictions) -> LabelledScores:
    masks = job.masks(predictions.samples) if predictions.maps is not None else None
    return sort_labelled_scores(predictions, masks, job.context.work, job.preprocessor.valid)


def _export(job: ExperimentJob, predictor: TorchPredictor, predictions: Predictions, folder: Path) -> Exports:
    if not job.spec.export.types:
        return Exports()
    with job.context.stage(Stage.EXPORT, unit="files"):
        reference = predictor.in_torch(predictions.reference)
        return export_all(predictor.model, job.spec.export, reference, score_range(predictions), folder)


def _manifest(
    config: RunConfig,
    job: ExperimentJob,
    evaluated: EvaluationResult,
    exports: Exports,
    files: Mapping[str, ModelFile | None],
    *,
    localises: bool,
) -> ModelManifest:
    return ModelManifest(
        run=config.run,
        model=job.spec.model.name,
        input_height=job.preprocessor.height,
        input_width=job.preprocessor.width,
        normalization=job.preprocessor.normalization,
        bit_depth=job.preprocessor.bit_depth,
        crop_area=job.preprocessor.crop,
        valid_area_mask=files["area"],
        localises=localises,
        exports=tuple(export.model for export in exports.good),
        checkpoint=files["state"],
        definition=job.spec.model.model_copy(update={"weights": None}),
        thresholds=evaluated.thresholds,
        score_range=dict(evaluated.normalizer.ranges),
        score_normalization=job.spec.evaluation.normalization,
        threshold_type=job.spec.evaluation.threshold_type,
        task=job.spec.dataset.task,
    )


def _save_checkpoint(trained: Trained, file: Path) -> ModelFile:
    from safetensors.numpy import save_file

    save_file(checkpoint(trained.model), file)
    return ModelFile(file=file.name, sha256=digest(file))


def _environment(job: ExperimentJob) -> dict[str, str]:
    device = job.threads.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x {job.threads.count}"
    return versions(_LIBRARIES) | {"device": name}
