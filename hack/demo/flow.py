"""The demo from beginning to end; every step skips what is up to date already."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from hack.cluster.progress import duration
from hack.demo import install, results
from hack.demo.cluster import Object, find, forwarded, kubectl
from hack.demo.digits import write_inference_folders, write_mnist_folders
from hack.demo.downloads import CACHE
from hack.demo.follow import run_sample
from hack.demo.gravel import write_good_gravel, write_gravel
from hack.demo.storage import Client, connect, upload_folder
from hack.demo.weights import write_efficientnet_lite0
from hack.images.catalog import ROOT

SAMPLES = ROOT / "manifests" / "samples"
EXPERIMENT = SAMPLES / "mnist-padim.yaml"
INFERENCE = SAMPLES / "mnist-inference.yaml"
SWEEP = SAMPLES / "sweep-mnist.yaml"
SWEEP_SECONDS = 3600.0
"""Longest time of the sweep: twelve trials and the training of the best."""
# Local folders, each uploaded to the bucket of its name.
DATA = CACHE / "buckets" / "data"
WEIGHTS = CACHE / "buckets" / "weights"


def up(console: Console, *, sweep: bool = False) -> None:
    """Install, upload, run both samples, and a sweep if asked to, and show the results."""
    with console.status("installing the S3 server and MLflow"):
        install.install_services()
    if not install.has_default_storage():
        console.print("no default StorageClass: the results are lost when the pod of the S3 server is deleted")
    with console.status("installing the operator"):
        install.install_operator()
    with s3_client() as client:
        with console.status("uploading pictures and weights"):
            upload_data(client)
        _forget_lost_runs(client, sweep=sweep)
        experiment = run_sample(EXPERIMENT, console)
        inference = run_sample(INFERENCE, console, after=experiment)
        _show([experiment, inference], client, console)
        if sweep:
            _run_sweep(client, console)


def _run_sweep(client: Client, console: Console) -> None:
    """Run the sweep, with its trials' progress, and show what it found and where its page is."""
    begun = time.monotonic()
    console.print(f"\n[bold]kubectl apply -f {SWEEP.relative_to(ROOT)}[/bold]")
    run = run_sample(SWEEP, console, seconds=SWEEP_SECONDS)
    results.show_sweep(run, console)
    console.print(f"\nThe page of {run['metadata']['name']}: {results.fetch_sweep(run, client)}", soft_wrap=True)
    with forwarded("mlflow", 5000, install.NAMESPACE) as mlflow:
        results.show_nested(run, mlflow, console)
    console.print(f"the sweep took {duration(time.monotonic() - begun)}", highlight=False)


def down(console: Console) -> None:
    """Remove everything that `up` installed."""
    with console.status("removing the demo"):
        install.uninstall()


@contextmanager
def s3_client() -> Iterator[Client]:
    """Yield a client of the demo's S3 server, over a forwarded port."""
    with forwarded("s3", 7070, install.NAMESPACE) as address:
        yield connect(address, install.credentials())


def upload_data(client: Client) -> None:
    """Prepare the samples' pictures and weights, and upload what the buckets lack."""
    prepare_data(DATA, WEIGHTS)
    upload_folder(client, DATA, "data")
    upload_folder(client, WEIGHTS, "weights")


def prepare_data(data: Path, weights: Path) -> None:
    """Write the pictures of the samples below `data`, and the weights cache below `weights`."""
    writers: dict[str, Callable[[Path], None]] = {
        "mnist": write_mnist_folders,
        "mnist-inference": write_inference_folders,
        "gravel": write_gravel,
        "gravel-good-parts": write_good_gravel,
    }
    for name, write in writers.items():
        if not (data / name).exists():
            half = data / f".{name}"
            shutil.rmtree(half, ignore_errors=True)
            write(half)
            half.rename(data / name)
    write_efficientnet_lite0(weights)


def _forget_lost_runs(client: Client, *, sweep: bool) -> None:
    """Delete runs whose files S3 has lost: runs that build on them would fail.

    An S3 server without a volume loses all files with its pod.
    """
    runs = [("anomalyexperiment", "mnist-padim"), ("anomalyinference", "mnist-inference")]
    for kind, name in [*runs, ("anomalyexperiment", "sweep-mnist")] if sweep else runs:
        run = find(kind, name, install.NAMESPACE)
        if run and run.get("status", {}).get("artifacts", {}).get("root") and not results.artifacts_exist(run, client):
            kubectl("delete", kind, name, "--ignore-not-found", f"--namespace={install.NAMESPACE}")


def _show(runs: list[Object], client: Client, console: Console) -> None:
    results.show_resources(install.NAMESPACE, console)
    for run in runs:
        results.show_artifacts(run, client, console)
    with forwarded("mlflow", 5000, install.NAMESPACE) as mlflow:
        results.show_metrics(runs[0], mlflow, console)
    for run in runs:
        if page := results.fetch_report(run, client):
            console.print(f"\nThe report of {run['metadata']['name']}: {page}", soft_wrap=True)
        if picture := results.fetch_picture(run, client):
            console.print(f"\nA picture of {run['metadata']['name']}: {picture}", soft_wrap=True)
