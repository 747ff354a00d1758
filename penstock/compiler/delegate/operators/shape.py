"""Operators that move or select values: views, permutations, slices, concatenation."""

from __future__ import annotations

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import ends, gather
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS
from penstock.compiler.delegate.operators.ranges import joined_with_constants
from penstock.compiler.delegate.operators.registry import Shared, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.layout import Dim

aten = torch.ops.aten


@operator(
    "reshape",
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.view_copy.default,
    aten.reshape_as.default,
    aten.view_as.default,
    constraints=FLOATS,
    quantization=Shared(),
    notes="a change of shape; costs nothing where the memory order allows it",
)
def lower_reshape(b: GraphBuilder, node: Node) -> Tensor:
    return b.reshape(b.tensor(node.args[0]), layout.shape_of(node.meta["val"]))


@operator("permute", aten.permute.default, constraints=FLOATS, quantization=Shared())
def lower_permute(b: GraphBuilder, node: Node) -> Tensor:
    return b.permute(b.tensor(node.args[0]), arguments(node)["dims"])


@operator(
    "transpose",
    aten.transpose.int,
    aten.swapaxes.default,
    aten.swapdims.default,
    constraints=FLOATS,
    quantization=Shared(),
)
def lower_transpose(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    first, second = (int(dim) % max(x.rank, 1) for dim in node.args[1:3])  # type: ignore[arg-type]
    dims = list(range(x.rank))
    if dims:
        dims[first], dims[second] = second, first
    return b.permute(x, dims)


@operator(
    "t", aten.t.default, aten.numpy_T.default, aten.mT.default,
    constraints=FLOATS, quantization=Shared(),
)  # fmt: skip
def lower_t(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    dims = list(range(x.rank))
    if node.target is aten.mT.default:
        dims[-2:] = dims[:-3:-1]
    else:
        dims.reverse()
    return b.permute(x, dims)


@operator("movedim", aten.movedim.int, aten.movedim.intlist, constraints=FLOATS)
def lower_movedim(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    named = arguments(node)
    source, target = (
        [dim % max(x.rank, 1) for dim in (dims if isinstance(dims, (list, tuple)) else [dims])]
        for dims in (named["source"], named["destination"])
    )
    if not x.rank:
        return x
    dims: list[int | None] = [None] * x.rank
    for origin, place in zip(source, target, strict=True):
        dims[place] = origin
    rest = iter(d for d in range(x.rank) if d not in source)
    return b.permute(x, [next(rest) if d is None else d for d in dims])


@operator(
    "expand", aten.expand.default, aten.broadcast_to.default, aten.expand_as.default,
    constraints=FLOATS,
)  # fmt: skip
def lower_expand(b: GraphBuilder, node: Node) -> Tensor:
    return b.expand(b.tensor(node.args[0]), layout.shape_of(node.meta["val"]))


@operator(
    "cat", aten.cat.default, aten.concat.default, aten.concatenate.default,
    constraints=FLOATS, quantization=Shared(), special_rule=joined_with_constants,
)  # fmt: skip
def lower_cat(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    tensors = [b.tensor(item) for item in named["tensors"]]
    tensors = [t for t in tensors if t.shape != (0,)]
    return ex.concatenate(b, tensors, named["dim"])


@operator(
    "stack", aten.stack.default, constraints=FLOATS, quantization=Shared(),
    special_rule=joined_with_constants,
)  # fmt: skip
def lower_stack(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    tensors = [b.tensor(item) for item in named["tensors"]]
    dim = named["dim"] % (tensors[0].rank + 1)
    wide = [b.reshape(t, (*t.shape[:dim], 1, *t.shape[dim:])) for t in tensors]
    return ex.concatenate(b, wide, dim)


@operator("slice", aten.slice.Tensor, constraints=FLOATS, quantization=Shared())
def lower_slice(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["self"])
    dim = named["dim"] % x.rank
    start, step = named["start"] or 0, named["step"]
    size = layout.shape_of(node.meta["val"])[dim]
    if isinstance(start, Node):
        return _from_computed(b, x, dim, start, size, step)
    extent = x.shape[dim]
    if start < 0:
        if not isinstance(extent, int):
            return _from_the_end(b, x, dim, -start, size, step)
        start = max(0, start + extent)
    return gather.strided(b, x, dim, start, size, step)


def _from_computed(
    b: GraphBuilder, x: Tensor, dim: int, start: Node, size: Dim, step: int
) -> Tensor:
    value = start.meta["val"]
    if step != 1 or not isinstance(value, torch.SymInt):
        raise LoweringError("its start is computed at run time")
    return ends.part(b, x, dim, layout.dim_of(value), size)


def _from_the_end(
    b: GraphBuilder, x: Tensor, dim: int, distance: int, size: Dim, step: int
) -> Tensor:
    """``size`` indices from ``distance`` before the end of a dynamic dimension on."""
    if not isinstance(size, int):
        raise LoweringError("it counts from the end of a dimension that may be shorter")
    distances = [distance - place * step for place in range(size)]
    pieces = ends.last_ones(b, x, dim, distances[::-1])
    return ex.concatenate(b, pieces[::-1], dim)


@operator("narrow", aten.narrow.default, constraints=FLOATS, quantization=Shared())
def lower_narrow(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["self"])
    dim = named["dim"] % x.rank
    size = layout.shape_of(node.meta["val"])[dim]
    if isinstance(named["start"], Node):
        return _from_computed(b, x, dim, named["start"], size, 1)
    start = int(named["start"])
    if start < 0 and not isinstance(x.shape[dim], int):
        return _from_the_end(b, x, dim, -start, size, 1)
    return ends.part(b, x, dim, start, size)


@operator("select", aten.select.int, constraints=FLOATS, quantization=Shared())
def lower_select(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["self"])
    dim = named["dim"] % x.rank
    index, extent = named["index"], x.shape[dim]
    if isinstance(index, Node):
        raise LoweringError("its index is computed at run time")
    if index < 0 and not isinstance(extent, int):
        piece = ends.from_end(b, x, dim, -index)
    else:
        piece = ex.cut(b, x, dim, index + extent if index < 0 else index, 1)
    return b.reshape(piece, (*x.shape[:dim], *x.shape[dim + 1 :]))


@operator(
    "split", aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default,
    aten.unbind.int, aten.tensor_split.sections, aten.split.sizes,
    aten.unsafe_chunk.default, aten.unsafe_split.Tensor,
    constraints=FLOATS, quantization=Shared(),
)  # fmt: skip
def lower_split(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    named = arguments(node)
    x = b.tensor(named["self"])
    dim = named["dim"] % x.rank
    pieces: list[Tensor] = []
    start: Dim = 0
    for value in node.meta["val"]:
        shape = layout.shape_of(value)
        unbound = len(shape) < x.rank
        size = 1 if unbound else shape[dim]
        piece = ends.part(b, x, dim, start, size)
        pieces.append(b.reshape(piece, shape) if unbound else piece)
        start = layout.canonical(start + size)
    return tuple(pieces)
