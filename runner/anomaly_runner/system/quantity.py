"""Quantities of Kubernetes as numbers: 500m, 2, 8Gi.

Source: the specification of resource.Quantity in kubernetes/apimachinery.
"""

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|[MGTPE]|[KMGTPE]i)?")
_FACTORS: dict[str | None, Decimal] = {
    None: Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000**power) for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024**power) for power, suffix in enumerate("KMGTPE", 1)},
}


def parse_quantity(text: str) -> Decimal:
    """The number that a quantity stands for: bytes of memory, whole CPUs.

    Raises:
        ValueError: it is no quantity that the API takes (``primitives.Quantity``).
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"not a quantity: {text}")
    return Decimal(found[1]) * _FACTORS[found[2]]
