"""An experiment from end to end: fetch, dataset, train, predict, evaluate, visualize, export, measure, publish.

Only the order of the stages is decided here; what a stage does is in its own package.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import GoodScores, ModelFile, ModelManifest, RunConfig, SweepResult, TrainingReport
from anomaly_api.status import Stage, ThresholdValues
from anomaly_api.storage import LocationRole
from anomaly_runner import publish
from anomaly_runner.context import About, Context
from anomaly_runner.data.batches import IntegrityLog
from anomaly_runner.data.decoded_cache import DecodedImages
from anomaly_runner.data.fetch import ListedDataset, prefetch_images
from anomaly_runner.data.samples import Sample
from anomaly_runner.devices import asked_gpus, record_device
from anomaly_runner.errors import RunFailed
from anomaly_runner.evaluation.evaluate import EvaluationResult, evaluate
from anomaly_runner.evaluation.good_scores import summarise_good
from anomaly_runner.evaluation.labelled import LabelledScores, sort_labelled_scores
from anomaly_runner.evaluation.normalize import experiment_normalizer, score_range
from anomaly_runner.evaluation.synthetic import marked_synthetic, with_synthetic_metrics
from anomaly_runner.evaluation.thresholds import check_goal, experiment_thresholds
from anomaly_runner.exporting.compare import REFERENCE_IMAGES
from anomaly_runner.exporting.export import Exports, export_all
from anomaly_runner.exporting.performance import measure_performance, run_costs
from anomaly_runner.models.check import check_spec
from anomaly_runner.models.device import choose_device
from anomaly_runner.models.threads import TorchThreads
from anomaly_runner.models.weights import fetch_weights, wanted_weights
from anomaly_runner.reporting.gallery import make_gallery
from anomaly_runner.reporting.report import PrunedTraining, Results
from anomaly_runner.reporting.visualize import PredictionRenderer, visualize
from anomaly_runner.scoring.predict import Predictions, maps_by_key, predict
from anomaly_runner.scoring.torch_predictor import TorchPredictor
from anomaly_runner.system.digest import digest
from anomaly_runner.system.environment import versions
from anomaly_runner.tracking.run_results import flat_parameters
from anomaly_runner.training.inputs import ExperimentInputs, experiment_preprocessor
from anomaly_runner.training.result import TrainedModel
from anomaly_runner.training.train import state_arrays, train

logger = logging.getLogger(__name__)

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
    "so decisions about them, F1Score, Precision and Recall are better than on new ones"
)
_ON_SYNTHETIC = (
    "the thresholds were found with {} synthetic defects, painted on good validation images: real defects may score "
    "otherwise"
)


def check_experiment(config: RunConfig, spec: ExperimentSpec, context: Context) -> None:
    """Check everything that can be checked before the first request to a storage.

    Args:
        config: the run's configuration.
        spec: the experiment in ``config``.
        context: takes the device that will do the work.

    Raises:
        InvalidConfig: the model, the input size, the devices or the exports cannot be as the spec asks.
        GpuUnavailable: the pod cannot use the GPUs that it was given.
    """
    check_spec(spec, torch.cuda.device_count())
    chosen = choose_device()
    record_device(context, asked_gpus(config), TorchThreads(chosen.device).provider, chosen.problem)


def run_experiment(
    config: RunConfig, spec: ExperimentSpec, listed: ListedDataset, context: Context
) -> publish.Published:
    """Train, test, export and publish a model, for a spec that ``check_experiment`` has accepted.

    Args:
        config: the run's configuration, which the report repeats.
        spec: the experiment in ``config``.
        listed: its images.
        context: stores, progress and stopping.

    Raises:
        RunFailed: a stage failed or was stopped; nothing has been published.
    """
    check_goal(spec.evaluation.threshold, listed.dataset)
    # Weights first: they are few files, and without them the images are of no use.
    weights = _weights(spec, context)
    # From here on images are downloaded in the background, while models are built and trained.
    prefetcher = prefetch_images(listed, context)
    preprocessor = experiment_preprocessor(spec, listed.valid_area)
    limits = spec.dataset.limits
    inputs = ExperimentInputs(
        spec=spec,
        dataset=listed.dataset,
        prefetcher=prefetcher,
        preprocessor=preprocessor,
        integrity=IntegrityLog(limits),
        threads=TorchThreads(choose_device().device),
        weights=weights,
        artifacts=context.stores[LocationRole.OUTPUT].subfolder(config.run.folder),
        context=context,
        decoded=DecodedImages(listed.cache, preprocessor, limits.max_image_pixels) if listed.cache else None,
    )
    try:
        return _run(config, inputs)
    finally:
        prefetcher.close()


def _weights(spec: ExperimentSpec, context: Context) -> Path:
    store, folder = context.stores.get(LocationRole.WEIGHTS), context.work / "weights"
    if store is None:
        return folder
    return fetch_weights(store, wanted_weights(spec.model), folder, context.stop.check)


def _run(config: RunConfig, inputs: ExperimentInputs) -> publish.Published:
    # Files that cannot be decoded count against the dataset's limits before anything is trained.
    inputs.integrity.extend_unreadable(inputs.dataset.unreadable)
    inputs.context.tracker.start(flat_parameters(inputs.spec))
    inputs.context.tracker.check(inputs.context.stop.check)
    trained = train(inputs)
    # A run that is stopped in one of the next stages must not lose its training.
    with trained.state.preserved():
        if trained.pruned is None:
            done = _test_and_publish(config, inputs, trained)
        else:
            done = _publish_pruned(config, inputs, trained, trained.pruned)
    # Once the run is published, no later pod needs the state of the training.
    trained.state.discard()
    return done


@dataclass(frozen=True)
class _Tested:
    """A trained model, its raw scores of validation images (if there are any) and test images, and their metrics.

    ``good``: the scores of the good images that the thresholds were found on; None if there are none.
    """

    predictor: TorchPredictor
    validation: Predictions | None
    predictions: Predictions
    evaluated: EvaluationResult
    good: GoodScores | None


@dataclass(frozen=True)
class _ModelFiles:
    """Everything that model.json names."""

    exports: Exports
    valid_area: ModelFile | None
    checkpoint: ModelFile | None


def _test_and_publish(config: RunConfig, inputs: ExperimentInputs, trained: TrainedModel) -> publish.Published:
    tested = _test(inputs, trained)
    # All artifacts are made in one folder on this machine; nothing is uploaded before everything has succeeded.
    folder = publish.fresh_folder(inputs.context.work, inputs.artifacts)
    publish.keep_profile(folder, inputs.context.work)
    renderer = PredictionRenderer(
        tested.predictions, tested.evaluated, inputs.prefetcher, inputs.preprocessor, inputs.spec.dataset.limits
    )
    visualize(renderer, inputs.spec.evaluation.visualization, folder.here / publish.PICTURES, inputs.context)
    if config.sweep is not None:
        _leave_search(config.sweep, inputs, tested, folder.here)
    files = _write_model_files(inputs, trained, tested, folder)
    performance = measure_performance(
        files.exports,
        folder.here,
        tested.predictor,
        tested.predictions.reference,
        inputs.context,
        latency=inputs.spec.evaluation.latency.enabled,
    )
    folder.write(publish.MANIFEST, _manifest(config, inputs, trained, tested, files))
    complete = inputs.spec.output.upload_artifacts
    # The page's pictures need maps of a few images, and most runs keep no maps: these few are scored again.
    gallery = make_gallery(renderer, partial(_maps_of, inputs, tested.predictor)) if complete else ()
    results = Results(
        dataset=inputs.dataset,
        predictions=tested.predictions,
        evaluated=tested.evaluated,
        integrity=inputs.integrity,
        environment=versions(_LIBRARIES),
        trained_images=trained.image_count,
        validation_images=0 if tested.validation is None else len(tested.validation.samples),
        training=trained.report,
        exports=tuple(export.report for export in files.exports.verified),
        gallery=gallery,
        performance=performance.metrics,
        measured=performance.report,
        failure=files.exports.failure,
    )
    return publish.publish(config, results, folder, complete, inputs.context)


def _publish_pruned(
    config: RunConfig, inputs: ExperimentInputs, trained: TrainedModel, training: TrainingReport
) -> publish.Published:
    """Publish the course of a training that the operator has ended: its model is of no use to anybody."""
    pruned = PrunedTraining(
        dataset=inputs.dataset,
        integrity=inputs.integrity,
        environment=versions(_LIBRARIES),
        trained_images=trained.image_count,
        training=training,
        performance=run_costs(inputs.context),
    )
    folder = publish.fresh_folder(inputs.context.work, inputs.artifacts)
    return publish.publish_pruned(config, pruned, folder, inputs.context)


def _leave_search(search: SweepResult, inputs: ExperimentInputs, tested: _Tested, folder: Path) -> None:
    """Make the page of the search that came before; what is wrong with it does not cost the trained model."""
    from anomaly_runner.reporting.sweep.files import make_sweep_files  # Optuna: no other run needs it

    try:
        make_sweep_files(search, inputs.spec, folder, inputs.context, tested.evaluated.metrics)
    except RunFailed:
        raise
    except Exception as error:
        logger.exception("the sweep's page could not be made")
        inputs.context.record.warn(
            f"the sweep's page could not be made: {type(error).__name__}: {error}", about=About.EXTRAS
        )


def _test(inputs: ExperimentInputs, trained: TrainedModel) -> _Tested:
    predictor = TorchPredictor(trained.model, inputs.threads, inputs.spec.training.eval_batch_size)
    validation = _predict(inputs, predictor, inputs.dataset.validation) if inputs.dataset.validation else None
    predictions = _predict(inputs, predictor, inputs.dataset.test, reference=REFERENCE_IMAGES)
    # Every image has been read by now.
    inputs.context.record.warn(*inputs.integrity.warnings(inputs.preprocessor.size, inputs.dataset))
    evaluated, good = _evaluate(inputs, predictions, validation)
    return _Tested(predictor, validation, predictions, evaluated, good)


def _maps_of(
    inputs: ExperimentInputs, predictor: TorchPredictor, samples: Sequence[Sample]
) -> Mapping[str, NDArray[np.float32]]:
    return maps_by_key(predictor, inputs.read(samples, predictor.preferred_batch_size))


def _predict(
    inputs: ExperimentInputs, predictor: TorchPredictor, samples: Sequence[Sample], reference: int = 0
) -> Predictions:
    # Maps take much disk space: they are kept only for pixel metrics and pictures.
    keep_maps = any(sample.has_mask for sample in samples) or inputs.spec.evaluation.visualization.enabled
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


def _evaluate(
    inputs: ExperimentInputs, predictions: Predictions, validation: Predictions | None
) -> tuple[EvaluationResult, GoodScores | None]:
    """Choose thresholds on the validation images (on the test images if there are none); evaluate the test images."""
    spec, synthetic = inputs.spec.evaluation, inputs.dataset.synthetic_defects
    metrics = spec.metrics.of_task(inputs.spec.dataset.task)
    with inputs.context.stage(Stage.EVALUATE):
        labelled = _sort_labelled(inputs, predictions)
        # Thresholds are chosen on other images than those they are evaluated on, where there are others.
        found_on = labelled if validation is None else _sort_labelled(inputs, validation)
        thresholds, warnings = experiment_thresholds(spec.threshold, found_on, "validation" if validation else "test")
        thresholds = marked_synthetic(thresholds) if synthetic else thresholds
        # Ranges cover validation and test images, so that both share one scale of normalised scores.
        seen = score_range(validation or predictions, predictions)
        normalizer = experiment_normalizer(spec, thresholds, seen)
        good = summarise_good(found_on.image.negative)
        evaluated = evaluate(
            predictions, labelled, thresholds, normalizer=normalizer, metrics=metrics, good=good, warnings=warnings
        )
        evaluated = with_synthetic_metrics(evaluated, found_on, metrics) if synthetic else evaluated
    inputs.context.record.warn(
        *_about_thresholds(thresholds, validation, synthetic), *evaluated.warnings, about=About.RESULTS
    )
    return evaluated, good


def _about_thresholds(thresholds: ThresholdValues, validation: Predictions | None, synthetic: int) -> Iterator[str]:
    """What is to be known about the images that the thresholds were found on."""
    if validation is None and thresholds.source != "manual":
        yield _ON_TEST
    if thresholds.synthetic:
        yield _ON_SYNTHETIC.format(synthetic)


def _sort_labelled(inputs: ExperimentInputs, predictions: Predictions) -> LabelledScores:
    masks = inputs.masks(predictions.samples) if predictions.maps is not None else None
    return sort_labelled_scores(predictions, masks, inputs.context.work, inputs.preprocessor.valid)


def _write_model_files(
    inputs: ExperimentInputs, trained: TrainedModel, tested: _Tested, folder: publish.Folder
) -> _ModelFiles:
    exports = _export(inputs, tested, folder.here)
    # Where an export failed, the checkpoint may be all that the user has of the model.
    keeps_state = inputs.spec.output.keep_checkpoint or exports.failure is not None
    return _ModelFiles(
        exports=exports,
        valid_area=publish.write_valid_area(folder, inputs.preprocessor.valid_area),
        checkpoint=_save_checkpoint(trained, folder.here / publish.CHECKPOINT) if keeps_state else None,
    )


def _export(inputs: ExperimentInputs, tested: _Tested, folder: Path) -> Exports:
    if not inputs.spec.export.types:
        return Exports()
    with inputs.context.stage(Stage.EXPORT, unit="files"):
        reference = tested.predictor.in_torch(tested.predictions.reference)
        ranges = score_range(tested.predictions)
        return export_all(tested.predictor.model, inputs.spec.export, reference, ranges, folder)


def _manifest(
    config: RunConfig, inputs: ExperimentInputs, trained: TrainedModel, tested: _Tested, files: _ModelFiles
) -> ModelManifest:
    """model.json: everything that an inference needs in order to score images as this run did."""
    return ModelManifest(
        run=config.run,
        model=inputs.spec.model.name,
        input_height=inputs.preprocessor.height,
        input_width=inputs.preprocessor.width,
        normalization=inputs.preprocessor.normalization,
        bit_depth=inputs.preprocessor.bit_depth,
        crop_area=inputs.preprocessor.crop,
        valid_area_mask=files.valid_area,
        localises=trained.model.localises,
        exports=tuple(export.model for export in files.exports.verified),
        checkpoint=files.checkpoint,
        definition=inputs.spec.model.model_copy(update={"weights": None}),
        thresholds=tested.evaluated.thresholds,
        good_scores=tested.good,
        score_range=dict(tested.evaluated.normalizer.ranges),
        score_normalization=inputs.spec.evaluation.normalization,
        threshold_type=inputs.spec.evaluation.threshold_type,
        task=inputs.spec.dataset.task,
    )


def _save_checkpoint(trained: TrainedModel, file: Path) -> ModelFile:
    from safetensors.numpy import save_file

    save_file(state_arrays(trained.model), file)
    return ModelFile(file=file.name, sha256=digest(file))
