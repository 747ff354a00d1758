"""Reductions: extremes, spreads, products, logarithms of sums."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering import extremes, positions, reductions
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS, first_result_only, rank_fits
from penstock.compiler.delegate.operators.registry import operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.graph.kinds import NodeKind

aten = torch.ops.aten


def _over(b: GraphBuilder, node: Node) -> tuple[Tensor, list[int], bool]:
    """The input, the dimensions, and whether they are kept as ones."""
    named = arguments(node)
    x = b.tensor(node.args[0])
    return x, reductions.normalized(named.get("dim"), x.rank), bool(named.get("keepdim", False))


# --- extremes ----------------------------------------------------------------------------------


@operator("amax", aten.amax.default, aten.max.default, constraints=FLOATS)
def lower_amax(b: GraphBuilder, node: Node) -> Tensor:
    return reductions.max_over(b, *_over(b, node))


@operator("amin", aten.amin.default, aten.min.default, constraints=FLOATS)
def lower_amin(b: GraphBuilder, node: Node) -> Tensor:
    return reductions.min_over(b, *_over(b, node))


@operator(
    "max.dim", aten.max.dim, constraints=(first_result_only, rank_fits),
    notes="where the indices are not used",
)  # fmt: skip
def lower_max_dim(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    return (reductions.max_over(b, *_over(b, node)),)


@operator(
    "min.dim", aten.min.dim, constraints=(first_result_only, rank_fits),
    notes="where the indices are not used",
)  # fmt: skip
def lower_min_dim(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    return (reductions.min_over(b, *_over(b, node)),)


@operator("aminmax", aten.aminmax.default, constraints=FLOATS)
def lower_aminmax(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    x, dims, keepdim = _over(b, node)
    return (
        reductions.min_over(b, x, dims, keepdim),
        reductions.max_over(b, x, dims, keepdim),
    )


# --- spread ------------------------------------------------------------------------------------


def _correction(node: Node) -> float:
    """What is taken off the number of elements, in all the ways ATen has to say it."""
    named = arguments(node)
    if "correction" in named:
        return 1.0 if named["correction"] is None else float(named["correction"])
    return 1.0 if named["unbiased"] else 0.0


def variance(
    b: GraphBuilder, x: Tensor, dims: Sequence[int], keepdim: bool, correction: float
) -> tuple[Tensor, Tensor]:
    """The variance, as the mean of the squared differences from the mean, and the mean."""
    count = layout.product([x.shape[dim] for dim in dims])
    if isinstance(count, int) and count <= correction:
        raise LoweringError(f"a variance of {count} elements less {correction:g} is not a number")
    mean = reductions.mean(b, x, dims, True)
    squares = b.unary(NodeKind.SQUARE, ex.subtract(b, x, mean))
    result = reductions.mean(b, squares, dims, keepdim)
    if not keepdim:
        mean = b.reshape(mean, result.shape)
    if isinstance(count, int):
        return ex.affine(b, result, count / (count - correction), 0.0), mean
    if correction == 0:
        return result, mean
    number = ex.scalar(b, 1.0)
    for dim in dims:
        number = ex.multiply(b, number, positions.count(b, x.shape[dim]))
    factor = ex.divide(b, number, ex.affine(b, number, 1.0, -correction))
    factor = b.reshape(factor, (1,) * result.rank)
    return ex.multiply(b, result, factor), mean


@operator("var", aten.var.correction, aten.var.dim, aten.var.default, constraints=FLOATS)
def lower_var(b: GraphBuilder, node: Node) -> Tensor:
    return variance(b, *_over(b, node), _correction(node))[0]


@operator("std", aten.std.correction, aten.std.dim, aten.std.default, constraints=FLOATS)
def lower_std(b: GraphBuilder, node: Node) -> Tensor:
    return extremes.square_root(b, variance(b, *_over(b, node), _correction(node))[0])


@operator(
    "var_mean", aten.var_mean.correction, aten.var_mean.dim, aten.var_mean.default,
    constraints=FLOATS,
)  # fmt: skip
def lower_var_mean(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    return variance(b, *_over(b, node), _correction(node))


@operator(
    "std_mean", aten.std_mean.correction, aten.std_mean.dim, aten.std_mean.default,
    constraints=FLOATS,
)  # fmt: skip
def lower_std_mean(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    spread, mean = variance(b, *_over(b, node), _correction(node))
    return (extremes.square_root(b, spread), mean)


# --- logarithms of sums ------------------------------------------------------------------------


def shifted_log_sum(
    b: GraphBuilder, x: Tensor, dims: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``x - shift``, ``log(sum(exp(x - shift)))``, ``shift`` and ``max``, all with the dimensions
    kept. The shift is the maximum, or the number nearest to it."""
    most = reductions.max_over(b, x, dims, True)
    # A maximum of minus infinity (all masked) must not be subtracted from itself.
    low = torch.finfo(torch.float32).min
    shift = b.unary(NodeKind.CLAMP, most, None, (low, -low))
    shifted = ex.subtract(b, x, shift)
    # Differences are at most 0, powers at least: what is not a number stays, which is all of this.
    powers = b.binary(NodeKind.MAXIMUM, b.unary(NodeKind.EXP, shifted), shifted)
    total = reductions.total(b, powers, dims, True)
    return shifted, extremes.logarithm(b, total), shift, most


