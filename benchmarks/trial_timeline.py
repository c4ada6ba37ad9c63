"""When what happens to experiments on a cluster, seen by watches, and when the runner enters its stages, by its log."""

import json
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
Moments = dict[str, float]
"""Seconds since the epoch, by name of the moment."""

STAGES = {
    "experiment to Job (operator)": ("experiment", "job"),
    "Job to pod (Job controller)": ("job", "pod"),
    "pod to process (scheduler, kubelet)": ("pod", "process"),
    "process to first stage (Python, imports)": ("process", "fetch"),
    "listing (fetch, dataset)": ("fetch", "train"),
    "train (images are pulled and decoded meanwhile)": ("train", "predict"),
    "score (predict)": ("predict", "evaluate"),
    "metrics (evaluate)": ("evaluate", "measured"),
    "latency, pictures of the page": ("measured", "publish"),
    "publish": ("publish", "done"),
    "last stage to the container's end (kubelet)": ("done", "ended"),
    "container's end to the Job's (kubelet, Job controller)": ("ended", "job over"),
    "Job's end to Complete (operator)": ("job over", "complete"),
    "Complete to the next experiment": ("complete", "next"),
}
"""The rows of the table: from which moment to which."""


class Watch:
    """Notes when experiments, their Jobs and their pods are first seen in each state. A context manager."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._moments: dict[str, Moments] = defaultdict(dict)
        self._changed = threading.Condition()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Watch":
        for kind, note in (("aexp", self._experiment), ("jobs", self._job), ("pods", self._pod)):
            command = ["kubectl", "get", kind, "-n", self._namespace, "--watch", "-o", "json"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self._processes.append(process)
            threading.Thread(target=self._follow, args=(process, note), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()

    def moments(self, name: str) -> Moments:
        """Return what was seen of one experiment."""
        return dict(self._moments[name])

    def names(self, prefix: str) -> list[str]:
        """Return the experiments that were seen, by name."""
        with self._changed:
            return sorted(name for name in self._moments if name.startswith(prefix))

    def wait(self, name: str, moment: str, seconds: float = 300) -> float:
        """Wait for a moment of an experiment and return it.

        Raises:
            SystemExit: it did not come.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: moment in self._moments[name], seconds):
                raise SystemExit(f"{name} was not {moment} within {seconds:.0f} s: {self._moments[name]}")
            return self._moments[name][moment]

    def _follow(self, process: subprocess.Popen[str], note: Any) -> None:
        for found in _objects(process):
            note(found)

    def _note(self, name: str, moment: str) -> None:
        with self._changed:
            self._moments[name].setdefault(moment, now())
            self._changed.notify_all()

    def _experiment(self, found: Object) -> None:
        name = found["metadata"]["name"]
        self._note(name, "experiment")
        for state in ("Complete", "Failed"):
            if _is_true(found, state):
                self._note(name, state.lower())

    def _job(self, found: Object) -> None:
        name = found["metadata"]["labels"].get("anomalyops.io/experiment", "")
        self._note(name, "job")
        if _is_true(found, "Complete"):
            self._note(name, "job over")

    def _pod(self, found: Object) -> None:
        name = found["metadata"]["labels"].get("anomalyops.io/experiment", "")
        self._note(name, "pod")
        if any(status["state"].get("terminated") for status in found["status"].get("containerStatuses", ())):
            self._note(name, "ended")


def now() -> float:
    """Return the seconds since the epoch."""
    return datetime.now(UTC).timestamp()


def stage_moments(namespace: str, name: str) -> Moments:
    """Return when the runner's process started, and when it entered its stages, from its pod's log."""
    log = subprocess.run(
        ["kubectl", "logs", "-n", namespace, f"job/{name}-experiment"], capture_output=True, text=True, check=True
    ).stdout
    found: Moments = {}
    for line in (json.loads(line) for line in log.splitlines() if line.startswith("{")):
        written = datetime.fromisoformat(line["time"]).timestamp()
        if line["event"] == "started":
            found["process"] = written - line["process_seconds"]
        elif line["event"] == "progress":
            found.setdefault(line["stage"], written)
    return {"measured": found.get("measure", found["publish"])} | found


def durations(moments: Moments) -> Moments:
    """Return the seconds of each row of the table whose two moments are known."""
    return {
        row: moments[end] - moments[begin]
        for row, (begin, end) in STAGES.items()
        if begin in moments and end in moments
    }


def _is_true(found: Object, condition: str) -> bool:
    conditions = found.get("status", {}).get("conditions", ())
    return any(item["type"] == condition and item["status"] == "True" for item in conditions)


def _objects(process: subprocess.Popen[str]) -> Iterator[Object]:
    """Yield the objects that kubectl prints, one after the other, each over several lines."""
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.rstrip("\n") == "}":
            yield json.loads("".join(lines))
            lines = []
