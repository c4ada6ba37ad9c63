"""Golden files: what the code makes of an input, kept as YAML and compared to the letter."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1] / "golden"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(value: Any) -> str:
    """YAML as golden files hold it."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110)


def check(path: Path, value: Any, *, update: bool) -> None:
    """Compare with the file, or write it."""
    text = render(value)
    if update:
        path.write_text(text)
    assert path.exists(), f"{path} is missing: run pytest with --update-golden"
    assert path.read_text() == text, f"{path.name} differs: run pytest with --update-golden and review the diff"
