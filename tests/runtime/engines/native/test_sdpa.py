"""Scaled dot-product attention: found in what the compiler makes of it, run as one, with XNNPACK's
bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from native_harness import ISAS, guarded, native, nodes_of, xnnpack
from torch import nn

import penstock
from penstock.errors import InputError
from penstock.graph.dtypes import DataType
from penstock.graph.graph import FLAG_TRANSPOSE_B, Node, Shape, Value, XnnGraph
from penstock.graph.kinds import NodeKind, ReshapeAttributes, TransposeAttributes
from penstock.runtime.engines.native import strides
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.native.library import shared_library
from penstock.runtime.engines.native.sdpa_bits import has_the_same_bits
from penstock.runtime.engines.protocol import Engine
from penstock.runtime.engines.threads import Threads

VECTOR_ISAS = [isa for isa in ISAS if isa != "scalar"]


class Masked(nn.Module):
    """Masks of queries and of keys, one after the other."""

    def forward(self, q, k, v, a, b):  # type: ignore[no-untyped-def]
        scores = q @ k.transpose(-1, -2) * 0.3 + a
        return torch.softmax(scores + b, -1) @ v


class Heads(nn.Module):
    """From [batch, tokens, heads * size] and back."""

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size

    def forward(self, q, k, v):  # type: ignore[no-untyped-def]
        q, k, v = (
            x.reshape(x.shape[0], x.shape[1], self.heads, self.size).transpose(1, 2)
            for x in (q, k, v)
        )
        found = nn.functional.scaled_dot_product_attention(q, k, v)
        return found.transpose(1, 2).reshape(q.shape[0], q.shape[2], self.heads * self.size)


class Read(nn.Module):
    """The weights are an output too."""

    def forward(self, q, k, v):  # type: ignore[no-untyped-def]
        weights = torch.softmax(q @ k.transpose(-1, -2), -1)
        return weights @ v, weights


class Windows(nn.Module):
    """The mask of each window, and a bias of each head, as Swin has them."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(1, 3, 49, 49))
        self.mask = nn.Buffer(torch.where(torch.rand(1, 4, 1, 49, 49) < 0.3, -100.0, 0.0))

    def forward(self, q, k, v):  # type: ignore[no-untyped-def]
        scores = q @ k.transpose(-1, -2) + self.bias
        scores = (scores.reshape(2, 4, 3, 49, 49) + self.mask).reshape(8, 3, 49, 49)
        return torch.softmax(scores, -1) @ v


def three(*shape: int, columns: int | None = None) -> tuple[torch.Tensor, ...]:
    other = (*shape[:-2], columns or shape[-2], shape[-1])
    return torch.randn(shape) * 3, torch.randn(other), torch.randn(other)


def masked(shape: Shape, *masks: Shape) -> tuple[torch.Tensor, ...]:
    return *three(*shape), *(torch.randn(mask) * 3 for mask in masks)


