"""Showing the results of the runs: resources, artifacts, MLflow's metrics, a report and a picture."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hack.cluster import settings
from hack.demo.cluster import Object, kubectl
from hack.demo.storage import Client, StoredObject, download, list_objects, split_uri

PICTURES = settings.HOME / "pictures"
# Files of a sweep and its trials that a person reads.
SHOWN_OF_SWEEP = (".html", ".csv", "report.json", "failure.json", "optuna-journal.log")
# Most files listed per folder, which may hold many pictures.
SHOWN_PER_FOLDER = 4


def show_resources(namespace: str, console: Console) -> None:
    """Print what a user sees of the runs in kubectl."""
    console.print("\n[bold]kubectl get aexp,ainf[/bold]")
    console.print(kubectl("get", "aexp,ainf", f"--namespace={namespace}").rstrip(), highlight=False, soft_wrap=True)


def show_sweep(run: Object, console: Console) -> None:
    """Print the trials of a sweep, the best points, and what the best one is when it is measured again."""
    name, found = run["metadata"]["name"], run["status"]["sweep"]
    trials = f"anomalyops.io/sweep={name}"
    console.print(f"\n[bold]kubectl get aexp -l {trials}[/bold]")
    shown = kubectl("get", "aexp", f"--selector={trials}", f"--namespace={run['metadata']['namespace']}")
    console.print(shown.rstrip(), highlight=False, soft_wrap=True)
    others = ", ".join(f"{found[state]} {state}" for state in ("pruned", "infeasible", "failed") if found[state])
    console.print(
        f"\n[bold]The best of {found['complete']} trials[/bold]{f' ({others})' if others else ''}", highlight=False
    )
    console.print(_best_points(run), soft_wrap=True)
    if again := found.get("remeasured"):
        told = ", ".join(f"{metric} {value:.6g}" for metric, value in again["objectives"].items())
        console.print(f"The best one, trained in full as {name} on {again['measuredOn']}: {told}", highlight=False)


def _best_points(run: Object) -> Table:
    """Return a table of the best points, with the values that were searched for."""
    parameters = run["spec"]["sweep"]["parameters"]
    searched = [one["path"] for one in parameters if len(one.get("choices", ())) != 1]
    best = run["status"]["sweep"]["best"]
    table = Table("trial", *best[0]["objectives"], "values", box=None, pad_edge=True)
    for point in best:
        values = point.get("values", {})
        told = "  ".join(f"{_short(path)}={_compact(values[path])}" for path in searched if path in values)
        table.add_row(str(point["number"]), *(f"{value:.6g}" for value in point["objectives"].values()), told)
    return table


def _short(path: str) -> str:
    return "model" if path == "model.name" else path.rpartition(".")[2]


def _compact(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_compact, value))
    if isinstance(value, dict):
        return "x".join(map(_compact, value.values()))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_artifacts(run: Object, client: Client, console: Console) -> None:
    """Print the files of a run in S3."""
    bucket, prefix = split_uri(run["status"]["artifacts"]["root"])
    console.print(f"\n[bold]s3://{bucket}/{prefix}[/bold]")
    table = Table("size", "name", box=None, show_header=False, pad_edge=True)
    table.columns[0].justify = "right"
    for size, name in _listing(list_objects(client, bucket, prefix), prefix):
        table.add_row(size, name)
    console.print(table)


def artifacts_exist(run: Object, client: Client) -> bool:
    """Whether a run's files are still in S3."""
    bucket, prefix = split_uri(run["status"]["artifacts"]["root"])
    return bool(list_objects(client, bucket, prefix))


def show_metrics(run: Object, mlflow: str, console: Console) -> None:
    """Print the metrics that MLflow has of a run; `mlflow` is the server's host:port."""
    run_id = run["status"]["mlflow"]["runId"]
    content = _get_json(f"http://{mlflow}/api/2.0/mlflow/runs/get?run_id={run_id}")
    console.print(f"\n[bold]MLflow run {run_id}[/bold]")
    table = Table(box=None, show_header=False, pad_edge=True)
    for metric in sorted(content["run"]["data"].get("metrics", []), key=lambda metric: str(metric["key"])):
        table.add_row(metric["key"], f"{metric['value']:.6g}")
    console.print(table)


def show_nested(run: Object, mlflow: str, console: Console) -> None:
    """Print how MLflow has a sweep: one run, and those of the trials below it; arguments as of ``show_metrics``."""
    run_id = run["status"]["mlflow"]["runId"]
    parent = _get_json(f"http://{mlflow}/api/2.0/mlflow/runs/get?run_id={run_id}")["run"]["info"]
    wanted = {"experiment_ids": [parent["experiment_id"]], "filter": f"tags.`mlflow.parentRunId` = '{run_id}'"}
    nested = _get_json(f"http://{mlflow}/api/2.0/mlflow/runs/search", wanted).get("runs", [])
    console.print(f"In MLflow: run {run_id} ({parent['status']}), with {len(nested)} trials nested below it")


def fetch_report(run: Object, client: Client) -> Path | None:
    """Download the HTML report of a run; None if none was uploaded."""
    address = run["status"]["artifacts"].get("html")
    if address is None:
        return None
    bucket, key = split_uri(address)
    return download(client, bucket, key, PICTURES / run["metadata"]["name"])


def fetch_sweep(run: Object, client: Client) -> Path:
    """Download the page of a sweep, the tables beside it and the trials' reports that it links; returns the page."""
    bucket, page = split_uri(run["status"]["artifacts"]["sweep"])
    folder = PICTURES / bucket
    below = page.rpartition("/")[0].rpartition("/")[0]
    for found in list_objects(client, bucket, below):
        if found.key.endswith(SHOWN_OF_SWEEP):
            download(client, bucket, found.key, (folder / found.key).parent)
    return folder / page


def fetch_picture(run: Object, client: Client) -> Path | None:
    """Download the first picture of a run; None if it drew none."""
    folder = run["status"]["artifacts"].get("visualizations")
    if folder is None:
        return None
    bucket, prefix = split_uri(folder)
    pictures = [found for found in list_objects(client, bucket, prefix) if found.key.endswith((".png", ".jpg"))]
    return download(client, bucket, pictures[0].key, PICTURES / run["metadata"]["name"]) if pictures else None


def _listing(objects: list[StoredObject], prefix: str) -> list[tuple[str, str]]:
    """Return size and name of each file at the top level, and of the first few in each folder below it."""
    folders: dict[str, list[StoredObject]] = {}
    for found in objects:
        folder, separator, _ = found.key.removeprefix(prefix).strip("/").rpartition("/")
        folders.setdefault(folder.partition("/")[0] + separator, []).append(found)
    lines = []
    for folder, content in folders.items():
        shown = SHOWN_PER_FOLDER if folder else len(content)
        lines += [(f"{found.size:,}", found.key.removeprefix(prefix).strip("/")) for found in content[:shown]]
        if rest := content[shown:]:
            lines.append((f"{sum(found.size for found in rest):,}", f"{folder}... {len(rest)} more"))
    return lines


def _get_json(url: str, posted: Object | None = None) -> Object:
    """Return the answer to a GET, or to a POST of an object."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    body = None if posted is None else json.dumps(posted).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with direct.open(request, timeout=30) as response:
        content: Object = json.load(response)
        return content
