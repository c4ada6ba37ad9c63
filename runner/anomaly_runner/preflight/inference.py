"""The step check of an inference: what scoring would find out before and with its first images. Imports no torch."""

import logging

from anomaly_api.inference import InferenceSpec
from anomaly_api.run import ModelManifest
from anomaly_api.storage import LocationRole
from anomaly_runner.context import Context
from anomaly_runner.data.batches import IntegrityLog
from anomaly_runner.data.builtin import PUBLISHED, files_of
from anomaly_runner.data.fetch import ListedDataset, list_inference
from anomaly_runner.preflight.checked import Checked, passed
from anomaly_runner.preflight.images import look_at_images
from anomaly_runner.preflight.output import check_output
from anomaly_runner.scoring.trained_model import (
    choose_form,
    fetch_model_file,
    find_model_file,
    inference_preprocessor,
    read_model_manifest,
)

logger = logging.getLogger(__name__)

_DIGESTED_BYTES = 64 << 20
"""Size up to which a model is downloaded and compared with its digest; of a larger one the files are looked for."""


def check_inference(spec: InferenceSpec, context: Context) -> Checked:
    """Check an inference without scoring, in the order in which its run would find out what is wrong.

    Args:
        spec: the inference.
        context: stores, progress and stopping; its tracker is asked, and starts no run.

    Raises:
        RunFailed: what the run would end with.
    """
    unchecked = list[str]()
    manifest = read_model_manifest(context.stores[LocationRole.MODEL])
    listed = _list(spec, manifest, context, unchecked)
    _check_model(spec, manifest, context, unchecked)
    preprocessor, integrity = inference_preprocessor(spec, manifest, context), IntegrityLog(spec.input.limits)
    if listed is not None:
        integrity.extend_unreadable(listed.dataset.unreadable)
    if silence := context.tracker.probe(context.stop.check):
        unchecked.append(silence)
    if listed is not None:
        look_at_images(listed, preprocessor, integrity, context)
    return passed(
        listed.dataset if listed else None,
        context,
        with_masks=manifest.task == "segmentation",
        unchecked=unchecked,
        listing=check_output(listed, context),
    )


def _list(spec: InferenceSpec, manifest: ModelManifest, context: Context, unchecked: list[str]) -> ListedDataset | None:
    """List the images; None for a builtin dataset, which is not downloaded for a check."""
    builtin = spec.input.source.builtin
    if builtin is None:
        return list_inference(spec, manifest, context)
    megabytes = sum(file.size for file in files_of(builtin, PUBLISHED)) >> 20
    unchecked.append(f"the images of {builtin.name}, of which the run itself downloads {megabytes} MB")
    return None


def _check_model(spec: InferenceSpec, manifest: ModelManifest, context: Context, unchecked: list[str]) -> None:
    """Check that the runtime's form of the model is there, and, if it is small, that it is what was published.

    Raises:
        ModelInvalid: there is no such form, or a file of it is missing or another one.
        StorageDenied, StorageUnavailable: the model's folder cannot be read.
    """
    store, form = context.stores[LocationRole.MODEL], choose_form(spec.runtime, manifest)
    files = find_model_file(store, form)
    size = sum(info.size for info in files)
    if size <= _DIGESTED_BYTES:
        fetch_model_file(store, form, context)
    else:
        unchecked.append(f"the content of {form.file} ({size >> 20} MB)")
    logger.info("the model is there", extra={"files": len(files), "bytes": size})
