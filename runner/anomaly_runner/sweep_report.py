"""The end of a sweep that trains nothing, or failed: its page, its tables and its journal, from its trials' reports."""

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import RunConfig
from anomaly_api.storage import LocationRole
from anomaly_runner import publish
from anomaly_runner.context import Context
from anomaly_runner.errors import InvalidConfig
from anomaly_runner.reporting.sweep.files import make_sweep_files
from anomaly_runner.tracking.run_results import flat_parameters


def run_report(config: RunConfig, spec: ExperimentSpec, context: Context) -> publish.Published:
    """Make and publish what a search leaves.

    Args:
        config: the run's configuration, with the search.
        spec: the experiment in ``config``.
        context: stores, progress and stopping.

    Raises:
        InvalidConfig: there is no search in it.
        RunFailed: a stage failed or was stopped; nothing has been published.
    """
    if config.sweep is None:
        raise InvalidConfig("the step report needs the search that came before it")
    context.tracker.start(flat_parameters(spec))
    context.tracker.check(context.stop.check)
    folder = publish.fresh_folder(context.work, context.stores[LocationRole.OUTPUT].subfolder(config.run.folder))
    make_sweep_files(config.sweep, spec, folder.here, context)
    return publish.publish_search(config, folder, context)
