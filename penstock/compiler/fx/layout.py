"""Pure arithmetic on shapes and memory orders.

A *shape* is logical: what PyTorch shows. Dimensions are ints, or sympy expressions where they are
dynamic. An *order* says how a tensor lies in memory: physical dimension ``j`` (0 is the outermost)
holds logical dimension ``order[j]``; (0, 2, 3, 1) is channels-last. Dimensions of size 1 have no
place in memory, so orders that differ only in them are the same layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import sympy
import torch
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from penstock.compiler.fx import size_expressions

Dim: TypeAlias = "int | sympy.Expr"
Shape: TypeAlias = "tuple[Dim, ...]"
Order: TypeAlias = "tuple[int, ...]"

CHANNELS_LAST: Order = (0, 2, 3, 1)


@dataclass(frozen=True)
class Dynamic:
    """Upper bounds of the symbols in shapes (a symbol without one is missing), and lower ones."""

    bounds: dict[sympy.Symbol, int]
    least: dict[sympy.Symbol, int] = field(default_factory=dict)

    def upper(self, dim: Dim) -> int:
        """The largest value ``dim`` can take; ValueError where it has no bound."""
        if isinstance(dim, int):
            return dim
        upper = bound_sympy(dim, self._ranges(dim)).upper
        if upper in (int_oo, sympy.oo) or not upper.is_finite:
            raise ValueError(f"the dimension {dim} has no upper bound")
        return int(upper)

    def lower(self, dim: Dim) -> int:
        """The smallest value that ``dim`` can take, as far as is known."""
        if isinstance(dim, int):
            return dim
        lower = bound_sympy(dim, self._ranges(dim)).lower
        return int(lower) if lower.is_finite else 0

    def _ranges(self, dim: sympy.Expr) -> dict[sympy.Symbol, ValueRanges[Any]]:
        return {
            symbol: _range(self.least.get(symbol, 0), self.bounds.get(symbol))
            for symbol in dim.free_symbols
        }


def _range(lower: int, upper: int | None) -> ValueRanges[Any]:
    return ValueRanges(lower, int_oo if upper is None else upper)


def dim_of(size: int | torch.SymInt) -> Dim:
    """A size out of a FakeTensor as a :data:`Dim`."""
    if isinstance(size, int):
        return size
    return canonical(size.node.expr)


def canonical(expression: Any) -> Dim:
    """A size in the form in which equal sizes are the same expression."""
    if isinstance(expression, int):
        return expression
    result: sympy.Expr = size_expressions.canonical(expression)
    return int(result) if result.is_number else result


def floor_divide(size: Dim, divisor: int) -> Dim:
    """``size // divisor``."""
    if isinstance(size, int):
        return size // divisor
    return canonical(size_expressions.floor_divide(size_expressions.canonical(size), divisor))


def shape_of(value: torch.Tensor) -> Shape:
    return tuple(dim_of(size) for size in value.shape)


def is_static(shape: Sequence[Dim]) -> bool:
    return all(isinstance(dim, int) for dim in shape)


def several_dynamic(shape: Sequence[Dim]) -> bool:
    """Whether there are more dynamic dimensions than XNNPACK's reshape takes, which is one."""
    return sum(not isinstance(dim, int) for dim in shape) > 1


def product(dims: Sequence[Dim]) -> Dim:
    result: Dim = 1
    for dim in dims:
        result = result * dim
    if isinstance(result, int):
        return result
    result = sympy.expand(result)
    return int(result) if result.is_number else result


def same(left: Dim, right: Dim) -> bool:
    """Whether two dimensions are equal for certain."""
    if isinstance(left, int) and isinstance(right, int):
        return left == right
    if isinstance(left, int) or isinstance(right, int):
        return bool(canonical(left) == canonical(right))
    return bool(left == right or size_expressions.canonical(left - right) == 0)


def identity(rank: int) -> Order:
    return tuple(range(rank))


def inverse(order: Sequence[int]) -> Order:
    result = [0] * len(order)
    for position, dim in enumerate(order):
        result[dim] = position
    return tuple(result)


def permuted(order: Sequence[int], dims: Sequence[int]) -> Order:
    """The order of ``x.permute(dims)`` seen over the same memory as ``x``."""
    position = inverse(dims)
    return tuple(position[dim] for dim in order)


