"""Attention over a cache that the model writes to: one delegate, rows written in place, and eager's
answers call after call, on both runtimes."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from emit_harness import run_stock
from torch import nn
from torch.nn import functional as F

import penstock
from penstock.formats.program import KernelCall

HEADS, SHARED, SIZE, LENGTH = 4, 2, 8, 24
Attend = Callable[[Any, Any, Any, Any], torch.Tensor]
LOWEST = float("-inf")


def grouped(q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)


def _repeated(x: torch.Tensor) -> torch.Tensor:
    batch, heads, rows, size = x.shape
    times = HEADS // SHARED
    wide = x[:, :, None].expand(batch, heads, times, rows, size)
    return wide.reshape(batch, heads * times, rows, size)


def repeated(q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, _repeated(k), _repeated(v), mask, scale=0.3)


def interleaved(q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
    k, v = (x.repeat_interleave(HEADS // SHARED, dim=1) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v, torch.where(mask, 0.0, LOWEST))


def by_hand(q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
    scores = q @ _repeated(k).transpose(2, 3) / math.sqrt(SIZE)
    return torch.softmax(scores.masked_fill(~mask, LOWEST), -1) @ _repeated(v)


def soft_capped(q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
    scores = 5 * torch.tanh(q @ _repeated(k).transpose(2, 3) / 5) + torch.where(mask, 0.0, LOWEST)
    return torch.softmax(scores, -1) @ _repeated(v)


def no_softmax(q: Any, k: Any, v: Any, mask: Any) -> torch.Tensor:
    """Rows that are written over would count here, unless they are made zeros."""
    return (torch.sigmoid(q @ _repeated(k).transpose(2, 3)) * mask) @ _repeated(v)


def copied(cache: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return cache.index_copy_(2, positions, rows)


def put(cache: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    cache[:, :, positions] = rows
    return cache


def assigned(cache: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The commonest way: a slice from a number on."""
    start, count = positions[0].item(), rows.shape[2]
    torch._check(start >= 0)
    torch._check(start + count <= LENGTH)
    cache[:, :, start : start + count] = rows
    return cache


def scattered(cache: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    start: Any = positions[0].item() + 1
    count = rows.shape[2]
    torch._check(start >= 1)
    torch._check(start + count <= LENGTH + 1)
    new = torch.slice_scatter(cache, rows, 2, start - 1, start - 1 + count)
    return cache.copy_(new)


class Layer(nn.Module):
    def __init__(self, attend: Attend, write: Any) -> None:
        super().__init__()
        self.attend, self.write = attend, write
        width = HEADS * SIZE
        self.query = nn.Linear(width, width)
        self.key, self.value = (nn.Linear(width, SHARED * SIZE) for _ in range(2))
        # What lies in a cache is not always zeros: old rows must not shine through.
        self.register_buffer("keys", torch.randn(1, SHARED, LENGTH, SIZE))
        self.register_buffer("values", torch.randn(1, SHARED, LENGTH, SIZE))

    def forward(self, x: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> Any:
        rows = x.shape[1]
        q = self.query(x).view(1, rows, HEADS, SIZE).transpose(1, 2)
        k = self.key(x).view(1, rows, SHARED, SIZE).transpose(1, 2)
        v = self.value(x).view(1, rows, SHARED, SIZE).transpose(1, 2)
        keys, values = self.write(self.keys, k, positions), self.write(self.values, v, positions)
        y = self.attend(q, keys, values, mask)
        return x + y.transpose(1, 2).reshape(1, rows, -1)


class Decoder(nn.Module):
    def __init__(self, attend: Attend, write: Any = copied) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(attend, write) for _ in range(2))

    def forward(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        positions = start + torch.arange(x.shape[1])
        mask = torch.arange(LENGTH)[None, :] <= positions[:, None]
        for layer in self.layers:
            x = layer(x, positions, mask)
        return x


#: Rows from each call on; the last one goes back and writes over what is there.
CALLS = ((0, 5), (5, 1), (6, 1), (7, 3), (2, 4))


def calls() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(1, n, HEADS * SIZE), torch.tensor([at])) for at, n in CALLS]


def lowered(model: nn.Module, **options: Any) -> Any:
    rows = torch.export.Dim("rows", min=1, max=8)
    example = (torch.randn(1, 4, HEADS * SIZE), torch.tensor([0]))
    return penstock.lower(model.eval(), example, dynamic_shapes=({1: rows}, None), **options)


class Reads(Decoder):
    """Something else than attention reads a cache as a whole."""

    def forward(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        y = super().forward(x, start)
        return y + self.layers[0].keys.mean() + self.layers[1].values.flatten()[:1]


ATTENTIONS = (grouped, repeated, interleaved, by_hand, soft_capped, no_softmax)
ONE_DELEGATE: dict[str, tuple[Attend, Any]] = {
    f"{attend.__name__}_{write.__name__}": (attend, write)
    for attend in ATTENTIONS
    for write in (copied, put)
} | {
    "grouped_assigned": (grouped, assigned),
    "by_hand_assigned": (by_hand, assigned),
    "grouped_scattered": (grouped, scattered),
}
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    **{name: (lambda pair=pair: Decoder(*pair), {}) for name, pair in ONE_DELEGATE.items()},
    "undelegated": (lambda: Decoder(grouped), {"delegate": False}),
    "read_by_others": (lambda: Reads(by_hand), {}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For each case: the lowered program, eager's answers, and the stock runtime's."""
    folder = tmp_path_factory.mktemp("cached_rows")
    given = [[x.numpy(), start.numpy()] for x, start in calls()]
    results = {}
    for name, (model_of, options) in CASES.items():
        torch.manual_seed(0)
        model = model_of()
        program = lowered(copy.deepcopy(model), **options)
        program.save(folder / f"{name}.pte")
        (folder / f"{name}.in.pkl").write_bytes(pickle.dumps(given))
        with torch.no_grad():
            results[name] = program, [model(x, start).numpy() for x, start in calls()]
    run_stock(folder)
    return {
        name: (*both, pickle.loads((folder / f"{name}.out.pkl").read_bytes()))
        for name, both in results.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_answers(name: str, made: dict[str, Any]) -> None:
    lowered_program, wanted, stock = made[name]
    program = penstock.load(lowered_program.to_bytes())
    for (x, start), eager, theirs in zip(calls(), wanted, stock, strict=True):
        (found,) = program(x.numpy(), start.numpy())
        np.testing.assert_allclose(found, eager, atol=2e-5)
        np.testing.assert_allclose(theirs[0], eager, atol=2e-5)


@pytest.mark.parametrize("name", ONE_DELEGATE)
def test_one_delegate(name: str, made: dict[str, Any]) -> None:
    delegation = made[name][0].delegation
    assert len(delegation.subgraphs) == 1
    outside = [node.target for node, _ in delegation.undelegated]
    method = made[name][0].program.methods[0]
    calls = [i for i in method.instructions if isinstance(i, KernelCall)]
    names = [str(method.operators[one.operator]) for one in calls]
    assert names.count("aten::index_put_") == 4  # the rows, in place
    assert not {"aten.copy_.default", "aten.index_copy.default"}.intersection(outside)
