"""A function in a new process, with which the memory that a model's libraries keep is released."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["anomalib.models", "anomaly_runner.experiment", "anomaly_runner.training.with_anomalib"]
)
"""The fork server imports slow libraries once; it computes nothing, so it has no threads when it forks."""


def in_fresh_process(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Call ``function`` of an importable module in a new process, and return its result or raise its error."""
    with ProcessPoolExecutor(1, mp_context=_CONTEXT) as pool:
        return pool.submit(function, *arguments, **options).result()
