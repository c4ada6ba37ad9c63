"""Write docs/models.md: every model, from the runner's catalogue and the types of the API."""

from pathlib import Path

from anomaly_api.model import MODEL_NAMES
from anomaly_api.names import camel
from anomaly_api.parameters import Learning
from anomaly_runner.models.catalog import CATALOG, InputConstraints, ModelEntry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
HEADER = """<!-- Generated from the runner's catalogue by `make generate`; do not edit. -->
# Models

Exports take any batch size, and each is held against torch on the run's own images. *Weights* are what
`model.weights` has to hold (`python -m hack.weights fill DEST --model NAME` brings them); without it they are
downloaded from their publishers. Epochs, batch sizes and early stopping are defaults, which `training` overrides.
*Devices*: whether `training.devices` may be more than one. *float16*: whether `export.precision` may be float16.

"""
TIMES = {1: "once", 3: "three times"}


def learns(entry: ModelEntry) -> str:
    """Return how the model uses the training images, in words."""
    words: dict[Learning, str] = {
        "onePass": f"sees each image {TIMES[entry.loop.passes]}",
        "gradient": "by gradient",
        "zeroShot": "not at all, or from a few images" if "k_shot" in entry.parameters.model_fields else "not at all",
    }
    return words[entry.learning]


def course(entry: ModelEntry) -> str:
    """Return the default length of training, in words."""
    if not entry.by_gradient:
        return ""
    defaults = entry.training
    length = f"{defaults.epochs} epochs" if defaults.epochs else f"{defaults.steps:,} steps"
    stop = f", patience {defaults.patience}" if defaults.patience else ""
    return f"{length}, batch {defaults.batch_size}{' only' if entry.loop.fixed_batch_size else ''}{stop}"


def input_form(inputs: InputConstraints) -> str:
    """Return the model's constraints on its input, in words."""
    size = f"{inputs.size[0]} x {inputs.size[1]} only" if inputs.size else ""
    multiple = f"multiples of {inputs.multiple}" if inputs.multiple > 1 else ""
    square = "square" if inputs.square else ""
    normalization = {"none": "0..1, not normalised", "imagenet": "normalised only", None: ""}[inputs.normalization]
    return ", ".join(part for part in (size, multiple, square, normalization) if part)


def overview() -> str:
    """Return the table of models, one row per model."""
    head = (
        "| `model.name` | Model | Learns | Default course | Maps | Tiling | Devices | Exports | float16 | Input |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    rows = [
        f"| [`{entry.name}`](#{entry.name.lower()}) | {entry.parameters.title()} | {learns(entry)} | "
        f"{course(entry)} | {'yes' if entry.localises else 'no'} | {'yes' if entry.parameters.takes_tiles else ''} | "
        f"{'several' if entry.parallel else 'one'} | {', '.join(entry.exports.formats)} | "
        f"{'yes' if entry.exports.float16 else 'no'} | {input_form(entry.inputs)} |"
        for entry in map(CATALOG.__getitem__, MODEL_NAMES)
    ]
    return head + "\n".join(rows) + "\n"


def section(entry: ModelEntry) -> str:
    """Return a model's section: its parameters, weights and the source of its defaults."""
    parameters = entry.parameters
    text = " ".join((parameters.__doc__ or "").split())
    weights = ", ".join(f"`{weight}`" for weight in entry.weights) or "none"
    rows = [
        f"| `{camel(field)}` | {_default(info.default)} | {' '.join((info.description or '').split())} |"
        for field, info in parameters.model_fields.items()
    ]
    table = "\n\n| Parameter | Default | |\n|---|---|---|\n" + "\n".join(rows) if rows else ""
    reason = entry.loop.single_device_reason
    device = f" Trains on one device: {reason}." if reason else ""
    facts = f"Defaults of training: {entry.training.source}. Weights: {weights}.{device}"
    return f"\n## {entry.name}\n{text}\n\n{facts}{table}\n"


def _default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> None:
    """Write the page."""
    PAGE.write_text(HEADER + overview() + "".join(section(CATALOG[name]) for name in MODEL_NAMES))


if __name__ == "__main__":
    main()
