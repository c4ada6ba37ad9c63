"""``anomaly-runner run FILE --local DIR``: one run, or a sweep of many."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import RunIdentity, SweepResult
from anomaly_api.sweep import Sweep
from anomaly_api.sweep_end import failure_at_end
from anomaly_runner.errors import RunFailed, Stopped
from anomaly_runner.local import print_failure, run_one
from anomaly_runner.local_sweep.children import PROGRAM, Children, gpus_to_share
from anomaly_runner.manifests import read_resource
from anomaly_runner.system.stop import StopSignal


def run_file(file: Path, folder: Path, parallel: int, program: Sequence[str] = PROGRAM) -> int:
    """Run a resource's YAML on local folders, print what comes of it, and return the exit code.

    Args:
        file: the resource.
        folder: stands for all storage.
        parallel: trials of a sweep at the same time.
        program: the command that runs a trial.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config = read_resource(file, folder)
        if config.experiment is None or config.experiment.sweep is None:
            return run_one(config, folder)
        return _sweep(config.run, config.experiment, folder, parallel, program)
    except RunFailed as error:
        print_failure(Console(stderr=True), error.reason.value, str(error))
        return error.exit_code


def _sweep(run: RunIdentity, spec: ExperimentSpec, folder: Path, parallel: int, program: Sequence[str]) -> int:
    """Search, then do what ``sweep.final`` says.

    Raises:
        InvalidConfig: another process is at work on the same sweep, or what it starts from is not there.
        Stopped: somebody pressed Ctrl-C.
    """
    # The search's libraries take a second to load, and the images for inference do not have them.
    from anomaly_runner.local_sweep import finale
    from anomaly_runner.local_sweep.records import SweepFolder, now
    from anomaly_runner.local_sweep.search import Search
    from anomaly_runner.local_sweep.view import LineView, TableView
    from anomaly_search.session import winner

    sweep = spec.sweep
    assert sweep is not None, "the spec of a sweep"
    console, files = Console(), SweepFolder(folder, run, spec)
    with files.held():
        kept = files.search(now())
        files.keep_search(kept)
        scratch = _empty(folder / f".sweep-{run.namespace}-{run.name}")
        for remark in _remarks(sweep, parallel):
            console.print(remark, style="dim", highlight=False, soft_wrap=True)
        _prepare_tracking(spec, folder, parallel)
        gpus = 0 if spec.training.devices else gpus_to_share(parallel)
        view = (TableView if console.is_terminal else LineView)(console, sweep.objectives, run.name)
        try:
            with StopSignal().listening() as stop:
                children = Children(folder, scratch, parallel, gpus=gpus, program=program)
                search = Search(run, files, kept, parallel, children=children, view=view, stop=stop)
                end = search.until_over()
        except Stopped as error:
            raise Stopped("stopped; the same command goes on from here") from error
        finally:
            view.close()
            shutil.rmtree(scratch, ignore_errors=True)
        status = search.status(end.reason)
        finale.tell(status, sweep, end, console)
        best = winner(kept.spec, search.records())
        found = SweepResult(spec=sweep, status=status, failure=failure_at_end(end, status))
        if found.failure or best is None:
            return finale.fail(run, spec, found, files.home, folder)
        return finale.finish(run, found, best, files.home, folder)


def _remarks(sweep: Sweep, parallel: int) -> list[str]:
    """Return what is other than in a cluster."""
    if sweep.trials.parallel == parallel:
        return []
    return [f"trials at the same time: {parallel} (--parallel), not {sweep.trials.parallel} (trials.parallel)"]


def _prepare_tracking(spec: ExperimentSpec, folder: Path, parallel: int) -> None:
    """Make MLflow's database before several trials do at once, which its migrations are not made for."""
    if spec.tracking.mlflow is None or parallel == 1:
        return
    from anomaly_runner.tracking.mlflow_client import connect, local_uri

    connect(local_uri(folder)).search_experiments(max_results=1)


def _empty(folder: Path) -> Path:
    """Return an empty folder: what a killed call has left in it goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
