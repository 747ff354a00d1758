"""Materialize lazily broadcast tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import sympy
import torch
from torch.utils._sympy.functions import FloorDiv

from penstock.compiler.delegate.lowering import ends
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dim
from penstock.graph.dtypes import DataType
from penstock.graph.graph import FLAG_KEEP_DIMS
from penstock.graph.kinds import NodeKind, SliceAttributes

#: Multiples of sizes up to here are recognized.
MOST_TIMES = 64
#: So many zeros are added at once.
MOST_ZEROS = 4096


def written_out(b: GraphBuilder, tensor: Tensor) -> Tensor:
    """``tensor`` plus zeros of its full shape, negative ones: they change no number."""
    if tensor.constant is not None and layout.is_static(tensor.shape):
        return b.constant(b.full_constant(tensor))
    sizes: list[Dim] = [
        1 if layout.same(size, stored) else size
        for size, stored in zip(tensor.shape, tensor.stored, strict=True)
    ]
    result = replace(tensor, shape=tensor.stored)
    for dim, size in enumerate(sizes):
        if not isinstance(size, int):
            zeros = zeros_along(b, dim, size, tensor.rank)
            result = b.binary(NodeKind.ADD, result, zeros)
    static = [size if isinstance(size, int) else 1 for size in sizes]
    if math.prod(static) <= MOST_ZEROS:
        steps = [static]
    else:
        # Dimension by dimension, the innermost first: a line of zeros each.
        steps = [
            [size if place == dim else 1 for place, size in enumerate(static)]
            for dim in range(len(static) - 1, -1, -1)
        ]
    for step in steps:
        if set(step) != {1}:
            result = b.binary(NodeKind.ADD, result, b.full(step, -0.0))
    return result


def zeros_along(b: GraphBuilder, dim: int, size: Dim, rank: int) -> Tensor:
    """Zeros of the dynamic ``size`` in dimension ``dim``, of size 1 in the others: a line of some
    tensor that has such a dimension, bounded by zero from both sides. Its size is known when the
    program runs, and in no other way can XNNPACK be told one."""
    for found, position in _dynamic_dims(b):
        if layout.same(found.stored[position], size):
            return _zeroed(b, found, position, dim, rank)
    for found, position in _dynamic_dims(b):
        line = _derived(b, found, position, size)
        if line is not None:
            target = tuple(size if place == dim else 1 for place in range(rank))
            return b.reshape(line, target)
    raise LoweringError(f"it expands a tensor to the size {size}, which no other tensor has")


def _dynamic_dims(b: GraphBuilder) -> Iterator[tuple[Tensor, int]]:
    """Of inputs first: what is computed is sooner not a number, which nothing bounds."""
    placed = [found for found in b.placed_tensors() if found.value is not None]
    for found in sorted(placed, key=lambda item: not (item.value and item.value.is_input)):
        assert found.value is not None
        if found.value.dtype is DataType.FP32:
            for position, stored in enumerate(found.stored):
                if not isinstance(stored, int):
                    yield found, position


def _zeroed(b: GraphBuilder, found: Tensor, position: int, dim: int, rank: int) -> Tensor:
    line = _line(b, found, position)
    stored = found.stored[position]
    target = tuple(stored if place == dim else 1 for place in range(rank))
    zero = b.constant(torch.tensor(0.0))
    line = b.binary(NodeKind.MAXIMUM, b.reshape(line, target), zero)
    return b.binary(NodeKind.MINIMUM, line, zero)


def _derived(b: GraphBuilder, found: Tensor, position: int, size: Dim) -> Tensor | None:
    """Zeros [size], if that is a multiple of the dimension's size, more or less a constant, or
    the number of strides in it."""
    stored = found.stored[position]
    for times in range(1, MOST_TIMES + 1):
        rest = layout.canonical(size - times * stored)
        if isinstance(rest, int):
            line = _zeroed(b, found, position, 0, 1)
            return ex.pad_constant(
                b, ends.without_last(b, ex.concatenate(b, [line] * times, 0), 0, max(0, -rest)),
                [0], [max(0, rest)], 0.0,
            )  # fmt: skip
        if times > 1 and layout.same(layout.floor_divide(stored - 1, times) + 1, size):
            return ends.every(b, _zeroed(b, found, position, 0, 1), 0, times)
    terms = sympy.Add.make_args(size)
    fractions = [term for term in terms if isinstance(term, FloorDiv)]
    if len(fractions) != 1 or not isinstance(fractions[0].args[1], sympy.Integer):
        return None
    # So many strides are in a line of that length.
    numerator, divisor = fractions[0].args
    length = numerator + divisor * (size - fractions[0]) + 1 - divisor
    whole = _derived(b, found, position, layout.canonical(sympy.expand(length)))
    return None if whole is None else ends.every(b, whole, 0, int(divisor))


def _line(b: GraphBuilder, source: Tensor, position: int) -> Tensor:
    """Dimension ``position`` of ``source`` at the first index of all others, which may be empty."""
    kept = tuple(size if place == position else 1 for place, size in enumerate(source.stored))
    whole = replace(source, shape=source.stored)
    if kept == source.stored:
        return whole
    shape = layout.physical(kept, source.order)
    attributes = SliceAttributes(
        (0,) * len(shape), tuple(size if isinstance(size, int) else 0 for size in shape)
    )
    output = b.result(kept, source.order)
    flags = FLAG_KEEP_DIMS
    return b.add_node(NodeKind.STATIC_SLICE, [whole], output, attributes, flags=flags)
