"""Plays the pods of a sweep's trials: each ends with the metrics that a function of its values gives."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kubernetes.client import ApiException, CoreV1Api

from anomaly_api.reasons import ExitCode, Reason
from anomaly_api.run import RunConfig, RunSummary
from anomaly_api.status import Artifacts, MetricValues, Stage
from anomaly_operator import names
from support.fake_kubelet import ended, running
from support.kube import api_client

End = float | Reason | MetricValues
"""The image AUROC of a trial, all its metrics, or why it failed."""
Score = Callable[[Mapping[str, Any]], End]
PAGE = Artifacts(root="s3://results/somewhere", sweep="s3://results/somewhere/sweep.html")
"""What the step report leaves."""
HELD = float("nan")
"""A trial whose pod stays as it is."""


class SweepPlayer:
    """A kubelet for one namespace, in a thread, from ``__enter__`` to ``__exit__``.

    Args:
        namespace: where the pods are.
        score: from a trial's values to its end; a run that is no trial has none.
        seconds: how long a pod runs.
        replicates: whether the values have the number of the replicate, too, as ``replicate``.
        begins: whether a pod is on a node, and begins, before it ends or is held.
    """

    def __init__(
        self, namespace: str, score: Score, seconds: float = 0.0, *, replicates: bool = False, begins: bool = False
    ) -> None:
        self._namespace, self._score, self._seconds = namespace, score, seconds
        self._replicates = replicates
        self._begins = begins
        self._pods = CoreV1Api(api_client())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._seen: dict[str, float] = {}
        self.configs: dict[str, RunConfig] = {}
        """What each pod was told, by the name of its run."""

    def __enter__(self) -> "SweepPlayer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _play(self) -> None:
        while not self._stop.wait(0.2):
            for pod in self._pods.list_namespaced_pod(self._namespace).items:
                if pod.metadata.deletion_timestamp is None and pod.status.phase in ("Pending", "Running"):
                    self._move(pod)

    def _move(self, pod: Any) -> None:
        if self._begins and pod.status.phase == "Pending":
            self._write(pod, running())
        else:
            self._end(pod)

    def _end(self, pod: Any) -> None:
        config = RunConfig.model_validate_json(pod.metadata.annotations[names.CONFIG_ANNOTATION])
        self.configs[config.run.name] = config
        first_seen = self._seen.setdefault(pod.metadata.uid, time.monotonic())
        if time.monotonic() - first_seen < self._seconds:
            return
        trial = config.experiment.trial if config.experiment else None
        which = {"replicate": trial.replicate} if trial and self._replicates else {}
        # The page of a search is made whatever became of its trials.
        end = None if config.step == "report" else self._score({**trial.values, **which} if trial else {})
        if end != end:  # noqa: PLR0124 - HELD
            return
        self._write(pod, _ended(end))

    def _write(self, pod: Any, change: dict[str, Any]) -> None:
        try:
            self._pods.patch_namespaced_pod_status(pod.metadata.name, self._namespace, change)
        except ApiException as error:
            if error.status != 404:
                raise


def _ended(end: End | None) -> dict[str, Any]:
    if end is None:
        return ended(RunSummary(reason=Reason.COMPLETE, stage=Stage.DONE, artifacts=PAGE))
    if isinstance(end, Reason):
        return ended(RunSummary(reason=end, stage=Stage.TRAIN, message="as played"), int(ExitCode.of(end)))
    return ended(
        RunSummary(
            reason=Reason.COMPLETE,
            stage=Stage.DONE,
            metrics=end if isinstance(end, MetricValues) else MetricValues(image={"AUROC": end}),
            artifacts=Artifacts(root="s3://results/somewhere"),
        )
    )


def values_of(trials: list[dict[str, Any]]) -> dict[int, str]:
    """Return the values of each trial by its number, as text to compare."""
    found = [trial["spec"]["trial"] for trial in trials]
    return {which["number"]: json.dumps(which["values"], sort_keys=True) for which in found}
