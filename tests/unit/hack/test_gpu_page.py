"""docs/gpu.md names the versions that are pinned, and what to change for others as it is written in pyproject.toml."""

import re
from pathlib import Path

from support.gpu_page import PAGE, wheels_row

ROOT = Path(__file__).parents[3]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())


def test_the_versions_are_those_of_the_constraints() -> None:
    assert wheels_row("Version") == (PINS["torch"], PINS["onnxruntime-gpu"])
    [cudnn] = [version for name, version in PINS.items() if name.startswith("nvidia-cudnn-cu")]
    assert wheels_row("cuDNN") == (cudnn, cudnn)


def test_what_to_change_for_an_older_cuda_is_in_the_project_file() -> None:
    block = PAGE.partition("```toml\n")[2].partition("```")[0]
    lines = [re.sub(r",<[\d.]+| +#.*", "", line).strip().rstrip(",") for line in block.splitlines()]
    project = (ROOT / "pyproject.toml").read_text()
    assert len(lines) == 3
    assert [line for line in lines if line not in project] == []
