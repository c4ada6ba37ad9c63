"""A program in the place of the runner's: trials that take no time, and whose end is in their values.

PaDiM's AUROC is best at 23 features. A seed says how a trial ends: 1 out of memory, 2 without data, 3 killed, 4 not at
all; any other one complete. Files in the folder change that: ``slow`` has each trial take half a second, with ``good``
the seeds 1 and 2 are complete, too. FastFlow shows a curve that stays at a tenth of its seed, until there is a file
``free`` or it is asked to end.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from anomaly_runner.system.orphans import die_with

PLAYED = (sys.executable, __file__)
STARTED = "started.txt"
"""Names of the trials that were started, in their order."""
PIDS = "pids.txt"
SLOW = "slow"
FREE = "free"
GOOD = "good"
BEST = 23
_ENDS = {1: "OutOfMemory", 2: "DataInvalid"}
_KILLED, _ENDLESS = 3, 4


def auroc(features: int) -> float:
    """Return what a trial measures."""
    return 1 - ((features - BEST) / 60) ** 2


def main() -> None:
    """Run a trial."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["trial"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--local", type=Path)
    parser.add_argument("--exchange", type=Path)
    parser.add_argument("--parent", type=int)
    asked = parser.parse_args()
    die_with(asked.parent)
    manifest = yaml.safe_load(asked.file.read_text())
    for file, text in ((STARTED, manifest["metadata"]["name"]), (PIDS, str(os.getpid()))):
        with (asked.local / file).open("a") as log:
            log.write(f"{text}\n")
    if (asked.local / SLOW).exists():
        time.sleep(0.5)
    _end(manifest["spec"], asked.local, asked.exchange / "summary.json")


def _end(spec: dict[str, Any], local: Path, summary: Path) -> None:
    seed = spec["dataset"].get("seed", 0)
    if seed == _KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == _ENDLESS:
        signal.signal(signal.SIGTERM, _preempted(summary))
        while True:
            time.sleep(0.05)
    if spec["model"]["name"] == "fastflow":
        _train(spec["dataset"]["seed"] / 10, local, summary)
    elif (reason := _ENDS.get(seed)) and not (local / GOOD).exists():
        _write(summary, {"reason": reason, "stage": "train", "message": "as its seed says"})
    else:
        measured = {"image": {"AUROC": auroc(spec["model"]["padim"]["nFeatures"])}}
        _write(summary, {"reason": "Complete", "stage": "done", "metrics": measured})


def _train(value: float, local: Path, summary: Path) -> None:
    curve = {"metric": "imageAUROC", "epochs": [1, 2], "values": [value, value]}
    _write(summary.parent / "progress.json", {"stage": "train", "percent": 40, "curve": curve})
    asked = summary.parent / "prune.txt"
    while not asked.exists() and not (local / FREE).exists():
        time.sleep(0.05)
    end = {"reason": "Pruned", "message": asked.read_text()} if asked.exists() else {"reason": "Complete"}
    measured = {} if asked.exists() else {"metrics": {"image": {"AUROC": value}}}
    _write(summary, {"stage": "done", "curve": curve} | end | measured)


def _preempted(summary: Path) -> Any:
    def end(number: int, frame: FrameType | None) -> None:
        _write(summary, {"reason": "Preempted", "stage": "train", "message": "stopped"})
        sys.exit(143)

    return end


def _write(file: Path, content: dict[str, Any]) -> None:
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.replace(file)


if __name__ == "__main__":
    main()
