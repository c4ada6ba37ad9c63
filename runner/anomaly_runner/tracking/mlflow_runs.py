"""Find and create the runs of a resource in MLflow, by their tags; those of a sweep's trials lie below the sweep's.

MLflow cannot create a run only if there is none: several pods that begin at once may each create the sweep's. Each
looks again after it has: the oldest is kept, and whoever created another one deletes it.

The sweep's run is ended by its last step. A sweep that is deleted has none, but the pods of its trials are stopped, and
the last one says so. Each ends its own run before it looks for others at work, so that the last one finds none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from anomaly_api import GROUP
from anomaly_api.run import RunIdentity
from anomaly_runner.tracking.mlflow_names import MAX_TAG_CHARACTERS, mlflow_name, short_value
from anomaly_runner.tracking.tracker import FAILURE_TAG

UID_TAG = f"{GROUP}/uid"
NUMBER_TAG = f"{GROUP}/run"
"""Number of the resource's run, from 1."""
SEARCH_TAG = f"{GROUP}/search"
"""Search that a sweep's run is of: one in another space has a run of its own."""
PARENT_TAG = "mlflow.parentRunId"
_NOTE_TAG = "mlflow.note.content"


@dataclass(frozen=True, kw_only=True)
class Sought:
    """The run of a resource in MLflow.

    Attributes:
        run: the resource.
        search: the search, if the run is a sweep's: all of its runs continue one in MLflow.
    """

    run: RunIdentity
    search: str | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The tags that identify it."""
        ours = {"uid": self.run.uid, "kind": self.run.kind, "namespace": self.run.namespace, "name": self.run.name}
        found = {f"{GROUP}/{key}": value for key, value in ours.items()}
        return found | ({NUMBER_TAG: self._number} if self.search is None else {SEARCH_TAG: self.search})

    @property
    def _number(self) -> str:
        return str(self.run.number or 1)

    def is_it(self, tags: Mapping[str, str]) -> bool:
        """Whether a run with the resource's UID is the one that is sought; releases before had no tag for the first."""
        if any(tags.get(name) != self.tags.get(name) for name in (SEARCH_TAG, f"{GROUP}/namespace", f"{GROUP}/name")):
            return False
        return self.search is not None or tags.get(NUMBER_TAG, "1") == self._number


def as_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags as MLflow takes them."""
    return {mlflow_name(key): short_value(value, MAX_TAG_CHARACTERS) for key, value in tags.items()}


def find_run(client: Any, experiment_id: str, sought: Sought) -> Any | None:
    """The oldest run in MLflow that is not deleted; None if there is none."""
    found = client.search_runs(
        [experiment_id], f"tags.`{UID_TAG}` = '{sought.run.uid}'", order_by=["attributes.start_time ASC"]
    )
    ours = [run for run in found if sought.is_it(run.data.tags)]
    return min(ours, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def reopen(client: Any, run: Any) -> None:
    """Let a run go on that may have ended: nothing of how it ended holds any longer."""
    client.update_run(run.info.run_id, status="RUNNING")
    if FAILURE_TAG in run.data.tags:
        client.delete_tag(run.info.run_id, FAILURE_TAG)


def end_run(client: Any, run_id: str, status: Literal["FAILED", "KILLED"], message: str) -> None:
    """End a run, and say why."""
    client.set_tag(run_id, FAILURE_TAG, short_value(message, MAX_TAG_CHARACTERS))
    client.set_terminated(run_id, status)


class SweepRun:
    """The run of a sweep, below which those of its trials are nested.

    Args:
        sought: the sweep and the search.
        tags: the user's.

    Attributes:
        is_settled: whether the last look for the run found one: pods that begin together make theirs at once.
    """

    def __init__(self, sought: Sought, tags: Mapping[str, str]) -> None:
        self._sought = sought
        self._tags = tags
        self._created: str | None = None
        self.is_settled = False

    def ensure(self, client: Any, experiment_id: str) -> str:
        """Find or create the run, and return its id.

        To be called again until it is settled, because a run has the time at which its pod asked for it, and may show
        up after a younger one; and at the end of a trial, because clocks differ.
        """
        found = find_run(client, experiment_id, self._sought)
        self.is_settled = found is not None
        if found is None:
            self._created = self._create(client, experiment_id)
            found = find_run(client, experiment_id, self._sought) or client.get_run(self._created)
        elif found.info.status != "RUNNING":
            reopen(client, found)  # the search goes on
        kept = str(found.info.run_id)
        if self._created not in (None, kept):
            client.delete_run(self._created)
            self._created = None
        return kept

    def stop(self, client: Any, experiment_id: str, message: str) -> None:
        """End the run, after a trial was stopped, unless others are at work: a trial that begins reopens it.

        Args:
            client: MLflow's.
            experiment_id: of the sweep and its trials.
            message: why the trial was stopped.
        """
        found = find_run(client, experiment_id, self._sought)
        if found is None or found.info.status != "RUNNING":
            return
        at_work = f"tags.`{PARENT_TAG}` = '{found.info.run_id}' and attributes.status = 'RUNNING'"
        if not client.search_runs([experiment_id], at_work, max_results=1):
            end_run(client, found.info.run_id, "KILLED", f"no trial is at work any longer; the last one: {message}")

    def _create(self, client: Any, experiment_id: str) -> str:
        run = self._sought.run
        note = {_NOTE_TAG: f"Sweep {run.namespace}/{run.name}. The runs of its trials are nested below this one."}
        tags = as_tags(dict(self._tags) | self._sought.tags | note)
        return str(client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id)
