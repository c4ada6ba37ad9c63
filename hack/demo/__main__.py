"""`python -m hack.demo up` runs the demo, `down` removes it; `make demo` prepares the cluster first."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from rich.console import Console

from hack.cluster.progress import duration
from hack.demo import flow
from hack.demo.cluster import DemoError

COMMANDS = ("up", "down")


def main() -> int:
    """Run one command; returns the exit status."""
    begun = datetime.now(UTC)
    arguments = _parser().parse_args()
    console = Console()
    try:
        if arguments.command == "up":
            flow.up(console, sweep=arguments.sweep)
        else:
            flow.down(console)
    except DemoError as error:
        console.print(f"[bold red]demo:[/bold red] {error}", highlight=False, soft_wrap=True)
        return 1
    taken = datetime.now(UTC) - (arguments.begun or begun)
    console.print(f"\ndemo: done in {duration(taken.total_seconds())}", highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack.demo", description="Both samples from nothing to their results.")
    parser.add_argument("command", choices=COMMANDS, help="run the demo, or remove it")
    parser.add_argument("--sweep", action="store_true", help="run a sweep as well, which takes minutes")
    parser.add_argument("--begun", type=_instant, metavar="SECONDS", help="when it all began, in seconds since 1970")
    return parser


def _instant(text: str) -> datetime:
    return datetime.fromtimestamp(int(text), UTC)


if __name__ == "__main__":
    sys.exit(main())