CASES: dict[str, tuple[nn.Module, tuple[torch.Tensor, ...], int]] = {
    "masks": (Masked(), masked((2, 3, 9, 20), (2, 1, 9, 9), (3, 9, 9)), 1),
    "of keys": (Masked(), masked((2, 3, 33, 16), (2, 1, 1, 33), (1, 3, 33, 1)), 1),
    "one number": (Masked(), masked((1, 2, 50, 5), (1, 1, 1, 1), (50, 50)), 1),
    "no batch": (Masked(), masked((70, 12), (70, 70), (70, 70)), 1),
    "heads": (Heads(4, 16), three(2, 100, 64), 1),
    "odd heads": (Heads(3, 5), three(2, 21, 15), 1),
    "other keys": (Heads(2, 32), three(1, 3, 64, columns=197), 1),
    "one query": (Heads(2, 32), three(1, 1, 64, columns=300), 1),
    "two keys": (Heads(2, 32), three(1, 7, 64, columns=2), 1),
    "windows": (Windows(), three(8, 3, 49, 32), 1),
    "read": (Read(), three(1, 2, 20, 8), 0),
    "layer": (
        nn.TransformerEncoderLayer(64, 4, 96, batch_first=True), (torch.randn(2, 30, 64),), 1
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_attention(name: str) -> None:
    torch.manual_seed(0)
    model, example, wanted = CASES[name]
    data = penstock.lower(model.eval(), example).to_bytes()
    inputs = [x.numpy() for x in example]
    found = model(*example)
    expected = [y.detach().numpy() for y in (found if isinstance(found, tuple) else (found,))]
    for isa in ISAS:
        for threads in (1, 3):
            program = penstock.load(data, threads=threads, engine=[native(isa), xnnpack()])
            for y, z in zip(program(*inputs), expected, strict=True):
                np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-5)
    if VECTOR_ISAS:
        assert nodes_of("f32_sdpa", data, inputs) == wanted


def graph_of(shape: tuple[int, int, int, int, int, int], by_row: bool) -> XnnGraph:
    """(query @ keys + addend), its softmax, times values."""
    batch, heads, rows, columns, size, depth = shape
    keys = (columns, size) if by_row else (size, columns)
    shapes = [
        (batch, heads, rows, size), (batch, heads, *keys), (batch, heads, columns, depth),
        (1, heads, rows, columns), *[(batch, heads, rows, columns)] * 3,
        (batch, heads, rows, depth),
    ]  # fmt: skip
    values = [
        Value(i, DataType.FP32, s, external_id={7: 4}.get(i, i if i < 4 else None),
              is_input=i < 4, is_output=i == 7)
        for i, s in enumerate(shapes)
    ]  # fmt: skip
    nodes = [
        Node(NodeKind.BATCH_MATRIX_MULTIPLY, (0, 1), (4,), flags=FLAG_TRANSPOSE_B * by_row),
        Node(NodeKind.ADD, (4, 3), (5,)),
        Node(NodeKind.SOFTMAX, (5,), (6,)),
        Node(NodeKind.BATCH_MATRIX_MULTIPLY, (6, 2), (7,)),
    ]
    return XnnGraph(values, nodes, [0, 1, 2, 3], [7])


SHAPES = [
    (1, 1, 1, 1, 1, 1), (1, 2, 5, 7, 3, 9), (64, 3, 49, 49, 32, 32), (2, 3, 33, 50, 16, 20),
    (1, 2, 15, 64, 17, 48), (1, 1, 1, 300, 64, 64), (1, 2, 17, 577, 24, 33), (1, 3, 8, 128, 32, 31),
    (1, 1, 14, 65, 40, 16), (3, 1, 2, 16, 8, 1), (1, 1, 6, 31, 2, 70), (1, 2, 197, 197, 64, 64),
]  # fmt: skip


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes_beside_the_ends_of_memory(
    shape: tuple[int, int, int, int, int, int], by_row: bool
) -> None:
    graph = graph_of(shape, by_row)
    rng = np.random.default_rng(0)
    inputs = [
        (rng.standard_normal(graph.values[i].shape) * 2).astype(np.float32) for i in graph.inputs
    ]
    inputs[0] /= np.float32(np.sqrt(shape[4]))
    theirs = np.empty(graph.values[7].shape, np.float32)
    plain = xnnpack().compile(graph, threads=Threads(1))
    plain.reshape([x.shape for x in inputs])
    plain.run(inputs, [theirs])
    same = has_the_same_bits(shared_library())
    for isa in ISAS:
        engine = native(isa)
        executable = engine.compile(graph, threads=Threads(1))
        executable.reshape([x.shape for x in inputs])
        with guarded([*inputs, np.empty_like(theirs)]) as (*placed, output):
            executable.run(placed, [output])
            np.testing.assert_allclose(output, theirs, rtol=1e-4, atol=1e-5)
            if same and isa != "scalar" and ("avx512" in isa) == ("avx512" in ISAS):
                np.testing.assert_array_equal(output.view(np.int32), theirs.view(np.int32))


def test_specials() -> None:
    """Scores that hide a column or all of them, and ones that are no numbers."""
    graph = graph_of((1, 2, 9, 40, 8, 16), False)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(graph.values[i].shape).astype(np.float32) for i in graph.inputs]
    addend = inputs[3]
    addend[..., 5:] = -np.inf
    addend[0, 0, 2], addend[0, 0, 3, 1], addend[0, 1, 4, 0] = -np.inf, np.nan, np.inf
    addend[0, 1, 5] *= 1e4
    found: list[np.ndarray] = []
    for engine in (native(ISAS[-1]), xnnpack()):
        executable = engine.compile(graph, threads=Threads(1))
        executable.reshape([x.shape for x in inputs])
        found.append(np.empty(graph.values[7].shape, np.float32))
        executable.run(inputs, [found[-1]])
    np.testing.assert_allclose(found[0], found[1], rtol=2e-5, atol=2e-6)


