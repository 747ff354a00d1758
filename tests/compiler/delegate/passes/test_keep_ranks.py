"""Numbers of more dimensions than what they are added to, between int8 values."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from graph_builder import GraphBuilder, kinds
from torch import nn
from torch.export import Dim
from xnn_graphs import dequantize, quantize, run

import penstock
from penstock.compiler.delegate.passes import keep_ranks
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind

ADD, CONVERT, MULTIPLY = NodeKind.ADD, NodeKind.CONVERT, NodeKind.MULTIPLY
QUANTIZED = PerTensor(0.02, 3)


def between_int8(kind: NodeKind, number: float, rank: int, *, to_int8: bool = True) -> XnnGraph:
    sketch = GraphBuilder()
    x = sketch.input((6, 8), DataType.QINT8, QUANTIZED)
    real = sketch.apply(CONVERT, (x,), (6, 8))
    constant = sketch.constant(np.full((1,) * rank, number))
    shape = (1,) * (rank - 2) + (6, 8)
    result = sketch.apply(kind, (real, constant), shape)
    if to_int8:
        result = sketch.apply(CONVERT, (result,), shape, None, None, 0, DataType.QINT8, QUANTIZED)
    return sketch.finish(result)


def int8_alone(rank: int) -> XnnGraph:
    sketch = GraphBuilder()
    x = sketch.input((6, 8), DataType.QINT8, QUANTIZED)
    number = np.full((1,) * rank, 5, np.int8)
    constant = sketch.constant(number, DataType.QINT8, QUANTIZED)
    shape = (1,) * (rank - 2) + (6, 8)
    result = sketch.apply(ADD, (x, constant), shape, None, None, 0, DataType.QINT8, QUANTIZED)
    result = sketch.apply(
        NodeKind.CLAMP, (result,), shape, None, (-0.5, 0.5), 0, DataType.QINT8, QUANTIZED
    )
    return sketch.finish(result)


@pytest.mark.parametrize("size", [1, 4, 6])
@pytest.mark.parametrize(("kind", "number"), [(ADD, -0.0), (ADD, 0.5), (MULTIPLY, -0.3)])
def test_the_rank_is_the_number_s(kind: NodeKind, number: float, size: int) -> None:
    graph = between_int8(kind, number, 4)
    keep_ranks.apply(graph)
    x = np.random.default_rng(0).integers(-128, 128, (size, 8)).astype(np.int8)
    (found,) = run(graph, x)
    real = dequantize(x, QUANTIZED)
    expected = real + number if kind is ADD else real * number
    np.testing.assert_array_equal(found, quantize(expected, QUANTIZED)[None, None])


def test_of_what_is_not_finite() -> None:
    """The first element is minus infinity, of which no zero can be made."""
    sketch = GraphBuilder()
    x = sketch.input((6, 8), DataType.QINT8, PerTensor(0.02, -128))
    real = sketch.apply(NodeKind.LOG, (sketch.apply(CONVERT, (x,), (6, 8)),), (6, 8))
    number = sketch.constant(np.full((1, 1, 1, 1), 0.5))
    raised = sketch.apply(ADD, (real, number), (1, 1, 6, 8))
    result = sketch.apply(
        CONVERT, (raised,), (1, 1, 6, 8), None, None, 0, DataType.QINT8, QUANTIZED
    )
    graph = sketch.finish(result)
    keep_ranks.apply(graph)
    given = np.arange(-128, -80).astype(np.int8).reshape(6, 8)
    (found,) = run(graph, given)
    with np.errstate(divide="ignore"):
        expected = np.log(dequantize(given, PerTensor(0.02, -128))) + 0.5
    np.testing.assert_allclose(found[0, 0], quantize(expected, QUANTIZED), atol=1)


def test_int8_throughout() -> None:
    graph = int8_alone(4)
    keep_ranks.apply(graph)
    x = np.random.default_rng(0).integers(-128, 128, (6, 8)).astype(np.int8)
    (found,) = run(graph, x)
    expected = (dequantize(x, QUANTIZED) + 2 * 0.02).clip(-0.5, 0.5)
    np.testing.assert_array_equal(found, quantize(expected, QUANTIZED)[None, None])


@pytest.mark.parametrize(
    "graph", [between_int8(ADD, 0.5, 2), between_int8(ADD, -0.0, 4, to_int8=False)]
)
def test_what_stays(graph: XnnGraph) -> None:
    """XNNPACK makes no table of it, or the table has the rank."""
    before = kinds(copy.deepcopy(graph))
    keep_ranks.apply(graph)
    assert kinds(graph) == before


class Lifted(nn.Module):
    """Views of two dynamic dimensions put dimensions in front by adding zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.offset = nn.Parameter(torch.full((1, 1, 1, 1), 0.5))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.linear(x)
        heads = y.view(*x.shape[:2], 2, 4).transpose(1, 2).relu()
        return heads, nn.functional.hardtanh(y.unsqueeze(1)), (y + self.offset).relu()


@pytest.mark.parametrize("engine", ["auto", "xnnpack", "native"])
def test_quantized_models(engine: str) -> None:
    model, x = Lifted().eval(), torch.randn(2, 5, 8)
    sizes = ({0: Dim("batch", max=4), 1: Dim("length", max=9)},)
    lowered = penstock.lower(model, (x,), dynamic_shapes=sizes, quantize="static")
    program = penstock.load(lowered.to_bytes(), engine=engine)
    for inputs in (x, torch.cat([x[:1]] * 3)[:, :3]):
        for found, expected in zip(program(inputs), model(inputs), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0.05, atol=0.05)
