"""What people see of a search: on a terminal a table that grows, with the trials at work below it; else plain lines."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from anomaly_api.sweep import Objective
from anomaly_api.sweep_status import SweepStatus
from anomaly_runner.local_sweep.children import Child
from anomaly_runner.local_sweep.records import TrialFile

_NAME_WIDTH, _STATE_WIDTH, _SECONDS_WIDTH = 12, 10, 8
_REFRESHES_A_SECOND = 4


class View(Protocol):
    """Shows a search."""

    def say(self, text: str, style: str = "") -> None:
        """Show a message."""

    def ended(self, trial: TrialFile, best: bool) -> None:
        """Show a trial that is over, and whether it is the best so far."""

    def show(self, status: SweepStatus, children: Sequence[Child]) -> None:
        """Show how it goes."""

    def close(self) -> None:
        """Leave what is over on the screen, and nothing else."""


class LineView:
    """A line for each trial that is over, for logs and pipes."""

    def __init__(self, console: Console, objectives: Sequence[Objective], sweep: str) -> None:
        self._console = console
        self._objectives = objectives
        self._sweep = sweep
        self._line(heading(objectives))

    def say(self, text: str, style: str = "") -> None:
        """Print a message."""
        self._line(text, style)

    def ended(self, trial: TrialFile, best: bool) -> None:
        """Print a trial that is over."""
        self._line(row(trial, self._objectives, self._sweep, best), "bold green" if best else _style(trial))

    def show(self, status: SweepStatus, children: Sequence[Child]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)


class TableView(LineView):
    """On a terminal: lines that stay, and below them what changes."""

    def __init__(self, console: Console, objectives: Sequence[Objective], sweep: str) -> None:
        self._live = Live(console=console, refresh_per_second=_REFRESHES_A_SECOND, transient=True)
        super().__init__(console, objectives, sweep)
        self._live.start()

    def show(self, status: SweepStatus, children: Sequence[Child]) -> None:
        """Redraw what changes."""
        at_work = Table.grid(padding=(0, 2))
        for child in children:
            at_work.add_row(
                short_name(child.trial, self._sweep), str(child.progress()), values_text(child.trial.trial.values)
            )
        self._live.update(Group(Text(counts_text(status), "dim"), at_work))

    def close(self) -> None:
        """Take what changes off the screen."""
        self._live.stop()


def heading(objectives: Sequence[Objective]) -> str:
    """Return the line above the rows."""
    columns = [f"{one.metric:>{_width(one)}}" for one in objectives]
    return "  ".join([f"{'trial':<{_NAME_WIDTH}}", f"{'state':<{_STATE_WIDTH}}", *columns, f"{'seconds':>8}", "values"])


def row(trial: TrialFile, objectives: Sequence[Objective], sweep: str, best: bool) -> str:
    """Return the line of a trial that is over; the best so far has a star."""
    columns = [_value(trial.metrics.get(one.metric), _width(one)) for one in objectives]
    name = short_name(trial, sweep) + (" *" if best else "")
    cells = [f"{name:<{_NAME_WIDTH}}", f"{trial.state:<{_STATE_WIDTH}}", *columns, f"{trial.seconds:>8.1f}"]
    why = f"  {trial.reason}: {trial.message}" if trial.reason else ""
    return "  ".join([*cells, values_text(trial.trial.values)]) + why


def short_name(trial: TrialFile, sweep: str) -> str:
    """Return a trial's name without the sweep's."""
    return trial.name.removeprefix(f"{sweep}-")


def values_text(values: Mapping[str, Any]) -> str:
    """Return the values of a point in one line, real numbers with six digits; trial.yaml has all of them."""
    return ", ".join(f"{path}={_short(value)}" for path, value in values.items())


def counts_text(status: SweepStatus) -> str:
    """Return the numbers of points in one line."""
    names = ("complete", "running", "infeasible", "pruned", "failed")
    told = [f"{count} {name}" for name in names if (count := getattr(status, name))]
    return f"{status.asked} points: {', '.join(told) or 'none yet'}"


def leaderboard(status: SweepStatus, objectives: Sequence[Objective]) -> Table:
    """Return the best points as a table."""
    table = Table(
        "#", "trial", *(one.metric for one in objectives), "values", title="best points", title_justify="left"
    )
    for place, best in enumerate(status.best, 1):
        cells = [_with_error(best.objectives[one.metric], best.standard_errors.get(one.metric)) for one in objectives]
        table.add_row(str(place), f"t{best.number:04d}", *cells, Text(values_text(best.values or {})))
    return table


def _short(value: Any) -> str:
    if isinstance(value, str | float):
        return value if isinstance(value, str) else f"{value:.6g}"
    return json.dumps(value)


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.6g}" if error is None else f"{value:.6g} (standard error {error:.2g})"


def _value(value: float | None, width: int) -> str:
    return f"{'' if value is None else f'{value:.6g}':>{width}}"


def _width(objective: Objective) -> int:
    return max(10, len(objective.metric))


def _style(trial: TrialFile) -> str:
    return {"Failed": "red", "Infeasible": "yellow"}.get(trial.state, "")
