"""All indices of a dimension, sliced one by one and joined again, are one transpose."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipeline import check, graph_of
from torch import nn

import penstock
from penstock.compiler.delegate.passes import slices_to_transpose
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    NodeKind,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)

RESHAPE, TRANSPOSE = NodeKind.STATIC_RESHAPE, NodeKind.STATIC_TRANSPOSE
SLICE = NodeKind.STATIC_SLICE
JOIN = {
    2: NodeKind.CONCATENATE_2, 3: NodeKind.CONCATENATE_3, 4: NodeKind.CONCATENATE_4,
    5: NodeKind.CONCATENATE_5,
}  # fmt: skip
INT8 = (DataType.QINT8, PerTensor(0.05, 3))


class Pieces(GraphBuilder):
    """Movement of one type."""

    def __init__(self, dtype: DataType = DataType.FP32, scale: PerTensor | None = None) -> None:
        super().__init__()
        self.type = {"dtype": dtype, "quantization": scale}

    def shape(self, x: int) -> tuple[int, ...]:
        return self.graph.values[x].shape

    def start(self, *shape: int) -> int:
        return self.input(shape, **self.type)  # type: ignore[arg-type]

    def reshape(self, x: int, *shape: int) -> int:
        return self.apply(RESHAPE, (x,), shape, ReshapeAttributes(shape), **self.type)  # type: ignore[arg-type]

    def transpose(self, x: int, perm: Sequence[int]) -> int:
        shape = [self.shape(x)[dim] for dim in perm]
        attributes = TransposeAttributes(tuple(perm))
        return self.apply(TRANSPOSE, (x,), shape, attributes, **self.type)  # type: ignore[arg-type]

    def take(self, x: int, dim: int, start: int, size: int = 1) -> int:
        shape = list(self.shape(x))
        offsets = [0] * len(shape)
        offsets[dim], shape[dim] = start, size
        cut = SliceAttributes(tuple(offsets), tuple(shape))
        return self.apply(SLICE, (x,), shape, cut, **self.type)  # type: ignore[arg-type]

    def join(self, pieces: Sequence[int], axis: int) -> int:
        """As lowering joins any number: five at a time."""
        while len(pieces) > 1:
            groups = [pieces[i : i + 5] for i in range(0, len(pieces), 5)]
            pieces = [g[0] if len(g) == 1 else self._joined(g, axis) for g in groups]
        return pieces[0]

    def _joined(self, pieces: Sequence[int], axis: int) -> int:
        shape = list(self.shape(pieces[0]))
        shape[axis] = sum(self.shape(piece)[axis] for piece in pieces)
        attributes = ConcatenateAttributes(axis)
        return self.apply(JOIN[len(pieces)], pieces, shape, attributes, **self.type)  # type: ignore[arg-type]

    def rows(self, x: int, *order: int) -> list[int]:
        return [self.take(x, 0, row) for row in order]


def found(graph: XnnGraph) -> list[NodeKind]:
    return [node.kind for node in after(graph, slices_to_transpose.apply).nodes]


# --- what models write ---------------------------------------------------------------------------


def merged(x: torch.Tensor) -> torch.Tensor:
    """Swin, channels last."""
    parts = [x[..., 0::2, 0::2, :], x[..., 1::2, 0::2, :], x[..., 0::2, 1::2, :]]
    return torch.cat([*parts, x[..., 1::2, 1::2, :]], -1)


def focus(x: torch.Tensor) -> torch.Tensor:
    parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
    return torch.cat(parts, 1)


def to_depth(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[:, i::4, j::4] for i in range(4) for j in range(4)], -1)


class Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], *after: nn.Module) -> None:
        super().__init__()
        self.function, self.after = function, nn.Sequential(*after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.function(torch.tanh(x)))


@pytest.mark.parametrize(
    ("model", "shape", "transposes"),
    [
        (Function(merged, nn.Linear(20, 6)), (2, 4, 6, 5), 1),
        (Function(merged, nn.LayerNorm(20)), (2, 1, 4, 6, 5), 1),
        # The transposes to and from channels-last, the first of which takes the focus with it.
        (Function(focus, nn.Conv2d(12, 8, 3)), (1, 3, 8, 12), 2),
        (Function(to_depth, nn.Linear(32, 3)), (1, 8, 12, 2), 1),
        (Function(lambda x: torch.cat(x.unbind(1), -1)), (5, 3, 4), 0),
        (Function(lambda x: torch.stack([x[0], x[1], x[2]], -1)), (3, 4, 5), 1),
        (Function(lambda x: torch.cat(x.chunk(2, 1), 0)), (3, 4, 5), 1),
    ],
)
def test_patches_are_merged_by_one_transpose(
    model: nn.Module, shape: Sequence[int], transposes: int
) -> None:
    graph = check(model, (torch.randn(*shape),))
    left = kinds(graph)
    assert left[TRANSPOSE] == transposes
    assert not {SLICE, *JOIN.values()} & set(left)


@pytest.mark.parametrize("model", [Function(merged), Function(focus)])
def test_odd_sizes_are_padded_and_sliced(model: nn.Module) -> None:
    def even(x: torch.Tensor) -> torch.Tensor:
        return model(nn.functional.pad(x, (0, 1, 0, 1, 0, 1, 0, 1)))

    graph = check(Function(even), (torch.randn(1, 5, 7, 3),))
    assert SLICE not in kinds(graph)

    def crop(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, 0:6:2], x[:, 1::2]], -1)

    assert kinds(check(Function(crop), (torch.randn(1, 7, 3),)))[SLICE] >= 2


def test_focus_runs_on_int8() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), Function(focus, nn.Conv2d(16, 8, 3)))
    graph = check(model, (torch.randn(1, 3, 8, 12),), quantize="static")
    moved = [graph.values[n.outputs[0]].dtype for n in graph.nodes if n.kind is TRANSPOSE]
    assert DataType.QINT8 in moved
    assert not {SLICE, *JOIN.values()} & set(kinds(graph))


def test_a_dynamic_batch_stays_free() -> None:
    model = Function(merged, nn.Linear(20, 6)).eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    lowered = penstock.lower(model, (torch.randn(4, 4, 6, 5),), dynamic_shapes=({0: batch},))
    left = kinds(graph_of(lowered))
    assert left[TRANSPOSE] == 1
    assert SLICE not in left
    program = penstock.load(lowered.to_bytes())
    for size in (4, 1, 7):
        x = torch.randn(size, 4, 6, 5)
        (actual,) = program(x)
        np.testing.assert_allclose(actual, model(x).detach().numpy(), atol=1e-5)


def test_other_dynamic_sizes_stay_sliced() -> None:
    model = Function(lambda x: torch.cat([x[:, :, 0::2], x[:, :, 1::2]], -1)).eval()
    length = torch.export.Dim("length", min=1, max=8)
    lowered = penstock.lower(model, (torch.randn(2, 4, 6, 3),), dynamic_shapes=({1: length},))
    program = penstock.load(lowered.to_bytes())
    for size in (4, 7):
        x = torch.randn(2, size, 6, 3)
        (actual,) = program(x)
        np.testing.assert_allclose(actual, model(x).detach().numpy(), atol=1e-6)


# --- what is one, and what only looks like it ----------------------------------------------------


def test_factors_may_come_in_another_order() -> None:
    sketch = Pieces(*INT8)
    x = sketch.start(4, 3, 2)
    graph = sketch.finish(sketch.join(sketch.rows(x, 0, 2, 1, 3), 0))
    assert found(graph) == [RESHAPE, TRANSPOSE, RESHAPE]


def test_halves_are_factors() -> None:
    sketch = Pieces()
    x = sketch.start(6, 5)
    halves = [sketch.take(x, 0, start, 3) for start in (0, 3)]
    assert found(sketch.finish(sketch.join(halves, 1))) == [RESHAPE, TRANSPOSE, RESHAPE]


@pytest.mark.parametrize(
    ("rows", "axis"),
    [((1, 0, 2, 3), 0), ((3, 2, 1, 0), 1), ((0, 1, 2), 1), ((0, 1, 2, 2), 1), ((0, 0, 1, 1), 0),
     ((0, 3, 1, 2), 0), ((0, 1, 2, 3, 0), 0)],
)  # fmt: skip
def test_other_selections_stay(rows: Sequence[int], axis: int) -> None:
    sketch = Pieces()
    x = sketch.start(4, 3, 2)
    graph = sketch.finish(sketch.join(sketch.rows(x, *rows), axis))
    assert SLICE in found(graph)
    assert TRANSPOSE not in found(graph)


def test_pieces_of_two_sources_stay() -> None:
    sketch = Pieces()
    x, y = sketch.start(2, 3), sketch.start(2, 3)
    parts = [sketch.take(x, 0, 0), sketch.take(y, 0, 1)]
    assert found(sketch.finish(sketch.join(parts, 1))).count(SLICE) == 2


def test_parts_of_different_size_stay() -> None:
    sketch = Pieces()
    x = sketch.start(6, 4)
    parts = [sketch.take(x, 0, start, size) for start, size in ((0, 2), (2, 4))]
    assert found(sketch.finish(sketch.join(parts, 0))).count(SLICE) == 2


def test_pieces_that_lie_differently_stay() -> None:
    sketch = Pieces()
    x = sketch.start(2, 3, 3)
    first, second = (sketch.reshape(row, 3, 3) for row in sketch.rows(x, 0, 1))
    graph = sketch.finish(sketch.join([first, sketch.transpose(second, (1, 0))], 0))
    assert found(graph).count(SLICE) == 2


@pytest.mark.parametrize("is_output", [True, False])
def test_what_is_read_by_others_is_sliced_anyway(is_output: bool) -> None:
    sketch = Pieces()
    x = sketch.start(3, 2, 4)
    parts = sketch.rows(x, 0, 1, 2)
    joined = sketch.join(parts, 2)
    extra = parts[1] if is_output else sketch.apply(NodeKind.ABS, (parts[1],), (1, 2, 4))
    assert found(sketch.finish(joined, extra)).count(SLICE) == 3


def test_parts_put_back_are_the_whole() -> None:
    sketch = Pieces()
    x = sketch.apply(NodeKind.ABS, (sketch.start(3, 2, 4),), (3, 2, 4))
    parts = sketch.rows(x, 0, 1, 2)
    whole = sketch.apply(NodeKind.NEGATE, (sketch.join(parts, 0),), (3, 2, 4))
    part = sketch.apply(NodeKind.ABS, (parts[1],), (1, 2, 4))
    left = found(sketch.finish(whole, part))
    assert sorted(left) == sorted([NodeKind.ABS, NodeKind.NEGATE, SLICE, NodeKind.ABS])


def test_an_output_keeps_a_node() -> None:
    sketch = Pieces()
    x = sketch.start(3, 2, 4)
    assert found(sketch.finish(sketch.join(sketch.rows(x, 0, 1, 2), 0)))


@st.composite
def merges(draw: st.DrawFn) -> tuple[XnnGraph, bool]:
    """Slices at all indices of some factors of a source, joined in an order of the factors, or in
    any (then False)."""
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=2, max_size=5))
    places = [place for place, size in enumerate(sizes) if size > 1]
    taken = draw(st.permutations(places))[: draw(st.integers(1, 3))]
    while math.prod(sizes[place] for place in taken) > 16:
        taken = taken[:-1]
    indices = list(itertools.product(*(range(sizes[place]) for place in taken)))
    in_order = draw(st.booleans()) or not taken
    if not in_order:
        indices = draw(st.permutations(indices))
    sketch = Pieces(*INT8) if draw(st.booleans()) else Pieces()
    split = draw(st.integers(1, len(sizes)))
    x = sketch.start(math.prod(sizes[:split]), *sizes[split:])
    wide = sketch.reshape(x, *sizes)
    turned = draw(st.permutations(range(len(sizes))))
    rest = [size for place, size in enumerate(sizes) if place not in taken] or [1]
    cuts = draw(st.permutations(taken))
    parts = []
    for index in indices:
        part = sketch.reshape(x, *sizes) if draw(st.booleans()) else wide
        for place in cuts:
            part = sketch.take(part, place, index[taken.index(place)])
        parts.append(sketch.reshape(sketch.transpose(part, turned), math.prod(rest)))
    shape = draw(st.sampled_from([[math.prod(rest)], [1, math.prod(rest)]]))
    parts = [sketch.reshape(part, *shape) for part in parts]
    joined = sketch.join(parts, draw(st.integers(0, len(shape) - 1)))
    last = sketch.transpose(sketch.reshape(joined, 1, len(parts) * math.prod(rest)), (1, 0))
    return sketch.finish(last), in_order and len(parts) > 1


@settings(max_examples=60, deadline=None)
@given(merges())
def test_any_merge_moves_the_same(drawn: tuple[XnnGraph, bool]) -> None:
    graph, whole = drawn
    left = kinds(after(graph, slices_to_transpose.apply, tolerance=0.0))
    if whole:
        assert SLICE not in left
        assert left[TRANSPOSE] <= 2  # the last one is not of the merge
