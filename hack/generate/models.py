"""Write docs/models.md: every model, from the catalogue that the runner works by and the types of the API."""

from pathlib import Path
from typing import get_args

from anomaly_api.base import Contract
from anomaly_api.model import MODEL_NAMES, TILED_MODELS, Model, ModelName
from anomaly_api.names import camel, snake
from anomaly_runner.models.catalog import CATALOG, ModelEntry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
HEADER = """<!-- Generated from the runner's catalogue by `make generate`; do not edit. -->
# Models

Exports take any batch size, and each is held against torch on the run's own images. *Weights* are what
`model.weights` has to hold (`python -m hack.weights fill DEST --model NAME` brings them); without it they are
downloaded from their publishers. Epochs, batch sizes and early stopping are defaults, which `training` overrides.
*Devices*: whether `training.devices` may be more than one. *float16*: whether `export.precision` may be float16.

"""
LEARNS = {"onePass": "sees each image once", "gradient": "by gradient", "zeroShot": "not at all, or from a few images"}


def block(name: ModelName) -> type[Contract]:
    """The type of a model's parameters."""
    found: type[Contract] = get_args(Model.model_fields[snake(name)].annotation)[0]
    return found


def course(entry: ModelEntry) -> str:
    """How long it trains, in words."""
    if not entry.by_gradient:
        return ""
    length = f"{entry.epochs} epochs" if entry.epochs else f"{entry.steps:,} steps"
    stop = f", patience {entry.patience}" if entry.patience else ""
    return f"{length}, batch {entry.batch_size}{' only' if entry.fixed_batch else ''}{stop}"


def input_form(entry: ModelEntry) -> str:
    """What it asks of its input."""
    size = f"{entry.size[0]} x {entry.size[1]} only" if entry.size else ""
    multiple = f"multiples of {entry.multiple}" if entry.multiple > 1 else ""
    square = "square" if entry.square else ""
    scaled = "0..1, not normalised" if entry.scaled_only else ""
    return ", ".join(part for part in (size, multiple, square, scaled) if part)


def overview() -> str:
    """One row a model."""
    head = (
        "| `model.name` | Model | Learns | Default course | Maps | Tiling | Devices | Exports | float16 | Input |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    rows = [
        f"| [`{name}`](#{name.lower()}) | {entry.title} | {LEARNS[entry.learning]} | {course(entry)} | "
        f"{'yes' if entry.localises else 'no'} | {'yes' if name in TILED_MODELS else ''} | "
        f"{'several' if entry.parallel else 'one'} | {', '.join(entry.exports)} | "
        f"{'yes' if entry.half else 'no'} | {input_form(entry)} |"
        for name, entry in ((name, CATALOG[name]) for name in MODEL_NAMES)
    ]
    return head + "\n".join(rows) + "\n"


def section(name: ModelName) -> str:
    """A model's parameters, weights and the source of its defaults."""
    entry, parameters = CATALOG[name], block(name)
    text = " ".join((parameters.__doc__ or "").split())
    weights = ", ".join(f"`{weight}`" for weight in entry.weights) or "none"
    rows = [
        f"| `{camel(field)}` | {_default(info.default)} | {' '.join((info.description or '').split())} |"
        for field, info in parameters.model_fields.items()
    ]
    table = "\n\n| Parameter | Default | |\n|---|---|---|\n" + "\n".join(rows) if rows else ""
    return f"\n## {name}\n{text}\n\nDefaults of training: {entry.source}. Weights: {weights}.{_alone(entry)}{table}\n"


def _alone(entry: ModelEntry) -> str:
    return f" Trains on one device: {entry.alone}." if entry.alone else ""


def _default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> None:
    """Write the page."""
    PAGE.write_text(HEADER + overview() + "".join(section(name) for name in MODEL_NAMES))


if __name__ == "__main__":
    main()
