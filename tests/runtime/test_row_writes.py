"""Several writes to caches are one step, and give what each of them gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import penstock
from penstock.runtime import row_writes


class Caches(nn.Module):
    """Three caches with rows along the same axis, written at the same positions."""

    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in "abc":
            self.register_buffer(name, torch.zeros(2, 6, 3))

    def forward(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        self.a.index_copy_(1, positions, rows)
        self.b.index_copy_(1, positions, rows * 2)
        self.c.index_copy_(1, positions, rows + 1)
        return rows * 3


def program() -> penstock.LoadedProgram:
    count = torch.export.Dim("count", min=1, max=4)
    inputs = torch.zeros(2, 2, 3), torch.zeros(2, dtype=torch.int64)
    shapes = {"rows": {1: count}, "positions": {0: count}}
    return penstock.load(penstock.lower(Caches(), inputs, dynamic_shapes=shapes).to_bytes())


def writes(loaded: penstock.LoadedProgram) -> int:
    steps = [
        step
        for step in loaded.method()._interpreter._steps
        if "row_writes" in step.__code__.co_filename
    ]
    return len(steps)


@pytest.mark.parametrize("positions", [[0], [3], [1, 2, 3], [4, 1], [5, 0, 2], [2, 2]])
def test_the_same_as_eager(positions: list[int]) -> None:
    torch.manual_seed(0)
    loaded, module = program(), Caches()
    assert writes(loaded) > 1
    for _ in range(2):
        rows, index = torch.randn(2, len(positions), 3), torch.tensor(positions)
        with torch.no_grad():
            wanted = module(rows, index)
        (found,) = loaded(rows.numpy(), index.numpy())
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)
        for name in "abc":
            kept = getattr(module, name).numpy()
            np.testing.assert_allclose(loaded.method().buffers[name], kept, atol=1e-6)


@pytest.mark.parametrize("position", [6, 100, -7])
def test_a_position_that_is_not_there_is_an_error(position: int) -> None:
    loaded = program()
    with pytest.raises(penstock.InvalidProgramError, match="index_put_"):
        loaded(np.ones((2, 1, 3), np.float32), np.array([position]))
    assert not any(rows.any() for rows in loaded.method().buffers.values())


def test_rows_that_follow_one_another() -> None:
    assert row_writes._rows(np.array([2, 3, 4]), 5) == slice(2, 5)
    assert row_writes._rows(np.array([2, 3, 5]), 9) is None
    assert row_writes._rows(np.array([3, 4]), 4) is None
    assert row_writes._rows(np.array([-1]), 4) is None
    assert row_writes._rows(np.array([], np.int64), 4) is None
