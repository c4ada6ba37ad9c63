"""sweep.html: what a search found, for people; one self-contained file that loads nothing and runs nothing.

Values come from manifests and messages from programs, so everything is escaped, as in report.html.
"""

from collections.abc import Iterable

import yaml
from markupsafe import Markup

from anomaly_api.experiment import ExperimentSpec
from anomaly_api.status import MetricValues
from anomaly_api.sweep_end import remeasured
from anomaly_api.sweep_status import Remeasurement
from anomaly_runner.reporting.html_report import template
from anomaly_runner.reporting.sweep.charts import SHOWN, front_chart, history_chart, parallel_chart, slice_chart
from anomaly_runner.reporting.sweep.findings import Findings
from anomaly_runner.reporting.sweep.leaders import (
    Group,
    address,
    error_text,
    groups,
    json_text,
    leaderboard,
    metric_text,
    number_text,
    objective_texts,
    paths,
    without_value,
)
from anomaly_runner.reporting.sweep.pivot import pivot
from anomaly_search.space import Parameter

PAGE = "sweep.html"
_LEADERS = 20
"""Rows of the leaderboard."""
_LISTED = 100
"""Rows of other lists."""


def render(findings: Findings, experiment: ExperimentSpec, measured: MetricValues | None) -> str:
    """Render the page.

    Args:
        findings: the search.
        experiment: the spec with the winner's values.
        measured: what it measured when it was trained in full; None where nothing was trained.
    """
    ended = without_value(findings)
    return template(
        "sweep.html.j2"
    ).render(
        run=findings.run,
        spec=findings.spec,
        status=findings.status,
        findings=findings,
        trained=measured is not None,
        winner=_winner(findings, _again(findings, experiment, measured)),
        tiles=_tiles(findings),
        warnings=_warnings(findings),
        leaders=leaderboard(findings, _LEADERS),
        objectives=[objective.metric for objective in findings.spec.objectives],
        constraints=[constraint.metric for constraint in findings.spec.constraints],
        paths=paths(findings),
        fidelity=findings.spec.fidelity.path if findings.spec.fidelity else "",
        pivot=pivot(findings),
        history=_history(findings),
        importances=_importances(findings),
        parallel=Markup(parallel_chart(findings)) if findings.leaders else "",  # noqa: S704 - drawn by charts.py
        charts=_charts(findings),
        values=list(_values(findings)),
        front=_front(findings),
        ended=ended[:_LISTED],
        more_ended=len(ended) - _LISTED,
        trials=_trials(findings),
        shown=SHOWN if len(findings.measured) > SHOWN else 0,
        config=yaml.safe_dump(findings.spec.to_json_object(), sort_keys=False, allow_unicode=True),
    )


def _again(findings: Findings, experiment: ExperimentSpec, measured: MetricValues | None) -> Remeasurement | None:
    """What the training in full of the best point measured; None where there is no best one, or nothing was trained."""
    if not findings.status.best:
        return None
    return remeasured(findings.spec, findings.status.best[0], measured, experiment.dataset.seed)


def _winner(findings: Findings, again: Remeasurement | None) -> dict[str, object] | None:
    """The best point: its number and values, and each objective as found, measured again, and their gap."""
    if not findings.status.best:
        return None
    best = findings.status.best[0]
    rows = []
    for metric, value in best.objectives.items():
        error = best.standard_errors.get(metric)
        rows.append(
            {
                "metric": metric,
                "found": metric_text(metric, value),
                "error": error_text(metric, error),
                "again": metric_text(metric, again.objectives[metric]) if again and metric in again.objectives else "",
                "gap": f"{again.gap[metric]:+.4g}" if again and metric in again.gap else "",
            }
        )
    trial = next((trial for trial in findings.trials if trial.record.number == best.number), None)
    return {
        "number": best.number,
        "address": address(trial) if trial else "",
        "rows": rows,
        "measured_on": again.measured_on if again else "",
        "texts": {path: json_text(value) for path, value in (best.values or {}).items()},
    }


def _tiles(findings: Findings) -> dict[str, str]:
    """Counters of the status."""
    status = findings.status
    counted = ("asked", "complete", "pruned", "infeasible", "failed")
    tiles = {name: str(getattr(status, name)) for name in counted}
    tiles["GPU hours"] = number_text(status.gpu_hours)
    return tiles | ({"ended by": status.stop_reason.value} if status.stop_reason else {})


def _warnings(findings: Findings) -> list[str]:
    failure = findings.search.failure
    found = [f"The search failed, {failure}"] if failure else []
    found += findings.known.warnings
    if findings.silent:
        found.append(
            f"{len(findings.silent)} of {findings.asked} points left no report, such as {findings.silent[0]}: they are "
            "counted, but neither in the tables nor in the pictures."
        )
    if findings.found.unreadable:
        found.append(
            f"{len(findings.found.unreadable)} reports are of another version and were left out, such as "
            f"{findings.found.unreadable[0]}."
        )
    return found


def _history(findings: Findings) -> list[dict[str, str]]:
    """When the best got better."""
    metrics = [objective.metric for objective in findings.spec.objectives]
    return [
        {
            "number": str(one.number),
            "ended": one.ended.isoformat(timespec="seconds").replace("+00:00", "Z") if one.ended else "",
            "value": ", ".join(
                metric_text(metric, value) for metric, value in zip(metrics, one.objectives, strict=True)
            ),
        }
        for one in findings.known.history[-_LISTED:]
    ]


def _importances(findings: Findings) -> dict[str, float]:
    """Shares by path, the largest first: the status's, or those of the reports where it has none."""
    found = findings.status.importances or findings.known.importances
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _charts(findings: Findings) -> dict[str, list[Markup]]:
    if not findings.measured:
        return {"history": [], "slices": [], "front": []}
    others = range(1, len(findings.spec.objectives))
    drawn = {
        "history": [history_chart(findings)],
        "slices": [slice_chart(findings, parameter) for parameter in findings.sweep.space.parameters],
        "front": [front_chart(findings, other) for other in others],
    }
    return {name: [Markup(chart) for chart in charts] for name, charts in drawn.items()}  # noqa: S704 - as above


def _values(findings: Findings) -> Iterable[tuple[Parameter, list[Group]]]:
    for parameter in findings.sweep.space.parameters:
        yield parameter, groups(findings, parameter)


def _front(findings: Findings) -> list[dict[str, object]]:
    """The Pareto front, by the first objective."""
    objective = findings.sweep.objectives[0]
    front = sorted(findings.known.pareto_front, key=lambda one: objective.loss(one.objectives[0]))
    return [
        {
            "number": one.number,
            "address": address(findings.run_of(one)),
            "objectives": list(objective_texts(findings, one)),
        }
        for one in front[:_LISTED]
    ]


def _trials(findings: Findings) -> list[dict[str, object]]:
    """Every run that left a report."""
    metric = findings.spec.objectives[0].metric
    return [
        {
            "name": trial.name,
            "address": address(trial),
            "state": trial.record.state,
            "value": metric_text(metric, trial.record.metrics[metric]) if metric in trial.record.metrics else "",
        }
        for trial in findings.trials
    ]
