"""Load a trained model from the folder of an experiment's artifacts: its manifest, its files and its predictor.

Every file is checked against its digest before it is read. torch is imported only for the runtimes torch and
torchscript.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from anomaly_api.inference import InferenceSpec, Runtime
from anomaly_api.resource import describe_invalid
from anomaly_api.run import MODEL_MANIFEST, ExportedModel, ModelFile, ModelManifest
from anomaly_api.status import TrainedBy
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context
from anomaly_runner.data.preprocessor import Preprocessor
from anomaly_runner.data.valid_area import ValidArea
from anomaly_runner.errors import DataInvalid, ModelInvalid
from anomaly_runner.scoring.cuda_provider import onnx_gpu_problem
from anomaly_runner.scoring.onnx_predictor import load_onnx
from anomaly_runner.scoring.predict import Predictor
from anomaly_runner.storage import ObjectInfo, Store, download_all
from anomaly_runner.system.digest import digest


@dataclass(frozen=True)
class TrainedModel:
    """A model as its folder describes it.

    Attributes:
        manifest: the content of model.json.
        digest: SHA-256 of model.json as it was read, hexadecimal: it names the digests of all other files.
    """

    manifest: ModelManifest
    digest: str

    @property
    def trained_by(self) -> TrainedBy:
        """The run of the experiment that trained it."""
        run = self.manifest.run
        return TrainedBy(
            namespace=run.namespace, name=run.name, uid=run.uid, run=run.number or 1, model_digest=self.digest
        )


def read_model_manifest(store: Store) -> ModelManifest:
    """Read model.json from a folder of artifacts; raises what ``read_trained_model`` does."""
    return read_trained_model(store).manifest


def read_trained_model(store: Store) -> TrainedModel:
    """Read model.json from a folder of artifacts, with its digest.

    Raises:
        ModelInvalid: model.json is missing, or this version of the runner cannot read it.
        StorageDenied, StorageUnavailable: the storage refuses or does not answer.
    """
    try:
        content = store.read(MODEL_MANIFEST)
    except DataInvalid as error:
        raise ModelInvalid(f"no trained model: {error}") from error
    if content is None:
        raise ModelInvalid(f"no {MODEL_MANIFEST} in {store.uri}: is it the artifacts' folder of a complete run?")
    try:
        manifest = ModelManifest.model_validate_json(content)
    except ValidationError as error:
        raise ModelInvalid(f"{MODEL_MANIFEST} in {store.uri}: {describe_invalid(error, 'model')}") from error
    return TrainedModel(manifest, hashlib.sha256(content).hexdigest())


def gpu_problem(runtime: Runtime) -> str | None:
    """Why a runtime cannot use a GPU, as far as that is known without a model; None if nothing is in the way."""
    if runtime == "onnx":
        return onnx_gpu_problem()
    from anomaly_runner.models.device import choose_device

    return choose_device().problem


def load_predictor(spec: InferenceSpec, manifest: ModelManifest, context: Context) -> Predictor:
    """Load the model in the form that the spec's runtime executes.

    Raises:
        ModelInvalid: the model has no such form, or its file is missing or damaged.
        StorageDenied, StorageUnavailable: the file cannot be downloaded.
        Stopped: the run was asked to stop.
    """
    store, tf32 = context.stores[LocationRole.MODEL], spec.precision == "tf32"
    file = fetch_model_file(store, choose_form(spec.runtime, manifest), context)
    if spec.runtime == "torch":
        from anomaly_runner.scoring.checkpoint import load_torch

        return load_torch(manifest, file, spec.batch_size, tf32=tf32)
    if spec.runtime == "onnx":
        return load_onnx(file, spec.batch_size, tf32=tf32)
    from anomaly_runner.scoring.torchscript_predictor import load_torchscript

    return load_torchscript(file, spec.batch_size, tf32=tf32)


def choose_form(runtime: Runtime, manifest: ModelManifest) -> ExportedModel | ModelFile:
    """The form of the model that a runtime executes.

    Raises:
        ModelInvalid: the model has no such form.
    """
    if runtime == "torch":
        if manifest.checkpoint is None:
            raise ModelInvalid("the model's state was not kept; train it with output.keepCheckpoint: true")
        return manifest.checkpoint
    exported = next((model for model in manifest.exports if model.format == runtime), None)
    if exported is None:
        raise ModelInvalid(f"the model has no {runtime} export; train it with export.types: [{runtime}]")
    return exported


def inference_preprocessor(spec: InferenceSpec, manifest: ModelManifest, context: Context) -> Preprocessor:
    """The preprocessor of the training; the spec may change only the crop, for a camera that was moved.

    Raises:
        RunFailed: as ``fetch_model_file``.
    """
    return Preprocessor(
        height=manifest.input_height,
        width=manifest.input_width,
        normalization=manifest.normalization,
        crop=spec.input.crop_area or manifest.crop_area,
        bit_depth=manifest.bit_depth,
        valid_area=read_valid_area(spec, manifest, context),
    )


def read_valid_area(spec: InferenceSpec, manifest: ModelManifest, context: Context) -> ValidArea | None:
    """Read the valid area that the model was trained with; None for whole images. Raises as ``fetch_model_file``."""
    if manifest.valid_area_mask is None:
        return None
    file = fetch_model_file(context.stores[LocationRole.MODEL], manifest.valid_area_mask, context)
    return ValidArea.read(file.read_bytes(), file.name, spec.input.limits.max_image_pixels)


def fetch_model_file(store: Store, model_file: ExportedModel | ModelFile, context: Context) -> Path:
    """Download a file of the model and its companions (such as external weights), and return the file's path.

    Raises:
        ModelInvalid: a file is missing, or differs from the one that was published.
        StorageDenied, StorageUnavailable: a file cannot be downloaded.
        Stopped: the run was asked to stop.
    """
    objects = find_model_file(store, model_file)
    folder = download_all(store, objects, context.work / "model", context.stop.check)
    for name, sha256 in _digests(model_file).items():
        if digest(folder / name) != sha256:
            raise ModelInvalid(f"{name} in {store.uri} is not the file that was published: its SHA-256 differs")
    return folder / model_file.file


def find_model_file(store: Store, model_file: ExportedModel | ModelFile) -> list[ObjectInfo]:
    """A file of the model and its companions, without downloading them.

    Raises:
        ModelInvalid: one is missing.
        StorageDenied, StorageUnavailable: the store cannot be listed.
    """
    wanted = _digests(model_file)
    objects = [info for name in wanted for info in store.list(name) if info.key == name]
    for name in wanted.keys() - {info.key for info in objects}:
        raise ModelInvalid(f"{name} is missing in {store.uri}")
    return objects


def _digests(model_file: ExportedModel | ModelFile) -> dict[str, str]:
    """SHA-256 of the file and its companions, by name."""
    companions = model_file.companions if isinstance(model_file, ExportedModel) else {}
    return {model_file.file: model_file.sha256} | companions
