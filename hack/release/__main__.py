"""The command line: ``python -m hack.release check TAG``, ``notes``, ``chart``, ``sbom``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from hack.release import chart, sbom, version

DIST = version.ROOT / "dist"


def main() -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except subprocess.CalledProcessError as error:
        print(f"release: `{' '.join(map(str, error.cmd))}` failed, see above", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "check":
            problems = [*version.disagreements(), *version.unready(arguments.tag)]
            print("\n".join(problems) or f"{arguments.tag} is what everything here says")
            return 1 if problems else 0
        case "notes":
            print(version.notes())
        case "chart":
            print(chart.package(DIST, arguments.helm, os.environ))
        case "sbom":
            for path in sbom.write_all(DIST):
                print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hack.release", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="fail unless everything here is of the version that a tag names")
    check.add_argument("tag", help="such as v0.1.0")
    commands.add_parser("notes", help="print what CHANGELOG.md says of this version")
    packaged = commands.add_parser("chart", help="package the chart, for the images that the environment names")
    packaged.add_argument("--helm", type=Path, default=Path("helm"), help="the helm to use")
    commands.add_parser("sbom", help="write an SBOM for each image")
    return parser


if __name__ == "__main__":
    sys.exit(main())