@operator("logsumexp", aten.logsumexp.default, constraints=FLOATS)
def lower_logsumexp(b: GraphBuilder, node: Node) -> Tensor:
    x, dims, keepdim = _over(b, node)
    _, log_sum, shift, _ = shifted_log_sum(b, x, dims)
    result = ex.add(b, log_sum, shift)
    return b.reshape(result, reductions.reduced_shape(x.shape, dims, keepdim))


@operator(
    "log_softmax", aten.log_softmax.int, aten._log_softmax.default, constraints=FLOATS,
    notes="x - max - log(sum(exp(x - max)))",
)  # fmt: skip
def lower_log_softmax(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    if x.rank == 0:
        return b.reshape(ex.subtract(b, x, x), ())
    shifted, log_sum, _, most = shifted_log_sum(b, x, [int(node.args[1]) % x.rank])  # type: ignore[arg-type]
    # A row whose maximum is infinite is not a number as a whole.
    return ex.subtract(b, shifted, extremes.nan_at_infinity(b, most, log_sum))


# --- products ----------------------------------------------------------------------------------

#: Halving takes three nodes for each doubling of the length.
LONGEST_PRODUCT = 4096


@operator("prod", aten.prod.dim_int, aten.prod.default, constraints=FLOATS)
def lower_prod(b: GraphBuilder, node: Node) -> Tensor:
    """One half times the other, until one is left."""
    x, dims, keepdim = _over(b, node)
    if len(dims) == x.rank and x.rank != 1:
        flat = b.reshape(x, (layout.product(x.shape),))
        return b.reshape(halved(b, flat, 0, NodeKind.MULTIPLY), ())
    result = halved(b, x, dims[0], NodeKind.MULTIPLY)
    return b.reshape(result, reductions.reduced_shape(x.shape, dims, keepdim))


def halved(b: GraphBuilder, x: Tensor, dim: int, kind: NodeKind) -> Tensor:
    """Dimension ``dim`` reduced to one index by an associative node of two inputs."""
    extent = x.shape[dim]
    if not isinstance(extent, int) or extent > LONGEST_PRODUCT:
        raise LoweringError(f"it multiplies {extent} elements, at most {LONGEST_PRODUCT} are")
    while extent > 1:
        half = extent // 2
        left, right = (ex.cut(b, x, dim, start, half) for start in (0, half))
        pieces = [b.binary(kind, left, right)]
        if extent % 2:
            pieces.append(ex.cut(b, x, dim, extent - 1, 1))
        x = ex.concatenate(b, pieces, dim)
        extent = half + extent % 2
    return x
