"""An experiment from end to end: fetch, dataset, train, predict, evaluate, visualize, export, publish."""

from dataclasses import dataclass
from pathlib import Path

import torch

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import ExportedModel, ModelFile, ModelManifest, RunConfig
from anomaly_api.status import Stage
from anomaly_api.storage import LocationRole
from anomaly_runner import publish
from anomaly_runner.batches import InputForm, ReadLog, read_batches
from anomaly_runner.context import Context
from anomaly_runner.dataset import Dataset
from anomaly_runner.digest import digest
from anomaly_runner.environment import versions
from anomaly_runner.evaluate import (
    Evaluated,
    evaluate,
    experiment_scale,
    experiment_thresholds,
    rank_truth,
    score_range,
)
from anomaly_runner.export import COMPARED, Exported, compare, export_onnx
from anomaly_runner.fetch import Listed, bring
from anomaly_runner.machine import cpu_limit
from anomaly_runner.masks import mask_reader
from anomaly_runner.models.backbone import BackboneChoice, choose_backbone, hub_repository
from anomaly_runner.models.threads import TorchThreads, pick_device
from anomaly_runner.predict import Predictions, predict
from anomaly_runner.report import Results
from anomaly_runner.storage import Pull
from anomaly_runner.torch_predictor import TorchPredictor
from anomaly_runner.tracked import flat_parameters
from anomaly_runner.train import Trained, build_model, check_memory, checkpoint, train
from anomaly_runner.visualize import visualize
from anomaly_runner.weights import bring_weights

_LIBRARIES = ("torch", "timm", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "pillow")


@dataclass(frozen=True)
class _Job:
    """An experiment's fixed inputs: what to do, on which images, with what."""

    spec: ExperimentSpec
    choice: BackboneChoice
    dataset: Dataset
    pull: Pull
    form: InputForm
    log: ReadLog
    threads: TorchThreads
    context: Context

    @property
    def readers(self) -> int:
        return self.spec.training.num_workers or cpu_limit()


def run_experiment(config: RunConfig, listed: Listed, context: Context) -> publish.Published:
    """Train, test, export and publish. Model and weights are checked before any image is pulled.

    Raises:
        RunFailed: what stopped it. Nothing has been published then.
    """
    assert config.experiment is not None
    spec = config.experiment
    torch.manual_seed(spec.dataset.seed)
    choice = choose_backbone(spec.model.parameters.backbone, spec.model.parameters.layers)
    _bring_weights(spec, choice, context)
    pull = bring(listed, context)
    size = spec.transforms.input_size
    form = InputForm(size.height, size.width, spec.transforms.normalization, spec.dataset.crop_area,
                     spec.transforms.bit_depth, listed.valid_area)  # fmt: skip
    log, threads = ReadLog(spec.dataset.limits), TorchThreads(pick_device())
    try:
        return _run(config, _Job(spec, choice, listed.dataset, pull, form, log, threads, context))
    finally:
        pull.close()


def _bring_weights(spec: ExperimentSpec, choice: BackboneChoice, context: Context) -> None:
    store = context.stores.get(LocationRole.WEIGHTS)
    if store is not None and spec.model.parameters.pre_trained:
        bring_weights(store, hub_repository(choice.name), choice.name, context.work / "weights", context.stop.check)


def _run(config: RunConfig, job: _Job) -> publish.Published:
    job.log.refuse_all(job.dataset.unreadable)
    trained = _train(job)
    predictions = _predict(job, trained)
    evaluated = _evaluate(job, predictions)
    output = job.context.stores[LocationRole.OUTPUT].below(config.run.folder)
    folder = publish.fresh_folder(job.context.work, output)
    visualize(predictions, evaluated, pull=job.pull, form=job.form, spec=job.spec.evaluation.visualization,
              max_pixels=job.spec.dataset.limits.max_image_pixels, folder=folder.here / publish.PICTURES,
              context=job.context)  # fmt: skip
    exports = _export(job, trained, predictions, folder.here)
    area = publish.write_valid_area(folder, job.form.valid_area)
    folder.write(publish.MANIFEST, _manifest(config, job, evaluated, exports, area))
    if job.spec.output.keep_checkpoint:
        _save_checkpoint(trained, folder.here / "model.safetensors")
    results = Results(job.dataset, predictions, evaluated, job.log, _environment(job), trained.images,
                      tuple(export.report for export in exports))  # fmt: skip
    return publish.publish(config, results, folder, job.spec.output.upload_artifacts, job.context)


