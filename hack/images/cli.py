"""The command line: builds and delivers images, and prints `VARIABLE=reference` for each.

The output is meant for `eval` or a Makefile's environment; what happens goes to stderr.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from hack.cluster import lifecycle
from hack.cluster.shell import ClusterError
from hack.images.catalog import IMAGES
from hack.images.delivery import DeliveryError, deliver, prepare, reference, target


def main() -> int:
    """Run the command; returns the exit status."""
    arguments = _parser().parse_args()
    try:
        _run(arguments.names or [image.name for image in IMAGES], arguments.refs)
    except (ClusterError, DeliveryError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"images: `{' '.join(error.cmd[3:6])} ...` failed, see above", file=sys.stderr)
        return 1
    return 0


def _run(names: list[str], only_references: bool) -> None:
    where = target()
    chosen = [image for image in IMAGES if image.name in names]
    if only_references:
        for image in chosen:
            print(f"{image.variable}={reference(image, where)}")
        return
    with lifecycle.exclusive("images"):
        prepare(where)
        for image in chosen:
            print(f"{image.variable}={deliver(image, where)}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="images", description=__doc__.partition("\n")[0])
    choices = [image.name for image in IMAGES]
    parser.add_argument("names", nargs="*", metavar="IMAGE", help=f"of {', '.join(choices)}; default: all")
    parser.add_argument("--refs", action="store_true", help="print the references, build nothing")
    return parser
