"""Running sums, products and extremes along an axis, and differences of neighbours."""

from __future__ import annotations

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import ends, positions
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS, first_result_only, rank_fits
from penstock.compiler.delegate.operators.registry import operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.layout import Dim
from penstock.graph.kinds import NodeKind

aten = torch.ops.aten


def _axis(b: GraphBuilder, node: Node) -> tuple[Tensor, int, Dim]:
    x = b.tensor(node.args[0])
    if x.rank == 0:
        return b.reshape(x, (1,)), 0, 1
    dim = int(arguments(node)["dim"]) % x.rank
    return x, dim, x.shape[dim]


def running(b: GraphBuilder, x: Tensor, dim: int, extent: Dim, kind: NodeKind) -> Tensor:
    """Every index combined with all before it: each step combines with what stands 1, 2, 4 …
    indices before."""
    if not isinstance(extent, int):
        return _running_dynamic(b, x, dim, extent, kind)
    reach = 1
    while reach < extent:
        head = ex.cut(b, x, dim, 0, reach)
        late = ex.cut(b, x, dim, reach, extent - reach)
        early = ex.cut(b, x, dim, 0, extent - reach)
        x = ex.concatenate(b, [head, b.binary(kind, late, early)], dim)
        reach *= 2
    return x


def _running_dynamic(b: GraphBuilder, x: Tensor, dim: int, extent: Dim, kind: NodeKind) -> Tensor:
    """The same along a dynamic dimension. Sums and extremes are windows of windows, products are
    doubling steps, with ones in front."""
    if kind is NodeKind.ADD:
        source = ends.picture(b, x, dim, static_channels=True)
        return source.restored(positions.running_sum(b, source).tensor)
    if kind is NodeKind.MAXIMUM:
        return ends.running_max(b, x, dim)
    if kind is NodeKind.MINIMUM:
        most = ends.running_max(b, b.unary(NodeKind.NEGATE, x), dim)
        return b.unary(NodeKind.NEGATE, most)
    pre = [0] * x.rank
    pre[dim] = 1
    while pre[dim] < b.dynamic.upper(extent):
        shifted = ex.pad_constant(b, x, pre, [0] * x.rank, 1.0)
        x = b.binary(kind, x, ends.without_last(b, shifted, dim, pre[dim]))
        pre[dim] *= 2
    return x


@operator("cumsum", aten.cumsum.default, constraints=FLOATS)
def lower_cumsum(b: GraphBuilder, node: Node) -> Tensor:
    """In doubling steps: a product with a triangular matrix would hand on infinities as zero times
    infinity, and is slower for most shapes."""
    x, dim, extent = _axis(b, node)
    result = running(b, x, dim, extent, NodeKind.ADD)
    return b.reshape(result, layout.shape_of(node.meta["val"]))


@operator("cumprod", aten.cumprod.default, constraints=FLOATS)
def lower_cumprod(b: GraphBuilder, node: Node) -> Tensor:
    x, dim, extent = _axis(b, node)
    result = running(b, x, dim, extent, NodeKind.MULTIPLY)
    return b.reshape(result, layout.shape_of(node.meta["val"]))


@operator(
    "cummax", aten.cummax.default, constraints=(first_result_only, rank_fits),
    notes="where the indices are not used",
)  # fmt: skip
def lower_cummax(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    x, dim, extent = _axis(b, node)
    result = running(b, x, dim, extent, NodeKind.MAXIMUM)
    return (b.reshape(result, layout.shape_of(node.meta["val"][0])),)


@operator(
    "cummin", aten.cummin.default, constraints=(first_result_only, rank_fits),
    notes="where the indices are not used",
)  # fmt: skip
def lower_cummin(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    x, dim, extent = _axis(b, node)
    result = running(b, x, dim, extent, NodeKind.MINIMUM)
    return (b.reshape(result, layout.shape_of(node.meta["val"][0])),)


@operator("diff", aten.diff.default, constraints=FLOATS, notes="without prepend and append")
def lower_diff(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    if named["prepend"] is not None or named["append"] is not None:
        raise LoweringError("it prepends or appends values, which is not composed")
    x, dim, extent = _axis(b, node)
    for _ in range(int(named["n"])):
        extent -= 1
        late, early = (ends.part(b, x, dim, start, extent) for start in (1, 0))
        x = ex.subtract(b, late, early)
    return x
