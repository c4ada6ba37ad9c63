"""A copy of the packages and their tests in which functions have mutants, made by mutmut.

Each function of a changed module asks the environment at every call whether one of its mutants is to run in its place.
"""

import ast
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mutmut.mutation.file_mutation import mutate_file_contents

from hack.mutants.changes import change, functions_of
from hack.mutants.groups import PACKAGES, ROOT, Group

OTHERS = ("tests", "docs", "hack", "helm", "manifests", "crds/anomalyexperiments.yaml", "crds/anomalyinferences.yaml")
"""What the unit tests read beside the packages."""


@dataclass(frozen=True)
class Mutant:
    """A small wrong change of a function."""

    name: str
    """As the changed module knows it: ``package.module.x_function__mutmut_3``."""
    function: str
    """Name of the function in its module, with its class."""
    line: str
    """The lines that are changed, on one line."""
    changed: str
    """What the mutant has in their place."""
    digest: str
    """Of the function and of the mutant: what was found of a mutant holds as long as both are the same."""

    @property
    def module(self) -> str:
        """Name of the module."""
        return self.name.rpartition(".")[0]

    @property
    def called(self) -> str:
        """What is recorded if the function is called: the name without the number."""
        return self.name.rpartition("__mutmut_")[0]


def make(group: Group) -> list[Mutant]:
    """Make the copy of a group, and return its mutants."""
    _copy_others(group.folder)
    source, made = group.folder / "src", group.folder / "made"
    for package in PACKAGES:
        _copy(ROOT / package, source / Path(package).name)
    made.mkdir(exist_ok=True)
    mutants: list[Mutant] = []
    # mutmut looks for its configuration, and for the folder src, in the working directory.
    with chdir(group.folder):
        for module in group.names():
            file = next(path for path in _files(source, module) if path.exists())
            mutants += _change(file, module, made / f"{module}.json")
    return mutants


def _change(file: Path, module: str, cache: Path) -> list[Mutant]:
    """Give the functions of a module their mutants; what was made from the same source is taken from the cache."""
    source = file.read_text()
    digest = _digest(source)
    known: dict[str, Any] = json.loads(cache.read_text()) if cache.exists() else {"digest": None}
    if known["digest"] != digest:
        code = mutate_file_contents(str(file), source).code
        known = {"digest": digest, "code": code, "mutants": [asdict(one) for one in _mutants(module, code)]}
        cache.write_text(json.dumps(known))
    file.write_text(_without_evaluated_annotations(known["code"]))
    return [Mutant(**one) for one in known["mutants"]]


def _without_evaluated_annotations(code: str) -> str:
    """The code with annotations that are not evaluated, where a class has a method ``list``.

    The mutants of its other methods come after it, so that ``list[str]`` would mean the method.
    """
    if "def list(" not in code:
        return code
    docstring = ast.parse(code).body[0]
    lines = code.splitlines(keepends=True)
    lines.insert(docstring.end_lineno or 0, "from __future__ import annotations\n")
    return "".join(lines)


def _mutants(module: str, code: str) -> Iterator[Mutant]:
    functions = functions_of(code)
    for name, lines in functions.items():
        mangled, _, number = name.partition("__mutmut_")
        if number.isdigit():
            kept = functions[f"{mangled}__mutmut_orig"]
            function = mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
            digest = _digest("\n".join([module, *kept, *lines]))
            yield Mutant(f"{module}.{name}", function, *change(kept, lines), digest)


def _files(source: Path, module: str) -> tuple[Path, Path]:
    path = source / module.replace(".", "/")
    return path.with_suffix(".py"), path / "__init__.py"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _copy_others(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for other in OTHERS:
        _copy(ROOT / other, folder / other)
    for file in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        _copy(ROOT / file, folder / file)


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
