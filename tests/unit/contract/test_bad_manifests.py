"""Each bad manifest is refused for what is wrong with it, and not for something else beside it.

That the API server refuses them too, for the same field, is tested on a real one.
"""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from anomaly_api.experiment import AnomalyExperiment
from anomaly_api.inference import AnomalyInference
from support.bad_manifests import BAD, base, merged

KINDS: dict[str, type[AnomalyExperiment | AnomalyInference]] = {
    "AnomalyExperiment": AnomalyExperiment,
    "AnomalyInference": AnomalyInference,
}


def cases() -> list[Any]:
    return [
        pytest.param(kind, case["change"], pattern_of(case), id=f"{kind}: {case['why']}")
        for kind, found in BAD.items()
        for case in found
    ]


def pattern_of(case: dict[str, Any]) -> str:
    """Return the pattern of the path: pydantic also names an item or a key of it."""
    return re.escape(case["python"]) if "python" in case else rf"{re.escape(case['path'])}([.\[].*)?"


def place_of(error: Any) -> str:
    """Return the path of an error, with the field that a rule's message begins with."""
    location = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error["loc"]).lstrip(".")
    named = re.match(r"([a-zA-Z][\w.\[\]]*): ", error["msg"])
    return f"{location}.{named[1]}" if named else location


@pytest.mark.parametrize(("kind", "change", "pattern"), cases())
def test_the_first_fault_is_the_one_that_was_made(kind: str, change: dict[str, Any], pattern: str) -> None:
    KINDS[kind].model_validate(base(kind))
    with pytest.raises(ValidationError) as fault:
        KINDS[kind].model_validate(merged(base(kind), {"spec": change}))
    places = [place_of(error) for error in fault.value.errors()]
    assert re.fullmatch(pattern, places[0]), places
