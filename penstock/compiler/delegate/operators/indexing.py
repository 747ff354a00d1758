"""Selection by constant indices, and repetition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering import gather
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import (
    FLOATS,
    float_data,
    has_dimensions,
    rank_fits,
)
from penstock.compiler.delegate.operators.registry import Shared, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments, as_list

aten = torch.ops.aten

#: Constant integers beside float data.
WITH_INDICES = (float_data, rank_fits, has_dimensions)


def computes_indices(node: Node) -> bool:
    """Whether an index that ``node`` takes is computed at run time."""
    named = arguments(node)
    indices = named.get("indices", named.get("index"))
    return any(
        isinstance(item, Node) and item.op != "get_attr"
        for item in (indices if isinstance(indices, (list, tuple)) else [indices])
    )


def _constant_indices(node: Node) -> str | None:
    """Constant indices."""
    if computes_indices(node):
        return "its indices are computed at run time, XNNPACK picks from fixed places"
    return None


def _no_masks(node: Node) -> str | None:
    """No masks."""
    for item in arguments(node)["indices"]:
        if item is not None and item.meta["val"].dtype in (torch.bool, torch.uint8):
            return "it selects by a mask, so its size depends on values; XNNPACK has no such sizes"
    return None


def integers(b: GraphBuilder, argument: Node) -> torch.Tensor:
    constant = b.integer_constant(argument).constant
    assert constant is not None
    return constant


@operator(
    "index_select", aten.index_select.default, constraints=(_constant_indices, *WITH_INDICES),
    quantization=Shared(),
)  # fmt: skip
def lower_index_select(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["self"])
    indices = integers(b, named["index"]).reshape(-1).numpy()
    return gather.take(b, x, named["dim"] % x.rank, indices)


@operator(
    "index", aten.index.Tensor, constraints=(_no_masks, _constant_indices, *WITH_INDICES),
    quantization=Shared(), notes="where the indices are regular enough for slices",
)  # fmt: skip
def lower_index(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    where: list[tuple[int, torch.Tensor]] = []
    dim = 0
    for item in arguments(node)["indices"]:
        if item is None:
            dim += 1
            continue
        where.append((dim, integers(b, item)))
        dim += 1
    return index_dims(b, x, [d for d, _ in where], [i for _, i in where])


def index_dims(
    b: GraphBuilder, x: Tensor, dims: Sequence[int], indices: Sequence[torch.Tensor]
) -> Tensor:
    """``x[..., i, ..., j, ...]`` by PyTorch's rules: the indices' common shape stands where they
    stood, or in front where they were apart."""
    common = torch.broadcast_tensors(*indices)
    extents = [x.shape[dim] for dim in dims]
    if not all(isinstance(extent, int) for extent in extents):
        raise LoweringError("it selects from a dynamic dimension")
    adjacent = list(dims) == list(range(dims[0], dims[0] + len(dims)))
    place = dims[0] if adjacent else 0
    if not adjacent:
        x = b.permute(x, [*dims, *(dim for dim in range(x.rank) if dim not in dims)])
    flat = torch.zeros_like(common[0])
    for index, extent in zip(common, extents, strict=True):
        flat = flat * extent + index % extent
    merged = math.prod(extents)
    front, back = x.shape[:place], x.shape[place + len(dims) :]
    taken = gather.take(b, b.reshape(x, (*front, merged, *back)), place, flat.reshape(-1).numpy())
    return b.reshape(taken, (*front, *flat.shape, *back))


@operator(
    "gather", aten.gather.default, aten.take_along_dim.default,
    constraints=(_constant_indices, *WITH_INDICES), quantization=Shared(),
    notes="where the indices are regular enough for slices",
)  # fmt: skip
def lower_gather(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    index = integers(b, named["index"] if "index" in named else named["indices"])
    target = layout.shape_of(node.meta["val"])
    if named["dim"] is None:
        x = b.reshape(x, (layout.product(x.shape),))
        return gather.take(b, x, 0, index.reshape(-1).numpy())
    dim = named["dim"] % x.rank
    along_dim = torch.moveaxis(index, dim, 0).reshape(index.shape[dim], -1)
    same_elsewhere = bool((along_dim == along_dim[:, :1]).all())
    others_whole = all(d == dim or layout.same(target[d], size) for d, size in enumerate(x.shape))
    if same_elsewhere and others_whole:
        return gather.take(b, x, dim, along_dim[:, 0].numpy())
    if not layout.is_static(x.shape) or not layout.is_static(target):
        raise LoweringError("it gathers from a dynamic shape")
    shape = [int(size) for size in target]
    grid = list(torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij"))
    grid[dim] = index.expand(shape) % x.shape[dim]
    return index_dims(b, x, list(range(x.rank)), grid)


# --- turning around ----------------------------------------------------------------------------


@operator("flip", aten.flip.default, constraints=FLOATS, quantization=Shared())
def lower_flip(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    for dim in arguments(node)["dims"] if x.rank else ():
        x = gather.flip(b, x, dim % x.rank)
    return x


@operator("roll", aten.roll.default, constraints=FLOATS, quantization=Shared())
def lower_roll(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    shifts, dims = as_list(named["shifts"]), as_list(named["dims"])
    if any(isinstance(shift, Node) for shift in shifts):
        raise LoweringError("how far it rolls is computed at run time")
    if not dims:
        flat = b.reshape(x, (layout.product(x.shape),))
        return b.reshape(gather.roll(b, flat, {0: shifts[0]}), x.shape)
    totals: Counter[int] = Counter()
    for shift, dim in zip(shifts, dims, strict=True):
        totals[dim % x.rank] += shift
    return gather.roll(b, x, totals)


# --- repetition --------------------------------------------------------------------------------


@operator(
    "repeat", aten.repeat.default, aten.tile.default, constraints=FLOATS, quantization=Shared(),
)  # fmt: skip
def lower_repeat(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    times = list(named["repeats"] if "repeats" in named else named["dims"])
    times = [1] * (x.rank - len(times)) + times
    x = b.reshape(x, (*(1,) * (len(times) - x.rank), *x.shape))
    sizes = list(x.shape)
    for dim, count in enumerate(times):
        if not isinstance(count, int):
            if x.shape[dim] != 1:
                raise LoweringError("how often it repeats is computed at run time")
            sizes[dim], times[dim] = layout.shape_of(node.meta["val"])[dim], 1
    if sizes != list(x.shape):
        x = b.expand(x, tuple(sizes))
    # From the last dimension on: what is copied stays small the longest.
    for dim in range(x.rank - 1, -1, -1):
        x = gather.repeat_all(b, x, dim, times[dim])
    return x


@operator(
    "repeat_interleave", aten.repeat_interleave.self_int, constraints=FLOATS,
    quantization=Shared(),
)  # fmt: skip
def lower_repeat_interleave(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    if not isinstance(named["repeats"], int):
        raise LoweringError("how often it repeats is computed at run time")
    if named["dim"] is None:
        x = b.reshape(x, (layout.product(x.shape),))
    dim = 0 if named["dim"] is None else named["dim"] % x.rank
    return gather.repeat_each(b, x, dim, named["repeats"])


# --- diagonals, triangles ----------------------------------------------------------------------


@operator("diagonal", aten.diagonal.default, constraints=FLOATS, quantization=Shared())
def lower_diagonal(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(node.args[0])
    first, second = named["dim1"] % x.rank, named["dim2"] % x.rank
    rest = [dim for dim in range(x.rank) if dim not in (first, second)]
    x = b.permute(x, [*rest, first, second])
    rows, columns = x.shape[-2:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise LoweringError("its diagonal has a dynamic size")
    places = torch.arange(rows * columns).view(rows, columns).diagonal(named["offset"]).numpy()
    flat = b.reshape(x, (*x.shape[:-2], rows * columns))
    return gather.take(b, flat, flat.rank - 1, places)


@operator("triangle", aten.tril.default, aten.triu.default, constraints=FLOATS)
def lower_triangle(b: GraphBuilder, node: Node) -> Tensor:
    """Bounds of infinity keep an element, bounds of zero make it zero, infinite or not."""
    named = arguments(node)
    x = b.tensor(node.args[0])
    rows, columns = x.shape[-2:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise LoweringError("its triangle has a dynamic size")
    ones = torch.ones(rows, columns)
    triangle = torch.tril if node.target is aten.tril.default else torch.triu
    keep = triangle(ones, named["diagonal"]) > 0
    upper = torch.zeros(rows, columns).masked_fill(keep, math.inf)
    return ex.bounded(b, x, b.constant(-upper), b.constant(upper))
