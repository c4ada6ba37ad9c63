"""Which straight line a run takes. Imports only the one that it takes: inference has no torch."""

from anomaly_api.run import RunConfig, RunReport
from anomaly_runner.context import Context
from anomaly_runner.weights import go_offline


def execute(config: RunConfig, context: Context) -> RunReport:
    """Do what the config says.

    Raises:
        RunFailed: what stopped it.
    """
    if config.experiment is None:
        from anomaly_runner.inference import run_inference

        return run_inference(config, context)
    if config.experiment.model.weights is not None:
        go_offline()
    from anomaly_runner.experiment import run_experiment

    return run_experiment(config, context)
