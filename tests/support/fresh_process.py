"""A function in a process of its own: what a model's libraries keep of the memory goes with the process."""

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
"""The server imports once what takes seconds; it computes nothing, so that it has no threads when it forks."""


def in_fresh_process(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Call ``function`` of an importable module in a new process, and answer or raise what it does."""
    with ProcessPoolExecutor(1, mp_context=_CONTEXT) as pool:
        return pool.submit(function, *arguments, **options).result()
