"""What Flux and Argo CD make of resources, by the libraries that they are built with (hack/cluster/gitops)."""

import json
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from support.kube import Manifest

ROOT = Path(__file__).parents[2]


def _run(*command: str | Path, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def _tool() -> str:
    """Return the path of the tool, which is built where it is missing: a minute or two."""
    return _run(ROOT / "hack/cluster/cluster", "tool", "gitops").splitlines()[-1]


def _answer(command: str, question: Any) -> str:
    return _run(_tool(), command, stdin=json.dumps(question))


def kstatus(*resources: Manifest) -> list[str]:
    """Return kstatus' verdict about each resource: InProgress, Current, Failed or Terminating."""
    answer = _answer("kstatus", {"apiVersion": "v1", "kind": "List", "items": resources})
    return answer.split()


def gopher_lua(calls: Iterable[tuple[str, Manifest]]) -> list[Any]:
    """Run scripts on resources in Argo CD's Lua; an empty object in a result is an empty list.

    Raises:
        ValueError: a script failed.
    """
    answers = json.loads(_answer("lua", [{"script": script, "object": resource} for script, resource in calls]))
    if errors := [answer["error"] for answer in answers if "error" in answer]:
        raise ValueError(errors[0])
    return [answer["value"] for answer in answers]
