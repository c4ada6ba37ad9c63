"""Answers to the progress of trials: one whose curve is behind those of its sweep's others is told to stop.

The answer is made when a curve arrives, and kept nowhere: a push or an answer that is lost costs that chance alone.
"""

import json

import structlog
from pydantic import ValidationError

from anomaly_api.run import ProgressAnswer, ProgressUpdate
from anomaly_api.sweep_exchange import epochs_of
from anomaly_operator.cluster.cache import Cache
from anomaly_operator.decide.trials import seen_trial
from anomaly_operator.keys import RunKey
from anomaly_operator.search_worker import SearchWorker
from anomaly_operator.views import RunView

log = structlog.get_logger()


class Pruner:
    """Judges the curves of trials.

    Args:
        cache: the trials and their sweeps.
        worker: the search, which knows the other trials' curves.
    """

    def __init__(self, cache: Cache, worker: SearchWorker) -> None:
        self._cache = cache
        self._worker = worker

    async def answer(self, key: RunKey, update: ProgressUpdate) -> ProgressAnswer | None:
        """Return what a pod is told about its progress; None if it goes on."""
        trial = self._cache.runs.get(key)
        sweep = self._cache.runs.get(trial.sweep_key) if trial and trial.sweep_key else None
        if trial is None or sweep is None or update.curve is None or not _prunes(sweep):
            return None
        try:
            seen = seen_trial(trial)
        except ValidationError as error:
            log.error("a trial cannot be read", trial=str(key), message=str(error))
            return None
        curve = epochs_of(update.curve, json.loads(trial.spec)["trial"].get("objective"))
        if not curve or not await self._worker.is_behind(sweep.uid, sweep.spec, seen.record._replace(curve=curve)):
            return None
        epochs = max(curve) + 1  # as status.curve counts them
        message = f"its best value so far is behind the median of the trials of {sweep.key.name} after epoch {epochs}"
        log.info("trial pruned", trial=str(key), message=message)
        return ProgressAnswer(stop="Pruned", message=message)


def _prunes(sweep: RunView) -> bool:
    return bool(json.loads(sweep.spec).get("sweep", {}).get("pruning"))
