"""What became of the mutants: kept in a file for each group, so that another call goes on where the time was over."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hack.mutants.groups import Group
from hack.mutants.making import Mutant


@dataclass(frozen=True)
class Tried:
    """A mutant, and what became of it."""

    mutant: Mutant
    verdict: str | None
    """killed, survived, untested (no test calls the function), timed out or crashed; None if it was not tried."""

    @property
    def survived(self) -> bool:
        """Whether no test noticed it."""
        return self.verdict in ("survived", "untested")


def read(group: Group, mutants: Iterable[Mutant]) -> list[Tried]:
    """Return what is known of mutants; what was found last holds."""
    file = _file(group)
    lines = file.read_text().splitlines() if file.exists() else []
    verdicts = {one["digest"]: one["verdict"] for one in map(json.loads, lines)}
    return [Tried(mutant, verdicts.get(mutant.digest)) for mutant in mutants]


def try_all(group: Group, mutants: Iterable[Mutant], seconds: float) -> None:
    """Try mutants, in this order, until the time is over.

    Raises:
        SystemExit: the tests do not pass as they are.
    """
    folder = group.folder
    wanted = [{"name": one.name, "called": one.called, "digest": one.digest} for one in mutants]
    if not wanted or seconds <= 0:
        return
    (folder / "wanted.json").write_text(json.dumps(wanted))
    environment = os.environ | {"PYTHONPATH": f"{folder / 'src'}:{folder}", "OMP_NUM_THREADS": "1"}
    # The functions that are changed tell that they are called, also while modules are imported.
    environment["MUTANT_UNDER_TEST"] = "stats"
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    options = [
        f"--mutants-to-try={folder / 'wanted.json'}",
        f"--mutants-found={_file(group)}",
        f"--mutants-seconds={seconds}",
        # What fails is not looked at.
        *("--assert=plain", "--tb=line", "--capture=no", "--quiet", "--numprocesses=0"),
        *("-p", "no:cacheprovider", "-p", "hack.mutants.plugin"),
    ]
    command = [sys.executable, "-m", "pytest", *options, *group.tests]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("left out"):
            print(line)
    if done.returncode:
        raise SystemExit(
            f"the tests of {group.name} end with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
        )


def _file(group: Group) -> Path:
    return group.folder / "found.jsonl"
