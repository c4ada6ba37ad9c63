"""What a process costs: its seconds, those of its CPUs, and the most memory that it had."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_OWN = ("PYTHONDONTWRITEBYTECODE", "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "GOMP_SPINCOUNT")
"""Variables of this process alone: anomalib's side loads its own pickled models, and waits as torch has it."""


@dataclass(frozen=True)
class Cost:
    """The resources that one process took."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    output: str = ""

    @property
    def last_line(self) -> str:
        """The last line that the process printed."""
        return self.output.strip().rsplit("\n", 1)[-1]


def measured(command: list[str], **environment: str) -> Cost:
    """Run a process to its end, and return its cost; that of a process with large memory would be its parent's.

    Raises:
        SystemExit: the process failed.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in _OWN}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=inherited | environment
    )
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:3]} failed:\n{output[-4000:]}")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def run_locally(file: Path, folder: Path, **environment: str) -> Cost:
    """Run the manifest ``file`` on the buckets and results in ``folder``, without a cluster, and return its cost.

    Raises:
        SystemExit: the run failed.
    """
    return measured([sys.executable, "-m", "anomaly_runner", "run", str(file), "--local", str(folder)], **environment)
