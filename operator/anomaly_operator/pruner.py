"""Answers to the progress of trials: one whose curve is behind those of its sweep's others is told to stop.

The answer is made when a curve arrives, and kept nowhere: a push or an answer that is lost costs that chance alone.
"""

import json
from collections.abc import Callable
from datetime import datetime

import structlog
from pydantic import ValidationError

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.run import ProgressAnswer, ProgressUpdate
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.decide.trials import epochs_of, trial_record
from anomaly_operator.keys import RunKey
from anomaly_operator.search_worker import SearchWorker
from anomaly_operator.views import RunView

log = structlog.get_logger()


class Pruner:
    """Judges the curves of trials.

    Args:
        cache: the trials and their sweeps.
        worker: the search, which knows the other trials' curves.
        clock: the current time.
    """

    def __init__(self, cache: Cache, worker: SearchWorker, clock: Callable[[], datetime]) -> None:
        self._cache = cache
        self._worker = worker
        self._clock = clock

    async def answer(self, key: RunKey, update: ProgressUpdate) -> ProgressAnswer | None:
        """Return what a pod is told about its progress; None if it goes on."""
        trial = self._cache.runs.get(key)
        sweep = self._cache.runs.get(trial.sweep_key) if trial and trial.sweep_key else None
        if trial is None or sweep is None or update.curve is None or not _prunes(sweep):
            return None
        try:
            spec = ExperimentSpec.model_validate_json(trial.spec)
            record = trial_record(trial, (spec.trial and spec.trial.search) or "", self._clock())
        except ValidationError as error:
            log.error("a trial cannot be read", trial=str(key), message=str(error))
            return None
        curve = epochs_of(update.curve, spec.trial.objective if spec.trial else None)
        if record is None or not curve:
            return None
        if not await self._worker.is_behind(sweep.uid, sweep.spec, record._replace(curve=curve)):
            return None
        message = f"its best value so far is behind the median of the trials of {sweep.key.name} at epoch {max(curve)}"
        log.info("trial pruned", trial=str(key), message=message)
        return ProgressAnswer(stop="Pruned", message=message)


def _prunes(sweep: RunView) -> bool:
    return bool(json.loads(sweep.spec).get("sweep", {}).get("pruning"))
