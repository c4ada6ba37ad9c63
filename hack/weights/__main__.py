"""Fills a weights cache: ``python -m hack.weights fill DEST --model draem``; ``list`` says what it has and lacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from anomaly_runner.errors import RunFailed
from anomaly_runner.models.weights import Wanted
from hack.weights.cache import contents, is_there
from hack.weights.fill import fill as bring
from hack.weights.models import wanted_of

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
Models = Annotated[
    list[str], typer.Option("--model", help="A model's name, or its block as YAML: '{name: padim, padim: {...}}'.")
]
Backbone = Annotated[str | None, typer.Option(help="In place of the default of each model that has one.")]
Destination = Annotated[Path, typer.Argument(help="The cache, to be uploaded and named in model.weights.")]


@app.command("list")
def show(destination: Destination, models: Models = [], backbone: Backbone = None) -> None:  # noqa: B006 - typer's way
    """Say what the cache holds or, with models, what of theirs it has; exit status 1 says that it lacks some."""
    if not models:
        for path, size in contents(destination).items():
            typer.echo(f"{decimal(size):>10}  {path}")
        return
    with _explained("list"):
        wanted = {thing: is_there(thing, destination) for thing in wanted_of(models, backbone)}
    for thing, there in wanted.items():
        typer.echo(f"{'there' if there else 'LACKING':8}{thing.kind:7}{thing.name}")
    raise typer.Exit(0 if all(wanted.values()) else 1)


@app.command()
def fill(
    destination: Destination,
    models: Models,
    backbone: Backbone = None,
    mirror: Annotated[str | None, typer.Option(help="Base URL that stands for all publishers, the hub too.")] = None,
) -> None:
    """Bring what the models load into the cache, where it is not there already."""
    with _explained("fill"):
        wanted = [thing for thing in wanted_of(models, backbone) if not is_there(thing, destination)]
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for thing in wanted:
            _bring(thing, destination, mirror, progress)


def _bring(wanted: Wanted, destination: Path, mirror: str | None, progress: Progress) -> None:
    task = progress.add_task(wanted.name, total=None)
    with _explained(wanted.name):
        bring(wanted, destination, mirror, partial(progress.advance, task))
    done = progress.tasks[task].completed
    progress.update(task, total=done, completed=done)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Report failures in one line, and exit with status 1."""
    try:
        yield
    except (RunFailed, OSError) as error:
        typer.echo(f"{what}: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
