"""The command line: ``python -m hack.gpu wheels`` collects what a machine with a GPU and no network lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from hack.gpu import wheels

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def main() -> None:
    """Prepare the checks that need a GPU."""


@app.command("wheels")
def collect(
    folder: Annotated[Path, typer.Argument(help="Emptied first; git ignores the default.")] = wheels.FOLDER,
    provided: Annotated[Path, typer.Option(help="Names of the packages that are there already.")] = wheels.PROVIDED,
    python: Annotated[str, typer.Option(help="Python's version there.")] = "3.12",
    limit: Annotated[int, typer.Option(help="Megabytes that all wheels may take.")] = 60,
) -> None:
    """Collect the wheels that the checks need and the machine lacks, for Linux on x86-64."""
    try:
        found = wheels.collect(folder, provided, python)
    except (subprocess.CalledProcessError, wheels.NoWheelError) as error:
        typer.echo(f"wheels: {error}", err=True)
        raise typer.Exit(1) from error
    total = sum(file.stat().st_size for file in found)
    _show(found, total)
    if total > limit * 1_000_000:
        typer.echo(f"wheels: {decimal(total)} are more than {limit} MB", err=True)
        raise typer.Exit(1)


def _show(found: list[Path], total: int) -> None:
    table = Table("wheel", "size", show_footer=True)
    table.columns[0].footer, table.columns[1].footer = f"{len(found)} wheels", decimal(total)
    table.columns[1].justify = "right"
    for file in sorted(found, key=lambda file: -file.stat().st_size):
        table.add_row(file.name, decimal(file.stat().st_size))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(app())
