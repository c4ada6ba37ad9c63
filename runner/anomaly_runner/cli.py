"""The command line: ``anomaly-runner run FILE --local DIR`` and ``check`` for people, ``pod`` for containers,
``trial`` for sweeps without a cluster.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from anomaly_api.run import CONFIG_PATH, TERMINATION_PATH, WORK_DIR

os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars would run into ours; read when they are imported

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Runs an anomaly-detection experiment or inference.",
)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="An AnomalyExperiment or AnomalyInference (YAML).")],
    local: Annotated[Path, typer.Option(help="Folder that stands for all storage: s3://BUCKET/KEY is DIR/BUCKET/KEY.")],
    parallel: Annotated[int, typer.Option(min=1, help="Trials of a sweep at the same time.")] = 1,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
) -> None:
    """Run a resource's YAML on this machine, on local folders and a local MLflow store."""
    from anomaly_runner.system.logging_setup import log_for_people

    log_for_people(verbose)
    from anomaly_runner.local_sweep.command import run_file

    raise typer.Exit(run_file(file, local.resolve(), parallel))


@app.command(hidden=True)
def trial(
    file: Annotated[Path, typer.Argument(help="The trial's experiment (YAML).")],
    local: Annotated[Path, typer.Option(help="Folder that stands for all storage, as for run.")],
    exchange: Annotated[Path, typer.Option(help="Folder for progress and summary.")],
    parent: Annotated[int, typer.Option(help="Process id of the sweep.")],
) -> None:
    """Run one trial of a sweep; this is what a sweep without a cluster starts."""
    from anomaly_runner.system.logging_setup import log_for_people

    log_for_people(verbose=True)
    from anomaly_runner.local_sweep.trial import run_trial

    _end(run_trial(file, local, exchange, parent))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="An AnomalyExperiment or AnomalyInference (YAML).")],
    local: Annotated[Path, typer.Option(help="Folder that stands for all storage, as for run.")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is looked at.")] = False,
) -> None:
    """Find out what would keep a resource's YAML from its end, without running it: images, masks, model, memory."""
    from anomaly_runner.system.logging_setup import log_for_people

    log_for_people(verbose)
    from anomaly_runner.local import check_locally

    raise typer.Exit(check_locally(file, local.resolve()))


@app.command()
def pod(
    config: Annotated[Path, typer.Option(help="The RunConfig (JSON).")] = Path(CONFIG_PATH),
    work: Annotated[Path, typer.Option(help="Scratch space.")] = Path(WORK_DIR),
    termination: Annotated[Path, typer.Option(help="Where the termination message goes.")] = Path(TERMINATION_PATH),
) -> None:
    """Do what the mounted RunConfig says; this is what the container runs."""
    from anomaly_runner.system.logging_setup import log_for_pods

    log_for_pods()
    from anomaly_runner.in_cluster import run_in_pod

    _end(run_in_pod(config, work, termination, os.environ))


def _end(code: int) -> NoReturn:
    """Exit without running the libraries' own shutdown: all results are stored by now.

    A library may fork during its shutdown, and the child may then wait for a lock that a thread of another library held
    at that moment: the pod would never end, although its results are stored.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
