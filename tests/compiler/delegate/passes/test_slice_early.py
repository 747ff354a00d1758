"""Rows that nobody reads are not computed."""

from __future__ import annotations

import pytest
import torch
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after
from test_pipeline import check
from torch import nn

from penstock.compiler.delegate.passes import slice_early
from penstock.graph.kinds import NodeKind, SliceAttributes


@pytest.mark.parametrize("quantize", [None, "dynamic"])
def test_the_last_layer_of_an_encoder_runs_for_one_token(quantize: str | None) -> None:
    class FirstToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.encoder(x))[:, 0])

    graph = check(FirstToken(), (torch.randn(2, 9, 32),), quantize=quantize)
    products = [
        graph.values[node.outputs[0]].shape
        for node in graph.nodes
        if node.kind is NodeKind.FULLY_CONNECTED and len(graph.values[node.inputs[1]].shape) == 2
    ]
    wide = [shape for shape in products if shape[-1] == 64]
    assert sorted(shape[-2] for shape in wide) in ([1, 9], [1, 18], [2, 9], [2, 18])
    assert NodeKind.STATIC_SLICE in kinds(graph)


def slice_of(sketch: GraphBuilder, x: int, dim: int, start: int, size: int) -> int:
    shape = list(sketch.graph.values[x].shape)
    offsets, sizes = [0] * len(shape), list(shape)
    offsets[dim], sizes[dim] = start, size
    shape[dim] = size
    cut = SliceAttributes(tuple(offsets), tuple(sizes))
    return sketch.apply(NodeKind.STATIC_SLICE, (x,), shape, cut)


def test_broadcast_operands_are_cut_where_they_are_wide() -> None:
    sketch = GraphBuilder()
    x, column, row = sketch.input((2, 6, 4)), sketch.input((1, 6, 1)), sketch.random(4)
    wide = sketch.random(6, 4)
    y = x
    for kind, other in (
        (NodeKind.ADD, column), (NodeKind.MULTIPLY, row), (NodeKind.SUBTRACT, wide)
    ):  # fmt: skip
        y = sketch.apply(kind, (y, other), (2, 6, 4))
    y = sketch.apply(NodeKind.SOFTMAX, (y,), (2, 6, 4))
    graph = after(sketch.finish(slice_of(sketch, y, 1, 2, 2)), slice_early.apply)
    assert [node.kind for node in graph.nodes[:2]] == [NodeKind.STATIC_SLICE] * 2
    assert all(graph.values[node.outputs[0]].shape[1] == 2 for node in graph.nodes)


def test_products_of_matrices_are_cut_by_row() -> None:
    sketch = GraphBuilder()
    left, right = sketch.input((2, 6, 4)), sketch.input((1, 4, 5))
    y = sketch.apply(NodeKind.BATCH_MATRIX_MULTIPLY, (left, right), (2, 6, 5))
    graph = after(sketch.finish(slice_of(sketch, y, 1, 3, 1)), slice_early.apply)
    assert [node.kind for node in graph.nodes] == [
        NodeKind.STATIC_SLICE, NodeKind.BATCH_MATRIX_MULTIPLY
    ]  # fmt: skip


def test_what_is_read_whole_stays() -> None:
    for dim in (1, 2):
        sketch = GraphBuilder()
        x = sketch.input((2, 6, 4))
        y = sketch.apply(NodeKind.SOFTMAX, (x,), (2, 6, 4))
        part = slice_of(sketch, y, dim, 1, 2)
        outputs = (part, sketch.apply(NodeKind.ABS, (y,), (2, 6, 4))) if dim == 1 else (part,)
        graph = after(sketch.finish(*outputs), slice_early.apply)
        assert graph.nodes[0].kind is NodeKind.SOFTMAX


def test_different_parts_stay() -> None:
    sketch = GraphBuilder()
    x = sketch.input((2, 6, 4))
    y = sketch.apply(NodeKind.ABS, (x,), (2, 6, 4))
    parts = slice_of(sketch, y, 1, 0, 2), slice_of(sketch, y, 1, 2, 4)
    graph = after(sketch.finish(*parts), slice_early.apply)
    assert graph.nodes[0].kind is NodeKind.ABS
