"""MLflow's client over a server that is a few dictionaries."""

from collections.abc import Callable, Sequence
from functools import wraps
from itertools import count
from pathlib import Path
from threading import Thread, current_thread
from types import SimpleNamespace
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def _request(method: "Callable[Concatenate[FakeMlflow, P], R]") -> "Callable[Concatenate[FakeMlflow, P], R]":
    """Have a method taken down whenever it is called."""

    @wraps(method)
    def recorded(self: "FakeMlflow", /, *arguments: P.args, **named: P.kwargs) -> R:
        self.asked.append(method.__name__)
        return method(self, *arguments, **named)

    return recorded


class FakeMlflow:
    """A fake MLflow client that stores what a server would; the first ``down`` connections fail.

    Attributes:
        experiments: ids by name.
        runs: by id, with ``tags``, ``status``, ``metrics`` (last values), ``points`` (all of them), ``params`` and
            ``datasets``.
        calls: file and folder of each artifact.
        texts: content of the artifacts that there are, by name of the file.
        threads: in which it was connected to.
        asked: names of all requests, in order.
    """

    def __init__(self, down: int = 0) -> None:
        self.down = down
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, SimpleNamespace] = {}
        self.calls: list[tuple[str, str | None]] = []
        self.texts: dict[str, str] = {}
        self.threads: list[Thread] = []
        self.asked: list[str] = []
        self._numbers = count()

    def client(self, uri: str) -> Self:
        assert uri
        self.threads.append(current_thread())
        if self.down:
            self.down -= 1
            raise ConnectionError("refused")
        return self

    @_request
    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        if name not in self.experiments:
            return None
        return SimpleNamespace(experiment_id=self.experiments[name], lifecycle_stage="active")

    @_request
    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        self.experiments[name] = str(len(self.experiments) + 1)
        return self.experiments[name]

    @_request
    def search_runs(self, experiments: Sequence[str], query: str, order_by: Sequence[str]) -> list[SimpleNamespace]:
        return [
            run
            for run in self.runs.values()
            if f"'{run.tags['anomalyops.io/uid']}'" in query and run.info.experiment_id in experiments
        ]

    @_request
    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> SimpleNamespace:
        assert experiment in self.experiments.values()
        number = next(self._numbers)
        run = SimpleNamespace(
            info=SimpleNamespace(run_id=f"run{number}", start_time=number, experiment_id=experiment),
            data=SimpleNamespace(tags=tags),
            tags=tags,
            name=run_name,
            status="RUNNING",
            metrics={},
            params={},
            points=[],
            datasets=[],
        )
        self.runs[run.info.run_id] = run
        return run

    @_request
    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status

    @_request
    def log_batch(
        self, run_id: str, metrics: Sequence[SimpleNamespace] = (), params: Sequence[SimpleNamespace] = ()
    ) -> None:
        self.runs[run_id].metrics |= {metric.key: metric.value for metric in metrics}
        self.runs[run_id].points += [(metric.key, metric.step, metric.value) for metric in metrics]
        self.runs[run_id].params |= {param.key: param.value for param in params}

    @_request
    def get_metric_history(self, run_id: str, name: str) -> list[SimpleNamespace]:
        points = self.runs[run_id].points
        return [SimpleNamespace(step=step, value=value) for key, step, value in points if key == name]

    @_request
    def log_artifact(self, run_id: str, file: str, folder: str | None) -> None:
        assert run_id in self.runs
        self.calls.append((file, folder))
        if Path(file).exists():
            self.texts[Path(file).name] = Path(file).read_text()

    @_request
    def set_tag(self, run_id: str, key: str, value: str) -> None:
        self.runs[run_id].tags[key] = value

    @_request
    def delete_tag(self, run_id: str, key: str) -> None:
        del self.runs[run_id].tags[key]

    @_request
    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status

    @_request
    def log_inputs(self, run_id: str, datasets: Sequence[Any]) -> None:
        self.runs[run_id].datasets += datasets
