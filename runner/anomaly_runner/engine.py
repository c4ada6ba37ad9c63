"""Dispatch a run to the experiment or the inference, and import only that one: an inference needs no torch."""

from anomaly_api.inference import InferenceSpec
from anomaly_api.run import RunConfig
from anomaly_runner.context import Context
from anomaly_runner.data.fetch import discard_listing, list_experiment
from anomaly_runner.errors import DataChanged, InvalidConfig
from anomaly_runner.models.weights import go_offline
from anomaly_runner.preflight.checked import Checked
from anomaly_runner.publish import Published, already_published
from anomaly_runner.tracking.mlflow_tracker import LOCAL_UID
from anomaly_runner.tracking.run_results import flat_parameters


def execute(config: RunConfig, context: Context) -> Published | Checked:
    """Do what the config says, unless an earlier pod of the same run has done it.

    Raises:
        RunFailed: what stopped it.
    """
    done = already_published(config, context) if config.run.uid != LOCAL_UID else None
    if config.step == "check":
        return check(config, context)
    if done is None:
        return _do(config, context)
    context.tracker.start(flat_parameters(config.spec))
    return done


def check(config: RunConfig, context: Context) -> Checked:
    """Find out all that can be known before the work.

    Raises:
        RunFailed: what would stop the work.
    """
    if isinstance(config.spec, InferenceSpec):
        from anomaly_runner.preflight.inference import check_inference

        return check_inference(config.spec, context)
    if config.spec.model.weights is not None:
        go_offline()
    from anomaly_runner.preflight.experiment import check_experiment

    return check_experiment(config, config.spec, context)


def _do(config: RunConfig, context: Context) -> Published:
    try:
        return _work(config, context)
    except DataChanged:
        if config.listing is not None:
            discard_listing(config.listing, context)
        raise


def _work(config: RunConfig, context: Context) -> Published:
    if isinstance(config.spec, InferenceSpec):
        from anomaly_runner.inference import run_inference

        return run_inference(config, config.spec, context)
    if config.spec.sweep is not None:
        raise InvalidConfig("spec.sweep: a sweep has no run of its own, only its trials and its end have")
    if config.step == "report":
        from anomaly_runner.sweep_report import run_report

        return run_report(config, config.spec, context)
    if config.spec.model.weights is not None:
        go_offline()
    from anomaly_runner.experiment import check_experiment, run_experiment

    check_experiment(config, config.spec, context)
    listed = list_experiment(config.spec, context, known=config.listing)
    return run_experiment(config, config.spec, listed, context)
