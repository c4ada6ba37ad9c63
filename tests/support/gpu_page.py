"""The table of versions in docs/gpu.md."""

from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text()


def wheels_row(label: str) -> tuple[str, str]:
    """Return what the table says of torch and of onnxruntime-gpu."""
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {label} |")]
    _, _, torch, onnxruntime, _ = (cell.strip() for cell in line.split("|"))
    return torch, onnxruntime
