"""Normalization: over the last dimensions, over groups of channels, by known statistics.

Everywhere the variance is the mean of the squared differences from the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering import extremes, reductions
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS, argument_is, constant
from penstock.compiler.delegate.operators.convolution import convolve
from penstock.compiler.delegate.operators.elementwise import power
from penstock.compiler.delegate.operators.registry import operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.batch_norm import batch_norm_affine
from penstock.graph.kinds import NodeKind

aten = torch.ops.aten


def _optional(b: GraphBuilder, argument: object) -> Tensor | None:
    return None if argument is None else b.tensor(argument)


def scaled_and_shifted(
    b: GraphBuilder, x: Tensor, scale: Tensor | None, shift: Tensor | None
) -> Tensor:
    """``x * scale + shift``; a constant scale of ones and a shift of zeros cost nothing."""
    if scale is not None and not _is_filled_with(scale, 1.0):
        x = ex.multiply(b, x, scale)
    if shift is not None and not _is_filled_with(shift, 0.0):
        x = ex.add(b, x, shift)
    return x


def _is_filled_with(tensor: Tensor, value: float) -> bool:
    return tensor.constant is not None and bool((tensor.real() == value).all())


def reciprocal_deviation(b: GraphBuilder, variance: Tensor, eps: float) -> Tensor:
    """``1 / sqrt(variance + eps)``."""
    return b.unary(NodeKind.RECIPROCAL_SQUARE_ROOT, ex.affine(b, variance, 1.0, eps))


def standardized(b: GraphBuilder, x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """``(x - mean) / sqrt(variance + eps)``, the statistics taken over ``dims``."""
    centred = ex.subtract(b, x, reductions.mean(b, x, dims, True))
    squares = b.unary(NodeKind.SQUARE, centred)
    variance = reductions.mean(b, squares, dims, True)
    return ex.multiply(b, centred, reciprocal_deviation(b, variance, eps))


def _innermost(b: GraphBuilder, x: Tensor, dims: Sequence[int]) -> Tensor:
    """``x`` with ``dims`` innermost in memory, in any order among themselves: there a mean is a
    product, many times quicker than pooling."""
    x = b.dense(x)
    sequence = layout.memory_sequence(x.shape, x.order)
    reduced = [dim for dim in sequence if dim in dims]
    if list(sequence[len(sequence) - len(reduced) :]) == reduced:
        return b.place(x)
    kept = [dim for dim in x.order if dim not in dims]
    return b.place(x, (*kept, *(dim for dim in x.order if dim in dims)))


@operator(
    "layer_norm", aten.layer_norm.default, constraints=FLOATS,
    notes="means by products with a row of 1/N, squared differences, reciprocal square root",
)  # fmt: skip
def lower_layer_norm(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["input"])
    dims = list(range(x.rank - len(named["normalized_shape"]), x.rank))
    weight, bias = _optional(b, named["weight"]), _optional(b, named["bias"])
    result = standardized(b, _innermost(b, x, dims), dims, float(named["eps"]))
    return scaled_and_shifted(b, result, weight, bias)


@operator("rms_norm", aten.rms_norm.default, constraints=FLOATS)
def lower_rms_norm(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["input"])
    dims = list(range(x.rank - len(named["normalized_shape"]), x.rank))
    eps = torch.finfo(torch.float32).eps if named["eps"] is None else float(named["eps"])
    x = _innermost(b, x, dims)
    power = reductions.mean(b, b.unary(NodeKind.SQUARE, x), dims, True)
    result = ex.multiply(b, x, reciprocal_deviation(b, power, eps))
    return scaled_and_shifted(b, result, _optional(b, named["weight"]), None)


# --- groups of channels ------------------------------------------------------------------------


def _per_channel(b: GraphBuilder, values: Tensor | None, rank: int) -> Tensor | None:
    """[C] as [1, C, 1, ...]."""
    if values is None:
        return None
    return b.reshape(values, (1, *values.shape, *(1,) * (rank - 2)))


@operator("group_norm", aten.group_norm.default, constraints=FLOATS)
def lower_group_norm(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    weight, bias = _optional(b, named["weight"]), _optional(b, named["bias"])
    return group_norm(
        b, b.tensor(named["input"]), int(named["num_groups"]), weight, bias, float(named["eps"])
    )


def group_norm(
    b: GraphBuilder,
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Group norm of [N, C, ...] over each of ``groups`` runs of channels and all places."""
    x = b.dense(x)
    scale, shift = _per_channel(b, weight, x.rank), _per_channel(b, bias, x.rank)
    channels = x.shape[1]
    if not isinstance(channels, int):
        raise LoweringError("its number of channels is dynamic")
    sequence = layout.memory_sequence(x.shape, x.order)
    channels_last = len(sequence) > 1 and sequence[-1] == 1
    if groups == 1 or (x.rank == 2 and groups < channels) or not channels_last:
        if groups == channels:
            normal = standardized(b, x, list(range(2, x.rank)), eps)
        else:
            split = b.reshape(x, (x.shape[0], groups, channels // groups, *x.shape[2:]))
            dims = list(range(2, split.rank))
            normal = b.reshape(standardized(b, split, dims, eps), x.shape)
        return scaled_and_shifted(b, normal, scale, shift)
    # Channels innermost: over the places by pooling, then over each group's channels by a product
    # with a row, whose result is written once for each of them.
    centred = ex.subtract(b, x, _group_mean(b, x, groups))
    variance = _group_mean(b, b.unary(NodeKind.SQUARE, centred), groups)
    factor = reciprocal_deviation(b, variance, eps)
    if scale is not None:
        factor = ex.multiply(b, factor, scale)
    return scaled_and_shifted(b, ex.multiply(b, centred, factor), None, shift)


def _group_mean(b: GraphBuilder, x: Tensor, groups: int) -> Tensor:
    """The mean of each group of channels over all places, for each channel: [N, C, 1, ...]."""
    places = reductions.mean(b, x, list(range(2, x.rank)), True)
    channels = x.shape[1]
    assert isinstance(channels, int)
    if groups == channels:
        return places
    size = channels // groups
    rows = b.reshape(places, (x.shape[0], groups, size))
    means = ex.linear(b, rows, b.full((1, size), 1.0 / size), None)
    return b.reshape(ex.multiply(b, means, b.full((size,), 1.0)), places.shape)


@operator(
    "instance_norm", aten.instance_norm.default,
    constraints=(*FLOATS, constant("running_mean"), constant("running_var")),
)  # fmt: skip
def lower_instance_norm(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["input"])
    if not named["use_input_stats"]:
        return known_statistics(b, x, named)
    weight, bias = _optional(b, named["weight"]), _optional(b, named["bias"])
    channels = x.shape[1]
    if not isinstance(channels, int):
        raise LoweringError("its number of channels is dynamic")
    return group_norm(b, x, channels, weight, bias, float(named["eps"]))


# --- known statistics --------------------------------------------------------------------------


@operator(
    "batch_norm", aten.batch_norm.default,
    constraints=(
        *FLOATS, argument_is("training", False),
        *(constant(name) for name in ("weight", "bias", "running_mean", "running_var")),
    ),
    notes="where it could not be folded into the layer before: a scale and a shift per channel",
)  # fmt: skip
def lower_batch_norm(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    if named["running_mean"] is None or named["running_var"] is None:
        raise LoweringError("it has no running statistics, its own are computed in training only")
    return known_statistics(b, b.tensor(named["input"]), named)


def known_statistics(b: GraphBuilder, x: Tensor, named: dict[str, object]) -> Tensor:
    """Batch norm with constant statistics: of images as a 1 x 1 depthwise convolution, which
    scales and shifts in one pass, of everything else as a product and a sum."""

    def values(name: str) -> torch.Tensor | None:
        return None if named[name] is None else b.tensor(named[name]).real()

    scale, shift = batch_norm_affine(
        values("weight"), values("bias"), values("running_mean"), values("running_var"),
        float(named["eps"]),  # type: ignore[arg-type]
    )  # fmt: skip
    if x.rank == 4:
        channels = int(scale.numel())
        weight, bias = b.constant(scale.view(-1, 1, 1, 1)), b.constant(shift)
        return convolve(b, x, weight, bias, (1, 1), ((0, 0), (0, 0)), (1, 1), channels)
    factor, term = (_per_channel(b, b.constant(t), max(x.rank, 2)) for t in (scale, shift))
    return scaled_and_shifted(b, x, factor, term)


# --- norms -------------------------------------------------------------------------------------


def power_norm(
    b: GraphBuilder, x: Tensor, order: float, dims: Sequence[int], keepdim: bool
) -> Tensor:
    """``(sum |x|^order)^(1 / order)``; the largest or smallest magnitude for infinite orders."""
    if order == 2.0:
        squares = reductions.total(b, b.unary(NodeKind.SQUARE, x), dims, keepdim)
        return extremes.square_root(b, squares)
    size = b.unary(NodeKind.ABS, x)
    if order == 1.0:
        return reductions.total(b, size, dims, keepdim)
    if order == math.inf:
        return reductions.max_over(b, size, dims, keepdim)
    if order == -math.inf:
        return reductions.min_over(b, size, dims, keepdim)
    if order <= 0.0:
        raise LoweringError(f"XNNPACK has no norm of order {order}")
    return power(b, reductions.total(b, power(b, size, order), dims, keepdim), 1.0 / order)


@operator(
    "norm", aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim, aten.norm.Scalar,
    constraints=FLOATS, notes="of positive orders, inf and -inf",
)  # fmt: skip
def lower_norm(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    order = named.get("ord", named.get("p"))
    x = b.tensor(node.args[0])
    dims = reductions.normalized(named.get("dim"), x.rank)
    keepdim = bool(named.get("keepdim", False))
    return power_norm(b, x, 2.0 if order is None else float(order), dims, keepdim)


#: The differences of all pairs are written out; more elements than this are too many.
MOST_DIFFERENCES = 1 << 22


@operator("cdist", aten.cdist.default, constraints=FLOATS, notes="the differences written out")
def lower_cdist(b: GraphBuilder, node: Node) -> Tensor:
    """[..., P, M] and [..., R, M] → [..., P, R]: norms of all differences."""
    left, right = b.tensor(node.args[0]), b.tensor(node.args[1])
    left = b.reshape(left, (*left.shape[:-1], 1, left.shape[-1]))
    right = b.reshape(right, (*right.shape[:-2], 1, *right.shape[-2:]))
    difference = ex.subtract(b, left, right)
    elements = layout.product([b.dynamic.upper(size) for size in difference.shape])
    if int(elements) > MOST_DIFFERENCES:
        raise LoweringError(
            f"it would keep {elements} differences in memory, at most {MOST_DIFFERENCES} are"
        )
    return power_norm(b, difference, float(arguments(node)["p"]), [difference.rank - 1], False)
