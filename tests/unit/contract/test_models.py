"""A model is a block of parameters, a catalogue entry and a row of the tests: none of the three may be missing."""

import re
from collections.abc import Iterable

import pytest

from anomaly_api.model import MODEL_NAMES, ONE_PASS_MODELS, TILED_MODELS, Model
from anomaly_api.names import snake
from anomaly_api.parameters import BLOCKS, ModelParameters
from anomaly_runner.models.catalog import CATALOG, ModelEntry
from support.model_rows import ROWS, ModelRow

BLOCK = "a block of parameters in crds/anomaly_api/parameters.py"
ENTRY = "an entry in runner/anomaly_runner/models/catalog.py"
ROW = "a row in tests/support/model_rows.py"


def forgotten(blocks: Iterable[str], entries: Iterable[str], rows: Iterable[str]) -> list[str]:
    """Return what is missing, for each model that has at least one of the three parts."""
    parts = {BLOCK: set(blocks), ENTRY: set(entries), ROW: set(rows)}
    return sorted(
        f"{name} needs {part}"
        for name in set.union(*parts.values())
        for part, names in parts.items()
        if name not in names
    )


def test_every_model_has_its_three_parts() -> None:
    missing = forgotten(BLOCKS, CATALOG, ROWS)
    assert not missing, "; ".join(missing)


@pytest.mark.parametrize(
    ("blocks", "entries", "rows", "told"),
    [
        (["a", "b"], ["a"], ["a", "b"], f"b needs {ENTRY}"),
        (["a"], ["a", "b"], ["a", "b"], f"b needs {BLOCK}"),
        (["a", "b"], ["a", "b"], ["a"], f"b needs {ROW}"),
    ],
)
def test_what_is_forgotten_is_named_with_its_place(
    blocks: list[str], entries: list[str], rows: list[str], told: str
) -> None:
    assert forgotten(blocks, entries, rows) == [told]


def test_the_api_follows_from_the_blocks() -> None:
    """Names, fields and lists of models are made from the blocks; Python's names of fields lead back to them."""
    assert tuple(BLOCKS) == MODEL_NAMES
    assert list(Model.model_fields) == ["name", *map(snake, MODEL_NAMES), "tiling", "weights"]
    for name, block in BLOCKS.items():
        assert isinstance(Model(name=name).parameters, block)
    assert set(TILED_MODELS) == {"padim", "patchcore", "reverseDistillation", "stfpm"}
    with pytest.raises(ValueError, match="'padim', 'patchcore'"):
        Model(name="none")


@pytest.mark.parametrize("name", ["Padim", "Parameters"])
def test_a_block_is_named_after_its_model(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: a block of parameters is named after its model, as in PadimP"):
        type(name, (ModelParameters,), {"__module__": __name__})


def test_only_gradient_models_have_epochs() -> None:
    assert set(ONE_PASS_MODELS) == {name for name, entry in CATALOG.items() if not entry.by_gradient}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_begins_with_the_models_display_name(name: str) -> None:
    assert ": " in (BLOCKS[name].__doc__ or ""), (
        f"the docstring of {BLOCKS[name].__name__} begins with NAME and a colon"
    )


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_an_entry_is_coherent(entry: ModelEntry) -> None:
    defaults, fields = entry.training, set(entry.parameters.model_fields)
    assert entry.by_gradient == bool(defaults.epochs or defaults.steps), "epochs or steps are for training by gradient"
    assert not (defaults.epochs and defaults.steps), "epochs or steps, not both"
    used = {field for source in entry.weights for field in re.findall(r"{(\w+)}", source.name)}
    assert used <= fields, "weights in braces name parameters"
    if entry.anomalib:
        assert set(entry.anomalib.renamed) <= fields, "renamed arguments are parameters"


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_is_run_or_says_why_not(row: ModelRow) -> None:
    assert bool(row.comparisons) != bool(row.no_comparison_because), "comparisons, or why there are none"
