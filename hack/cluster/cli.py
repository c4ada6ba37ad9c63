"""The command line of the embedded cluster: parses, delegates, and reports errors in one line."""

from __future__ import annotations

import argparse
import sys

from hack.cluster import images, lifecycle, settings, toolchain
from hack.cluster.shell import ClusterError


def main() -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "env":
        print(lifecycle.environment())
    elif arguments.command == "status":
        return 0 if lifecycle.status() else 1
    elif arguments.command == "tool":
        with lifecycle.exclusive():
            toolchain.ensure_programs(arguments.name)
        print(settings.BIN / arguments.name)
    else:
        with lifecycle.exclusive():
            _change(arguments)
    return 0


def _change(arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "build":
            toolchain.ensure(tuple(arguments.tools))
        case "up":
            lifecycle.up()
        case "down":
            lifecycle.down(purge=arguments.purge)
        case "load-image":
            lifecycle.ensure_running()
            for reference in arguments.references:
                images.load(reference)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster", description="A real one-node Kubernetes for development and CI.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="install and build what the cluster is made of")
    build.add_argument(
        "--tool", dest="tools", action="append", default=[], choices=settings.TOOLS, help="build this one too"
    )
    tool = commands.add_parser("tool", help="build one tool, nothing else, and print where it is")
    tool.add_argument("name", choices=settings.TOOLS)
    commands.add_parser("up", help="bring the cluster up, or make it right again")
    down = commands.add_parser("down", help="delete the cluster; keep binaries and current images")
    down.add_argument("--purge", action="store_true", help="remove binaries and images too")
    commands.add_parser("status", help="show the state of processes and node")
    commands.add_parser("env", help="print shell commands that point kubectl here")
    load = commands.add_parser("load-image", help="bring images built by buildah to the node")
    load.add_argument("references", nargs="+", metavar="REFERENCE")
    return parser
