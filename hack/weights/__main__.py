"""Fills a weights cache: ``python -m hack.weights fill DEST --model draem``; ``list`` says what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from anomaly_api.model import Model
from anomaly_runner.errors import RunFailed
from anomaly_runner.weights import Wanted, wanted_weights
from hack.weights.fill import fill as bring
from hack.weights.fill import is_there

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
Models = Annotated[
    list[str], typer.Option("--model", help="A model's name, or its block as YAML: '{name: padim, padim: {...}}'.")
]
Destination = Annotated[Path, typer.Argument(help="The cache, to be uploaded and named in model.weights.")]


def _wanted(models: list[str]) -> list[Wanted]:
    found: dict[Wanted, None] = {}
    for text in models:
        block = yaml.safe_load(text)
        model = Model.model_validate(block if isinstance(block, dict) else {"name": block})
        found |= dict.fromkeys(wanted_weights(model))
    return list(found)


@app.command("list")
def show(destination: Destination, models: Models) -> None:
    """Say what the models load, and what of it the cache lacks."""
    lacking = 0
    for wanted in _wanted(models):
        there = is_there(wanted, destination)
        lacking += not there
        typer.echo(f"{'there' if there else 'LACKING':8}{wanted.kind:7}{wanted.name}")
    raise typer.Exit(1 if lacking else 0)


@app.command()
def fill(
    destination: Destination,
    models: Models,
    mirror: Annotated[str | None, typer.Option(help="Base URL that stands for all publishers.")] = None,
) -> None:
    """Bring what the models load into the cache, where it is not there already."""
    destination.mkdir(parents=True, exist_ok=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for wanted in _wanted(models):
            if is_there(wanted, destination):
                continue
            task = progress.add_task(wanted.name, total=None)
            try:
                bring(wanted, destination, mirror, lambda count, task=task: progress.advance(task, count))  # type: ignore[misc]
            except (RunFailed, OSError, ValueError) as error:
                progress.stop()
                typer.echo(f"{wanted.name}: {error}", err=True)
                raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
