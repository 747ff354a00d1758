"""Kernels around delegates, done again in few steps: the same answers and the same errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import penstock
from penstock.errors import PenstockError
from penstock.formats.program import (
    Allocation,
    DelegateCall,
    KernelCall,
    Operator,
    ScalarType,
    Tensor,
)
from penstock.formats.program_reader import read_program
from penstock.formats.program_writer import write_program
from penstock.runtime.engines.native.library import reason_against
from penstock.runtime.program import LoadedProgram

pytestmark = pytest.mark.skipif(reason_against() is not None, reason="there are no kernels here")


class Tables(nn.Module):
    """Rows of a table for each column of the first input, as recommenders have them."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(10, 4) for _ in range(3))
        self.layers = nn.Sequential(nn.Linear(12 + 5, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        rows = [table(ids[:, i]) for i, table in enumerate(self.tables)]
        return self.layers(torch.cat([*rows, x], 1))


class Two(nn.Module):
    """Two delegates, with a gather between them that no delegate can do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.first(x))
        picked = y.index_select(0, ids + 1)
        return self.last(picked), ids[None, :] - 1


def tables(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 10, (rows, 3)), rng.standard_normal((rows, 5)).astype(np.float32)


def two(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((8, 6)).astype(np.float32), rng.integers(0, 7, rows)


CASES = {"tables": (Tables, tables), "two": (Two, two)}


def programs(name: str, *, dynamic: bool = False) -> tuple[LoadedProgram, LoadedProgram]:
    """The model, and the same where calls are never replayed."""
    torch.manual_seed(0)
    model, inputs = CASES[name]
    rows = torch.export.Dim("rows", min=1, max=9)
    shapes = {"ids": {0: rows}, "x": {0: rows}} if dynamic else None
    example = tuple(map(torch.from_numpy, inputs(6, 0)))
    data = penstock.lower(model().eval(), example, dynamic_shapes=shapes).to_bytes()
    return penstock.load(data, threads=1), penstock.load(data, threads=1, engine="xnnpack")


def same(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", CASES)
def test_the_same_answers(name: str) -> None:
    ours, theirs = programs(name)
    kept = []
    for seed in range(5):
        given = CASES[name][1](6, seed)
        kept.append((ours(*given), theirs(*given)))
    assert ours.method()._replay is not None and theirs.method()._replay is None
    for found, wanted in kept:  # the caller's, also after other calls
        same(found, wanted)


def test_other_sizes() -> None:
    ours, theirs = programs("tables", dynamic=True)
    for rows in (6, 6, 6, 2, 2, 2, 9, 6, 6):
        given = tables(rows, rows)
        same(ours(*given), theirs(*given))


@pytest.mark.parametrize("wrong", [-1, 10, 1 << 40])
def test_the_same_errors(wrong: int) -> None:
    ours, theirs = programs("tables")
    for seed in range(4):
        ours(*tables(6, seed))
    assert ours.method()._replay is not None
    ids, x = tables(6, 0)
    bad = ids.copy()
    bad[3, 1] = wrong
    messages = []
    for program in (ours, theirs):
        with pytest.raises(PenstockError) as caught:
            program(bad, x)
        messages.append(str(caught.value))
        same(program(ids, x), theirs(ids, x))
    assert messages[0] == messages[1]


def test_a_delegate_that_is_called_twice() -> None:
    """At other sizes each time, as no compiler of ours writes it."""
    rows = torch.export.Dim("rows", min=1, max=9)
    model, x = nn.Linear(4, 3).eval(), torch.randn(9, 4)
    program = read_program(penstock.lower(model, (x,), dynamic_shapes=({0: rows},)).to_bytes())
    (method,) = program.methods
    (call,) = method.instructions
    assert isinstance(call, DelegateCall)
    for index in call.args:
        value = method.values[index]
        assert isinstance(value, Tensor)
        # In no memory of the plan, twice.
        method.values[index] = replace(value, allocation=None)
        method.values.append(replace(value, allocation=None))
    second = tuple(len(method.values) - len(call.args) + n for n in range(len(call.args)))
    method.instructions.append(replace(call, args=second))
    method.inputs.append(second[call.args.index(method.inputs[0])])
    method.outputs.append(second[call.args.index(method.outputs[0])])
    method.input_structure = method.output_structure = ""
    for engine in ("auto", "xnnpack"):
        loaded = penstock.load(write_program(program), threads=1, engine=engine).method()
        for _ in range(4):
            found = loaded.run([x.numpy()[:2], x.numpy()])
            wanted = model(x).detach().numpy()
            for one, other in zip(found, (wanted[:2], wanted), strict=True):
                np.testing.assert_allclose(one, other, atol=1e-6)


class Looked(nn.Module):
    """Rows of a table, by ids and by positions; a constant beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(10, 4), nn.Linear(4, 3)
        self.register_buffer("constant", torch.arange(5.0))

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.layer(self.table(ids)), self.constant


def test_constants_are_outputs() -> None:
    model, ids = Looked().eval(), torch.tensor([[3, 1, 2]])
    program = penstock.load(penstock.lower(model, (ids,)).to_bytes(), threads=1)
    for _ in range(4):
        found = program(ids.numpy())
        np.testing.assert_array_equal(found[1], np.arange(5))
    assert program.method()._replay is not None


def test_views_that_a_compiler_left_out() -> None:
    """Positions that are seen in another shape, in whose place the ids' doubles lie later on; the
    same positions are an output."""
    model, ids = Looked().eval(), np.array([[3, 1, 2]])
    program = read_program(penstock.lower(model, (torch.from_numpy(ids),)).to_bytes())
    (method,) = program.methods
    rows, rest = method.instructions
    assert isinstance(rows, KernelCall) and isinstance(rest, DelegateCall)
    table, given, *options, _, _ = rows.args
    base = method.memory_sizes[1]
    first = len(method.values)
    count, positions, view, picked, doubled, one = range(first, first + 6)
    place = Allocation(1, base)
    method.values += [
        3, Tensor(ScalarType.LONG, (3,), allocation=place),
        Tensor(ScalarType.LONG, (1, 3), allocation=place),
        Tensor(ScalarType.FLOAT, (1, 3, 4), allocation=Allocation(1, base + 64)),
        Tensor(ScalarType.LONG, (1, 3), allocation=place), 1,
    ]  # fmt: skip
    method.memory_sizes[1] = base + 128
    method.operators += [Operator("aten::arange", "out"), Operator("aten::add", "out")]
    arange, add = len(method.operators) - 2, len(method.operators) - 1
    method.instructions[:] = [
        KernelCall(arange, (count, positions, positions)),
        KernelCall(rows.operator, (table, view, *options, picked, picked)),
        KernelCall(add, (given, given, one, doubled, doubled)),
        rows, rest,
    ]  # fmt: skip
    method.outputs += [picked, doubled, view]
    method.output_structure = ""
    loaded = penstock.load(write_program(program), threads=1).method()
    for turn in range(4):
        *_, found, twice, last = loaded.run([ids + turn])
        np.testing.assert_array_equal(found, model.table.weight.detach()[None, :3])
        np.testing.assert_array_equal(twice, 2 * (ids + turn))
        np.testing.assert_array_equal(last, twice)  # the same memory
