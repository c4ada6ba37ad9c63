"""Golden files: expected outputs, kept as YAML and compared exactly."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1] / "golden"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(value: Any) -> str:
    """Return a value as YAML, as golden files hold it."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110)


def check(path: Path, value: Any, *, update: bool) -> None:
    """Compare a value with the golden file; ``update`` writes the file first."""
    text = render(value)
    if update:
        path.write_text(text)
    assert path.exists(), f"{path} is missing: run pytest with --update-golden"
    assert path.read_text() == text, f"{path.name} differs: run pytest with --update-golden and review the diff"