def test_sizes_that_vary() -> None:
    batch, tokens = torch.export.Dim("batch", max=5), torch.export.Dim("tokens", max=90)
    dims = {0: batch, 1: tokens}
    model = Heads(2, 16)
    example = three(2, 20, 32)
    lowered = penstock.lower(model, example, dynamic_shapes=(dims, dims, dims))
    data = lowered.to_bytes()
    program = penstock.load(data, threads=2, engine="native")
    for size in ((1, 1), (5, 90), (3, 17), (2, 1), (1, 64)):
        inputs = three(*size, 32)
        expected = model(*inputs).numpy()
        found = program(*(x.numpy() for x in inputs))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not VECTOR_ISAS or nodes_of("f32_sdpa", data, [x.numpy() for x in example]) == 1


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_int8_keeps_its_bits(scheme: str) -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval()
    x = torch.randn(2, 50, 64)
    data = penstock.lower(model, (x,), quantize=scheme).to_bytes()
    both: list[Engine] = [NativeEngine(everything=True), xnnpack()]
    programs = [penstock.load(data, threads=1, engine=engine) for engine in ("xnnpack", "auto")]
    programs.append(penstock.load(data, threads=1, engine=both))
    found = [program(x.numpy())[0] for program in programs]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_views() -> None:
    def move(perm: tuple[int, ...]) -> Node:
        return Node(NodeKind.STATIC_TRANSPOSE, (0,), (1,), attributes=TransposeAttributes(perm))

    def steps(view: strides.View | None) -> list[int | None]:
        assert view is not None
        return [strides.stride(factors) for factors in view]

    whole = strides.contiguous((2, 197, 768))
    heads = strides.through(
        strides.reshaped(whole, (2, 197, 12, 64)) or (), move((0, 2, 1, 3)), (2, 12, 197, 64)
    )
    assert steps(heads) == [197 * 768, 64, 768, 1]
    columns = strides.through(whole, move((0, 2, 1)), (2, 768, 197))
    reshape = Node(
        NodeKind.STATIC_RESHAPE, (0,), (1,), attributes=ReshapeAttributes((2, 12, 64, 197))
    )
    assert steps(strides.through(columns or (), reshape, (2, 12, 64, 197))) == [
        197 * 768, 64, 1, 768
    ]  # fmt: skip
    assert steps(strides.back_through(heads or (), move((0, 2, 1, 3)), (2, 197, 12, 64))) == [
        197 * 768, 768, 64, 1
    ]  # fmt: skip
    joined = strides.reshaped(heads or (), (24, 197, 64))
    assert steps(joined)[1:] == [768, 1] and steps(joined)[0] is None
    assert strides.reshaped(strides.contiguous((6,)), (4,)) is None
    assert steps(strides.broadcast(strides.contiguous((1, 5)), (3, 4, 5))) == [0, 0, 1]
    assert strides.broadcast(strides.contiguous((2, 5)), (4, 5)) is None


@pytest.mark.parametrize("wrong", range(4))
def test_shapes_that_contradict_each_other(wrong: int) -> None:
    """A file may say what it likes; the kernel is not called with it."""
    graph = graph_of((1, 2, 9, 40, 8, 16), False)
    shapes = {value.id: value.shape for value in graph.values}
    engine = NativeEngine(everything=True)
    executable = engine.compile(graph, threads=Threads(1))
    given = [shapes[i] for i in graph.inputs]
    *outer, rows, columns = given[wrong]
    given[wrong] = (*outer, rows - 1, columns - 1)
    with pytest.raises(InputError, match=r"inner dimensions|do not go together"):
        executable.reshape(given)
