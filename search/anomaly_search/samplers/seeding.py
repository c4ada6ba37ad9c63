"""The seed of one suggestion."""

from __future__ import annotations

import numpy as np


def seed_of(seed: int, number: int, attempt: int = 0) -> int:
    """Return 32 bits that differ between numbers and attempts, the same in any process."""
    return int(np.random.SeedSequence((seed, number, attempt)).generate_state(1)[0])