def _train(job: _Job) -> Trained:
    job.context.tracker.begin(flat_parameters(job.spec))
    with job.context.stage(Stage.TRAIN, len(job.dataset.train)):
        model = build_model(job.spec, job.choice, job.threads, job.context.stop)
        check_memory(model, job.spec, len(job.dataset.train), job.threads)
        batches = read_batches(job.pull, job.dataset.train, job.form, job.log,
                               batch_size=job.spec.training.train_batch_size or 32, threads=job.readers)  # fmt: skip
        return train(model, batches, job.spec.dataset.seed, job.threads, job.context)


def _predict(job: _Job, trained: Trained) -> Predictions:
    predictor = TorchPredictor(trained.model, job.threads, job.spec.training.eval_batch_size)
    keep_maps = job.dataset.has_masks or job.spec.evaluation.visualization.enabled
    with job.context.stage(Stage.PREDICT, len(job.dataset.test)):
        batches = read_batches(job.pull, job.dataset.test, job.form, job.log, batch_size=predictor.step,
                               threads=job.readers)  # fmt: skip
        return predict(predictor, batches, expected=len(job.dataset.test), size=job.form.size, keep_maps=keep_maps,
                       context=job.context, reference=COMPARED)  # fmt: skip


def _evaluate(job: _Job, predictions: Predictions) -> Evaluated:
    spec = job.spec.evaluation
    reader = mask_reader(job.pull, job.form.size, job.spec.dataset.limits, job.form.crop)
    with job.context.stage(Stage.EVALUATE):
        truth = rank_truth(predictions, reader if job.dataset.has_masks else None, job.context.work)
        thresholds, warnings = experiment_thresholds(spec.threshold, truth)
        scale = experiment_scale(spec, thresholds, score_range(predictions))
        evaluated = evaluate(predictions, truth, thresholds, scale=scale, metrics=spec.metrics, warnings=warnings)
    job.context.journal.warn(*evaluated.warnings)
    return evaluated


def _export(job: _Job, trained: Trained, predictions: Predictions, folder: Path) -> tuple[Exported, ...]:
    if "onnx" not in job.spec.export.types:
        return ()
    with job.context.stage(Stage.EXPORT, unit="files"):
        file = folder / "model.onnx"
        export_onnx(trained.model, job.form.size, file)
        report = compare(file, predictions)
        return (Exported(ExportedModel(format="onnx", file=file.name, sha256=digest(file)), report),)


def _manifest(
    config: RunConfig, job: _Job, evaluated: Evaluated, exports: tuple[Exported, ...], area: ModelFile | None
) -> ModelManifest:
    return ModelManifest(
        run=config.run,
        model=job.spec.model.name,
        input_height=job.form.height,
        input_width=job.form.width,
        normalization=job.form.normalization,
        bit_depth=job.form.bit_depth,
        crop_area=job.form.crop,
        valid_area_mask=area,
        exports=tuple(export.model for export in exports),
        thresholds=evaluated.thresholds,
        score_range=dict(evaluated.scale.ranges),
        score_normalization=job.spec.evaluation.normalization,
        threshold_type=job.spec.evaluation.threshold_type,
        task=job.spec.dataset.task,
    )


def _save_checkpoint(trained: Trained, file: Path) -> None:
    from safetensors.numpy import save_file

    save_file(checkpoint(trained.model), file)


def _environment(job: _Job) -> dict[str, str]:
    device = job.threads.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x {job.threads.count}"
    return versions(_LIBRARIES) | {"device": name}
