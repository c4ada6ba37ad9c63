"""How a mutant differs from its function."""

import ast


def functions_of(code: str) -> dict[str, list[str]]:
    """Return the lines of all functions and methods, without indentation, by name."""
    lines = [line.strip() for line in code.splitlines()]
    nodes = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name: lines[node.lineno - 1 : node.end_lineno] for node in nodes}


def change(kept: list[str], changed: list[str]) -> tuple[str, str]:
    """Return the lines that differ, on one line each: as they are, and as they are changed.

    Args:
        kept: lines of the function.
        changed: lines of the mutant, whose name in the first line is another.
    """
    kept, changed = [_without_name(kept[0]), *kept[1:]], [_without_name(changed[0]), *changed[1:]]
    start = _common(kept, changed)
    end = min(_common(kept[::-1], changed[::-1]), len(kept) - start, len(changed) - start)
    return " ".join(kept[start : len(kept) - end]), " ".join(changed[start : len(changed) - end])


def _common(first: list[str], second: list[str]) -> int:
    """Return how many lines at the beginning are the same."""
    pairs = zip(first, second, strict=False)
    return next((number for number, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def _without_name(line: str) -> str:
    return f"def {line[line.index('(') :]}"
