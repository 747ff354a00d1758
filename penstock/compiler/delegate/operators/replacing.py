"""What puts values in the place of others, at places that are known at compile time."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.index_plan import Indices
from penstock.compiler.delegate.lowering.replacing import (
    extent_of,
    replaced_at,
    replaced_every,
)
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import (
    FLOATS,
    float_data,
    has_dimensions,
    rank_fits,
)
from penstock.compiler.delegate.operators.indexing import computes_indices, integers
from penstock.compiler.delegate.operators.ranges import joined_with_constants
from penstock.compiler.delegate.operators.registry import Constraint, Shared, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.layout import Shape

aten = torch.ops.aten


# --- slices ------------------------------------------------------------------------------------


@operator(
    "slice_scatter", aten.slice_scatter.default, aten.select_scatter.default, constraints=FLOATS,
    quantization=Shared((0, 1)), special_rule=joined_with_constants,
)  # fmt: skip
def lower_slice_scatter(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x, source = b.tensor(node.args[0]), b.tensor(node.args[1])
    dim = named["dim"] % x.rank
    extent = extent_of(x, dim)
    if any(isinstance(named.get(place), Node) for place in ("start", "end", "index")):
        raise LoweringError("it replaces a part whose place is computed")
    if node.target is aten.select_scatter.default:
        start, step, count = named["index"] % extent, 1, 1
        source = b.reshape(source, (*x.shape[:dim], 1, *x.shape[dim + 1 :]))
    else:
        start, end, step = slice(named["start"], named["end"], named["step"]).indices(extent)
        count = len(range(start, end, step))
    return replaced_every(b, x, dim, start, count, step, source)


@operator(
    "diagonal_scatter", aten.diagonal_scatter.default, constraints=FLOATS,
    quantization=Shared((0, 1)), special_rule=joined_with_constants,
)  # fmt: skip
def lower_diagonal_scatter(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x, source = b.tensor(node.args[0]), b.tensor(node.args[1])
    first, second = named["dim1"] % x.rank, named["dim2"] % x.rank
    order = [*(dim for dim in range(x.rank) if dim not in (first, second)), first, second]
    moved = b.permute(x, order)
    rows, columns = extent_of(moved, moved.rank - 2), extent_of(moved, moved.rank - 1)
    places = torch.arange(rows * columns).view(rows, columns).diagonal(named["offset"])
    flat = b.reshape(moved, (*moved.shape[:-2], rows * columns))
    put = replaced_at(b, flat, flat.rank - 1, places.numpy(), source)
    return b.permute(b.reshape(put, moved.shape), layout.inverse(tuple(order)))


# --- constant indices --------------------------------------------------------------------------


def _constant_places(node: Node) -> str | None:
    """Constant indices, nothing added up."""
    if computes_indices(node):
        return "its indices are computed at run time, XNNPACK writes to fixed places"
    if arguments(node).get("accumulate"):
        return "it adds up what goes to one place, XNNPACK has no node for that"
    return None


PLACES: tuple[Constraint, ...] = (_constant_places, float_data, rank_fits, has_dimensions)


@operator("index_copy", aten.index_copy.default, constraints=PLACES)
def lower_index_copy(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    places = integers(b, named["index"]).reshape(-1).numpy()
    return replaced_at(b, x, named["dim"] % x.rank, places, b.tensor(named["source"]))


@operator(
    "index_fill", aten.index_fill.int_Scalar, aten.index_fill.int_Tensor, constraints=PLACES,
)  # fmt: skip
def lower_index_fill(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    if x.rank == 0:
        raise LoweringError("it fills a number, which has no dimension")
    dim = named["dim"] % x.rank
    # An index may be given more often than once: all its places get the same number.
    places = np.unique(integers(b, named["index"]).reshape(-1).numpy() % extent_of(x, dim))
    taken = (*x.shape[:dim], len(places), *x.shape[dim + 1 :])
    return _put(b, x, dim, places, b.tensor(named["value"]), taken)


@operator(
    "index_put", aten.index_put.default, constraints=PLACES,
    notes="where the indices are regular enough for slices",
)  # fmt: skip
def lower_index_put(b: GraphBuilder, node: Node) -> Tensor:
    x, value = b.tensor(node.args[0]), b.tensor(node.args[2])
    items: list[torch.Tensor | None] = []
    for item in arguments(node)["indices"]:
        items.extend([None] if item is None else _as_integers(integers(b, item)))
    dims = [dim for dim, item in enumerate(items) if item is not None]
    common = torch.broadcast_tensors(*(item for item in items if item is not None))
    extents = [extent_of(x, dim) for dim in dims]
    adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    place = dims[0] if adjacent else 0
    order = [*range(place), *dims, *(d for d in range(place, x.rank) if d not in dims)]
    moved = b.permute(x, order)
    flat = torch.zeros_like(common[0])
    for index, extent in zip(common, extents, strict=True):
        flat = flat * extent + index % extent
    front, back = moved.shape[:place], moved.shape[place + len(dims) :]
    merged = b.reshape(moved, (*front, math.prod(extents), *back))
    taken = (*front, flat.numel(), *back)
    if not _is_number(value):
        value = b.reshape(b.expand(value, (*front, *flat.shape, *back)), taken)
    put = _put(b, merged, place, flat.reshape(-1).numpy(), value, taken)
    return b.permute(b.reshape(put, moved.shape), layout.inverse(tuple(order)))


@operator(
    "scatter", aten.scatter.src, aten.scatter.value, constraints=PLACES,
    notes="where the indices are regular enough for slices",
)  # fmt: skip
def lower_scatter(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    source = b.tensor(named["src"] if "src" in named else named["value"])
    index = integers(b, named["index"])
    if not layout.is_static(x.shape):
        raise LoweringError("it writes to a tensor of dynamic shape")
    shape = [int(size) for size in x.shape]
    if index.dim() == 0 or index.numel() == 0:
        raise LoweringError("it writes nowhere, or to a number")
    grid = list(torch.meshgrid(*(torch.arange(size) for size in index.shape), indexing="ij"))
    grid[named["dim"] % x.rank] = index
    places = torch.zeros_like(index)
    for coordinates, size in zip(grid, shape, strict=True):
        places = places * size + coordinates
    if not _is_number(source):
        source = ex.slice_dims(b, source, [0] * source.rank, list(index.shape))
        source = b.reshape(source, (index.numel(),))
    flat = b.reshape(x, (math.prod(shape),))
    put = _put(b, flat, 0, places.reshape(-1).numpy(), source, (index.numel(),))
    return b.reshape(put, x.shape)


def _as_integers(index: torch.Tensor) -> list[torch.Tensor]:
    """An index, or for a mask those of its dimensions."""
    if index.dtype in (torch.bool, torch.uint8):
        return list(index.nonzero().unbind(1))
    return [index]


def _is_number(tensor: Tensor) -> bool:
    """One constant for all places."""
    return tensor.constant is not None and tensor.constant.numel() == 1


def _put(
    b: GraphBuilder, x: Tensor, dim: int, places: Indices, value: Tensor, shape: Shape
) -> Tensor:
    """``x`` with ``value`` of ``shape``, or a number, at the ``places`` of ``dim``. (Bounds that
    put a number there would need no slices, but keep what is not a number.)"""
    if _is_number(value):
        value = b.expand(b.reshape(value, ()), shape)
    return replaced_at(b, x, dim, places, value)
