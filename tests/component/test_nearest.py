"""The search for the nearest row of a memory bank, against scipy's search in float64."""

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from torch import Tensor

from anomaly_runner.models import nearest
from anomaly_runner.models.nearest import nearest_in_graph, nearest_rows


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("search", [nearest_rows, nearest_in_graph])
@pytest.mark.parametrize(("patches", "rows"), [(1, 1), (700, 1), (3, 1024), (700, 1025), (513, 5000)])
def test_the_nearest_row_is_found(search: object, patches: int, rows: int) -> None:
    assert callable(search)
    asked, bank = drawn(patches, 24), drawn(rows, 24, seed=1)
    _, expected = KDTree(bank.numpy().astype(np.float64)).query(asked.numpy().astype(np.float64))
    assert search(asked, bank).tolist() == expected.tolist()


def test_a_row_of_the_bank_finds_itself() -> None:
    bank = drawn(3000, 24)
    assert nearest_rows(bank, bank).tolist() == list(range(3000))


def test_of_equally_near_rows_the_first_is_found() -> None:
    bank = drawn(700, 24).repeat(5, 1)
    assert nearest_rows(bank, bank).tolist() == list(range(700)) * 5


@pytest.mark.parametrize("rows", [7, 64, 1 << 15])
def test_the_size_of_parts_does_not_change_what_is_found(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, bank = drawn(600, 24), drawn(2000, 24, seed=1)
    expected = torch.cdist(asked, bank, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    monkeypatch.setattr(nearest, "_ROWS_ON_CPU", rows)
    assert torch.equal(nearest_rows(asked, bank), expected)
