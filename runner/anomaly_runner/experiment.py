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
from anomaly_runner.training.inputs import ExperimentInputs
from anomaly_runner.training.result import TrainedModel
from anomaly_runner.training.train import state_arrays, train

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
    inputs = ExperimentInputs(
        spec=spec,
        dataset=listed.dataset,
        prefetcher=prefetcher,
        preprocessor=preprocessor,
        integrity=IntegrityLog(spec.dataset.limits),
        threads=TorchThreads(pick_device()),
        weights=weights,
        artifacts=artifacts,
        context=context,
    )
    try:
        return _run(config, inputs)
    finally:
        prefetcher.close()


def _weights(spec: ExperimentSpec, context: Context) -> Path:
    store, folder = context.stores.get(LocationRole.WEIGHTS), context.work / "weights"
    if store is None:
        return folder
    return bring_weights(store, wanted_weights(spec.model), folder, context.stop.check)


def _run(config: RunConfig, inputs: ExperimentInputs) -> publish.Published:
    inputs.integrity.extend_unreadable(inputs.dataset.unreadable)
    inputs.context.tracker.start(flat_parameters(inputs.spec))
    trained = train(inputs)
    # the last stages may be stopped too: the training must not be lost with them
    with trained.state.preserved():
        done = _test_and_publish(config, inputs, trained)
    trained.state.discard()
    return done


def _test_and_publish(config: RunConfig, inputs: ExperimentInputs, trained: TrainedModel) -> publish.Published:
    predictor = TorchPredictor(trained.model, inputs.threads, inputs.spec.training.eval_batch_size)
    validation = _predict(inputs, predictor, inputs.dataset.validation) if inputs.dataset.validation else None
    predictions = _predict(inputs, predictor, inputs.dataset.test, reference=REFERENCE_IMAGES)
    evaluated = _evaluate(inputs, predictions, validation)
    folder = publish.fresh_folder(inputs.context.work, inputs.artifacts)
    renderer = PredictionRenderer(
        predictions, evaluated, inputs.prefetcher, inputs.preprocessor, inputs.spec.dataset.limits
    )
    visualize(renderer, inputs.spec.evaluation.visualization, folder.here / publish.PICTURES, inputs.context)
    exports = _export(inputs, predictor, predictions, folder.here)
    area = publish.write_valid_area(folder, inputs.preprocessor.valid_area)
    keeps_state = inputs.spec.output.keep_checkpoint or exports.failure is not None
    state = _save_checkpoint(trained, folder.here / publish.CHECKPOINT) if keeps_state else None
    files = {"area": area, "state": state}
    manifest = _manifest(config, inputs, evaluated, exports, files, localises=trained.model.localises)
    folder.write(publish.MANIFEST, manifest)
    results = Results(
        inputs.dataset,
        predictions,
        evaluated,
        inputs.integrity,
        _environment(inputs),
        trained.image_count,
        tuple(export.report for export in exports.good),
        trained.report,
        0 if validation is None else len(validation.samples),
        make_gallery(renderer, lambda few: maps_by_key(predictor, inputs.read(few, predictor.preferred_batch_size))),
        failure=exports.failure,
    )
    return publish.publish(config, results, folder, inputs.spec.output.upload_artifacts, inputs.context)


def _predict(
    inputs: ExperimentInputs, predictor: TorchPredictor, samples: Sequence[Sample], reference: int = 0
) -> Predictions:
    keep_maps = any(sample.mask for sample in samples) or inputs.spec.evaluation.visualization.enabled
    with inputs.context.stage(Stage.PREDICT, len(samples)):
        batches = inputs.read(samples, predictor.preferred_batch_size)
        return predict(
            predictor,
            batches,
            expected=len(samples),
            size=inputs.preprocessor.size,
            keep_maps=keep_maps and predictor.model.localises,
            context=inputs.context,
            reference=reference,
            valid=inputs.preprocessor.valid,
        )


def _evaluate(inputs: ExperimentInputs, predictions: Predictions, validation: Predictions | None) -> EvaluationResult:
    """Find thresholds on the validation images, or without any on the test images, and evaluate the test images."""
    spec = inputs.spec.evaluation
    with inputs.context.stage(Stage.EVALUATE):
        labelled = _sort_labelled(inputs, predictions)
        # Thresholds may not be chosen on the images that they are judged on, if there are others.
        found_on = labelled if validation is None else _sort_labelled(inputs, validation)
        thresholds, warnings = experiment_thresholds(spec.threshold, found_on, "validation" if validation else "test")
        # Normalised scores cover everything that was seen, so that validation and test share one scale.
        seen = score_range(validation or predictions, predictions)
        normalizer = experiment_normalizer(spec, thresholds, seen)
        evaluated = evaluate(
            predictions, labelled, thresholds, normalizer=normalizer, metrics=spec.metrics, warnings=warnings
        )
    if validation is None and thresholds.source == "adaptive":
        inputs.context.record.warn(_ON_TEST)
    inputs.context.record.warn(*evaluated.warnings)
    return evaluated


def _sort_labelled(inputs: ExperimentInputs, predictions: Predictions) -> LabelledScores:
    masks = inputs.masks(predictions.samples) if predictions.maps is not None else None
    return sort_labelled_scores(predictions, masks, inputs.context.work, inputs.preprocessor.valid)


def _export(inputs: ExperimentInputs, predictor: TorchPredictor, predictions: Predictions, folder: Path) -> Exports:
    if not inputs.spec.export.types:
        return Exports()
    with inputs.context.stage(Stage.EXPORT, unit="files"):
        reference = predictor.in_torch(predictions.reference)
        return export_all(predictor.model, inputs.spec.export, reference, score_range(predictions), folder)


def _manifest(
    config: RunConfig,
    inputs: ExperimentInputs,
    evaluated: EvaluationResult,
    exports: Exports,
    files: Mapping[str, ModelFile | None],
    *,
    localises: bool,
) -> ModelManifest:
    return ModelManifest(
        run=config.run,
        model=inputs.spec.model.name,
        input_height=inputs.preprocessor.height,
        input_width=inputs.preprocessor.width,
        normalization=inputs.preprocessor.normalization,
        bit_depth=inputs.preprocessor.bit_depth,
        crop_area=inputs.preprocessor.crop,
        valid_area_mask=files["area"],
        localises=localises,
        exports=tuple(export.model for export in exports.good),
        checkpoint=files["state"],
        definition=inputs.spec.model.model_copy(update={"weights": None}),
        thresholds=evaluated.thresholds,
        score_range=dict(evaluated.normalizer.ranges),
        score_normalization=inputs.spec.evaluation.normalization,
        threshold_type=inputs.spec.evaluation.threshold_type,
        task=inputs.spec.dataset.task,
    )


def _save_checkpoint(trained: TrainedModel, file: Path) -> ModelFile:
    from safetensors.numpy import save_file

    save_file(state_arrays(trained.model), file)
    return ModelFile(file=file.name, sha256=digest(file))


def _environment(inputs: ExperimentInputs) -> dict[str, str]:
    device = inputs.threads.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x {inputs.threads.count}"
    return versions(_LIBRARIES) | {"device": name}
