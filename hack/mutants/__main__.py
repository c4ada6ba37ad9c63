"""Try small wrong changes to the code, and name those that no unit test notices. ``make mutants`` runs it.

What was found is kept in build/mutants, so that another call goes on where the time was over; what survived is tried
again. The exit status is 1 if a mutant survived for which survivors.yaml has no reason. docs/mutants.md says how to
read what is printed. ::

    python -m hack.mutants [--minutes M] [--tests FILE] [--write] [MODULE ...]
"""

import argparse
import fcntl
import sys
import time
from dataclasses import replace
from fnmatch import fnmatch

from hack.mutants.found import Tried, read, try_all
from hack.mutants.groups import GROUPS, Group
from hack.mutants.making import make
from hack.mutants.scores import Reasons, lines, scores, table, write


def main() -> int:
    """Try the mutants, print what became of them, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", default=["*"], help="names of modules, with wildcards")
    parser.add_argument("--minutes", type=float, default=30, help="0 prints what is known")
    parser.add_argument("--tests", action="append", help="by which tests, instead of all that hold the modules")
    parser.add_argument("--write", action="store_true", help="write the scores into docs/mutants.md")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    reasons = Reasons()
    groups = [replace(group, tests=tuple(arguments.tests or group.tests)) for group in GROUPS]
    tried = [one for group in groups for one in _try_group(group, arguments.modules, end, reasons)]
    if not tried:
        raise SystemExit(f"no module that is changed matches {' '.join(arguments.modules)}")
    survivors = [one for one in tried if one.survived and not reasons.of(one.mutant)]
    for one in survivors:
        mutant = one.mutant
        print(f"{mutant.module}: {mutant.function} ({one.verdict})\n- {mutant.line}\n+ {mutant.changed}\n")
    rows = scores(tried, reasons)
    print("\n".join(lines(table(rows))))
    if arguments.write:
        write(rows)
    return 1 if survivors else 0


def _try_group(group: Group, modules: list[str], end: float, reasons: Reasons) -> list[Tried]:
    """Try what is left to try of the modules that match: first what was not tried, then what survived without a reason.

    Args:
        group: modules and their tests.
        modules: names of modules, with wildcards.
        end: when the time is over, by the monotonic clock.
        reasons: why mutants may survive.
    """
    if not any(fnmatch(name, module) for name in group.names() for module in modules):
        return []
    group.folder.mkdir(parents=True, exist_ok=True)
    # Another call would change the sources while they are tried.
    with (group.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mutants = [one for one in make(group) if any(fnmatch(one.module, module) for module in modules)]
        known = read(group, mutants)
        untried = [one.mutant for one in known if one.verdict is None]
        survived = [one.mutant for one in known if one.survived and not reasons.of(one.mutant)]
        try_all(group, [*untried, *survived], end - time.monotonic())
        return read(group, mutants)


if __name__ == "__main__":
    sys.exit(main())
