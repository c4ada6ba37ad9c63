"""Applying a sample and following its run, through its status only, until it has ended."""

from __future__ import annotations

import time
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from hack.demo.cluster import DemoError, Object, find, kubectl

POLL_SECONDS = 0.5
RUN_SECONDS = 900.0
LOG_LINES = 40


class RunFailedError(DemoError):
    """The run has ended as Failed; the message holds its reason and the logs of its pods."""


def run_sample(manifest: Path, console: Console, after: Object | None = None, seconds: float = RUN_SECONDS) -> Object:
    """Apply a sample, show its progress, and return the object once it is Complete.

    A sample that is Complete is kept, unless its manifest has changed since, or it is older than
    `after`, the run it builds on. It may take so many seconds.

    Raises:
        RunFailedError: the run failed.
        DemoError: the run takes too long, or kubectl failed.
    """
    metadata = yaml.safe_load(manifest.read_text())
    kind, name, namespace = metadata["kind"], metadata["metadata"]["name"], metadata["metadata"]["namespace"]
    if _is_outdated(manifest, find(kind, name, namespace), after):
        kubectl("delete", kind, name, "--ignore-not-found", f"--namespace={namespace}")
    kubectl("apply", f"--filename={manifest}")
    _follow(kind, name, namespace, console, seconds)
    kubectl("wait", "--for=condition=Complete", f"--namespace={namespace}", f"{kind}/{name}", "--timeout=10s")
    return _get(kind, name, namespace)


def _is_outdated(manifest: Path, existing: Object | None, after: Object | None) -> bool:
    """Whether a run must be replaced: it failed, is older than the run it builds on, or is at work on another spec.

    One that is over runs again by itself when its spec changes.
    """
    if existing is None:
        return False
    if condition(existing, "Failed") or (after and _created(existing) < _created(after)):
        return True
    try:
        kubectl("apply", "--dry-run=server", f"--filename={manifest}")
    except DemoError:
        return True
    return False


def _created(found: Object) -> str:
    """Return when an object was created (RFC 3339 in UTC, which sorts as text)."""
    return str(found["metadata"]["creationTimestamp"])


def condition(found: Object, wanted: str) -> Object | None:
    """Return the condition of that type if it is True, and told of the spec as it is now."""
    status = found.get("status", {})
    if status.get("observedGeneration") != found["metadata"]["generation"]:
        return None
    conditions: list[Object] = status.get("conditions", [])
    return next((item for item in conditions if item["type"] == wanted and item["status"] == "True"), None)


def _follow(kind: str, name: str, namespace: str, console: Console, seconds: float) -> None:
    """Show the status until the run is Complete.

    Raises:
        RunFailedError: the run failed.
        DemoError: the run takes too long, or was deleted.
    """
    deadline = time.monotonic() + seconds
    with _display(console) as display:
        task = display.add_task(name, total=100, state="")
        state = ""
        while time.monotonic() < deadline:
            found = _get(kind, name, namespace)
            state = _show(found, display, task, state)
            if condition(found, "Complete"):
                display.update(task, completed=100)
                return
            if failure := condition(found, "Failed"):
                raise RunFailedError(_failure_message(found, failure))
            time.sleep(POLL_SECONDS)
    raise DemoError(f"{kind} {name} is still {state} after {seconds:.0f} s")


def _display(console: Console) -> Progress:
    columns = (TextColumn("{task.description:18}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), TextColumn("{task.fields[state]}"), console=console)


def _show(found: Object, display: Progress, task: TaskID, before: str) -> str:
    """Update the bar, and return the state; if output is no terminal, print a changed state as a line."""
    status = found.get("status", {})
    progress = status.get("progress", {})
    state = _state(status)
    display.update(task, completed=progress.get("percent", 0), state=state)
    if state != before and not display.console.is_terminal:
        display.console.print(f"  {found['metadata']['name']}: {state}")
    return state


def _state(status: Object) -> str:
    """Return phase and stage; of a search, how many trials are over and at work, and the best value so far."""
    found, phase, stage = status.get("sweep"), status.get("phase", "Pending"), status.get("stage")
    if not found or stage != "search":
        return " ".join(filter(None, (phase, stage)))
    text = f"{phase} search: {found['asked'] - found['running']} trials over, {found['running']} at work"
    return f"{text}, best {best}" if (best := status.get("display", {}).get("objective")) else text


def _failure_message(found: Object, failure: Object) -> str:
    name, namespace = found["metadata"]["name"], found["metadata"]["namespace"]
    return f"{found['kind']} {name} failed, {failure['reason']}: {failure['message']}\n{_logs(found, namespace)}"


def _logs(found: Object, namespace: str) -> str:
    """Return the end of the logs of the run's pods; empty if there is no Job."""
    job = found.get("status", {}).get("jobName")
    if not job:
        return ""
    selector = f"--selector=batch.kubernetes.io/job-name={job}"
    return kubectl("logs", selector, f"--namespace={namespace}", f"--tail={LOG_LINES}", "--prefix")


def _get(kind: str, name: str, namespace: str) -> Object:
    found = find(kind, name, namespace)
    if found is None:
        raise DemoError(f"{kind} {name} was deleted while it was followed")
    return found
