"""A model is left as it was, also one that keeps what it computes."""

from __future__ import annotations

import torch
from torch import nn

import penstock


class Biased(nn.Module):
    """Makes its table at the first call, and another where that is too short."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None, persistent=False)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None or len(self.table) < x.shape[-1]:
            self.register_buffer("table", torch.arange(float(x.shape[-1])), persistent=False)
            self.register_buffer("shorter", self.table[1:2], persistent=False)
        self.calls += 1
        return x + self.table[: x.shape[-1]] * self.shorter + self.calls


def test_tables_made_at_the_first_call() -> None:
    model = Biased().eval()
    for length in (4, 6):
        x = torch.randn(2, length)
        for _ in range(2):
            lowered = penstock.lower(model, (x,))
            assert model.table is None and not hasattr(model, "shorter") and model.calls == 0
            (found,) = penstock.load(lowered.to_bytes())(x.numpy())
            torch.testing.assert_close(torch.from_numpy(found), Biased()(x))
    model(torch.randn(2, 3))
    assert len(model.table) == 3


class Cached(nn.Module):
    """Keeps its table by device, as LeViT and TinyViT do."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(4))
        self.tables: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        key = str(x.device)
        if key not in self.tables:
            self.tables[key] = self.bias[torch.tensor([3, 1, 0, 2])]
        return x + self.tables[key]


def test_tables_in_dictionaries() -> None:
    model, x = Cached().eval(), torch.randn(2, 4)
    for _ in range(2):
        (found,) = penstock.load(penstock.lower(model, (x,)).to_bytes())(x)
        assert not model.tables
    torch.testing.assert_close(torch.from_numpy(found), model(x))


class Counting(nn.Module):
    """Writes into tensors that it has not registered as buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.sums = torch.zeros(1), [torch.zeros(4), torch.ones(4)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        self.sums[0].add_(x)
        return x * self.calls + self.sums[0] + self.sums[1]


def test_writes_into_plain_attributes() -> None:
    model, x = Counting(), torch.randn(4)
    program = penstock.load(penstock.lower(model, (x,)).to_bytes())
    assert model.calls == 0 and not model.sums[0].any()
    for _ in range(3):
        (found,) = program(x)
        torch.testing.assert_close(torch.from_numpy(found), model(x))


class Collecting(nn.Module):
    """Keeps what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return x * 2


def test_lists_are_left_as_they_were() -> None:
    model, x = Collecting(), torch.ones(3)
    model(x)
    penstock.lower(model, (x,))
    assert len(model.seen) == 1 and type(model.seen[0]) is torch.Tensor
