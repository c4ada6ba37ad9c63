"""`python -m hack.demo up` runs the demo, `down` removes it; `make demo` prepares the cluster first."""

from __future__ import annotations

import sys

from rich.console import Console

from hack.demo import flow
from hack.demo.cluster import DemoError

COMMANDS = {"up": flow.up, "down": flow.down}


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print(f"usage: python -m hack.demo {'|'.join(COMMANDS)}", file=sys.stderr)
        return 2
    console = Console()
    try:
        COMMANDS[arguments[0]](console)
    except DemoError as error:
        console.print(f"[bold red]demo:[/bold red] {error}", highlight=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