def physical(shape: Sequence[Dim], order: Sequence[int]) -> Shape:
    return tuple(shape[dim] for dim in order)


def memory_sequence(shape: Sequence[Dim], order: Sequence[int]) -> Order:
    """The dimensions that matter in memory (size other than 1), outermost first."""
    return tuple(dim for dim in order if shape[dim] != 1)


def same_memory(shape: Sequence[Dim], left: Sequence[int], right: Sequence[int]) -> bool:
    return memory_sequence(shape, left) == memory_sequence(shape, right)


def broadcast(*shapes: Sequence[Dim]) -> Shape:
    """The common shape by PyTorch's broadcasting rules; ValueError where there is none."""
    rank = max(len(shape) for shape in shapes)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for position, dim in enumerate(shape, rank - len(shape)):
            if dim == 1:
                continue
            if result[position] != 1 and not same(result[position], dim):
                raise ValueError(f"shapes {[tuple(s) for s in shapes]} do not broadcast")
            result[position] = dim
    return tuple(result)


def with_leading_ones(order: Sequence[int], ones: int) -> Order:
    """The order after ``ones`` dimensions of size 1 were put in front of the shape."""
    return (*range(ones), *(dim + ones for dim in order))


@dataclass(frozen=True)
class ReshapePlan:
    """How a reshape goes over memory: first bring the input into ``input_order`` (often it is
    there already), then the same bytes are the output in ``output_order``."""

    input_order: Order
    output_order: Order


def plan_reshape(source: Shape, order: Order, target: Shape, dynamic: Dynamic) -> ReshapePlan:
    """Finds the order of a reshape's output so that the data moves as little as possible.

    Dimensions of source and target fall into groups of equal product. A group that splits one
    dimension, or merges dimensions that are neighbours in memory, keeps the memory as it is.
    """
    groups = reshape_groups(source, target, dynamic)
    group_of = {dim: index for index, (dims, _) in enumerate(groups) for dim in dims}
    sequence = memory_sequence(source, order)
    by_appearance = list(dict.fromkeys(group_of[dim] for dim in sequence))
    wanted = tuple(dim for index in by_appearance for dim in groups[index][0])
    if wanted != sequence and not is_static(source):
        # It moves anyway, and no pass joins this move with a next one: into PyTorch's own order,
        # in which most users read it.
        by_appearance = sorted(by_appearance)
        wanted = tuple(dim for index in by_appearance for dim in groups[index][0])
    out_sequence = [dim for index in by_appearance for dim in groups[index][1]]
    input_order = order if wanted == sequence else _with_ones(wanted, len(source))
    return ReshapePlan(input_order, _with_ones(out_sequence, len(target)))


def reshape_groups(
    source: Shape, target: Shape, dynamic: Dynamic
) -> list[tuple[list[int], list[int]]]:
    """Splits the dimensions (size 1 apart) into the finest runs of equal product."""
    ins = [dim for dim, size in enumerate(source) if size != 1]
    outs = [dim for dim, size in enumerate(target) if size != 1]
    groups: list[tuple[list[int], list[int]]] = []
    i = o = 0
    while i < len(ins) or o < len(outs):
        left, right = ins[i : i + 1], outs[o : o + 1]
        i, o = i + 1, o + 1
        while True:
            left_product = product([source[dim] for dim in left])
            right_product = product([target[dim] for dim in right])
            if same(left_product, right_product):
                break
            take_left = i < len(ins) and (
                o >= len(outs) or dynamic.upper(left_product) < dynamic.upper(right_product)
            )
            if take_left:
                left.append(ins[i])
                i += 1
            elif o < len(outs):
                right.append(outs[o])
                o += 1
            else:
                raise ValueError(f"cannot reshape {source} to {target}")
        groups.append((left, right))
    return groups


def _with_ones(sequence: Sequence[int], rank: int) -> Order:
    """A full order from a memory sequence: dimensions of size 1 go where they disturb least."""
    if list(sequence) == sorted(sequence):
        return identity(rank)
    result = list(sequence)
    for dim in range(rank):
        if dim not in sequence:
            result.insert(result.index(dim - 1) + 1 if dim > 0 else 0, dim)
    return tuple(result)
