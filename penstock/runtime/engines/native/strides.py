"""Where the elements of a value lie, if reshapes and transposes of another value only say so.

A dimension is a list of factors (size, stride), outermost first: a reshape may join dimensions
whose elements do not follow each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import TransposeAttributes

Factors: TypeAlias = "tuple[tuple[int, int], ...]"
View: TypeAlias = "tuple[Factors, ...]"


def contiguous(shape: Shape) -> View:
    """A value of this shape, in row-major order."""
    return tuple(_merged([(n, math.prod(shape[d + 1 :]))]) for d, n in enumerate(shape))


def broadcast(view: View, shape: Shape) -> View | None:
    """``view`` broadcast to ``shape``; None where it cannot be."""
    if len(view) > len(shape):
        return None
    view = ((),) * (len(shape) - len(view)) + view
    found: list[Factors] = []
    for factors, size in zip(view, shape, strict=True):
        if _size(factors) not in (1, size):
            return None
        found.append(factors if _size(factors) == size else ((size, 0),))
    return tuple(found)


def reshaped(view: View, shape: Shape) -> View | None:
    """``view`` in another shape; None where factors would have to be torn apart unevenly."""
    left = [factor for factors in view for factor in factors]
    found: list[Factors] = []
    for size in shape:
        taken: list[tuple[int, int]] = []
        while size > 1:
            if not left:
                return None
            count, stride = left.pop(0)
            if size % count == 0:
                taken.append((count, stride))
                size //= count
            elif count % size == 0:
                taken.append((size, stride * (count // size)))
                left.insert(0, (count // size, stride))
                size = 1
            else:
                return None
        found.append(_merged(taken))
    return None if left else tuple(found)


def through(view: View, node: Node, result: Shape) -> View | None:
    """The view of what ``node``, a reshape to ``result`` or a transpose, makes of ``view``."""
    if isinstance(node.attributes, TransposeAttributes):
        return tuple(view[d] for d in node.attributes.perm)
    return reshaped(view, result)


def back_through(view: View, node: Node, source: Shape) -> View | None:
    """The view of what ``node`` reads, of shape ``source``, if ``view`` is that of its result."""
    if isinstance(node.attributes, TransposeAttributes):
        perm: Sequence[int] = node.attributes.perm
        return tuple(view[perm.index(d)] for d in range(len(perm)))
    return reshaped(view, source)


def stride(factors: Factors) -> int | None:
    """The stride of a dimension, 0 of one that has one element; None if it has several."""
    if len(factors) > 1:
        return None
    return factors[0][1] if factors else 0


def _size(factors: Factors) -> int:
    return math.prod(count for count, _ in factors)


def _merged(factors: Sequence[tuple[int, int]]) -> Factors:
    """Factors that follow each other as one; those of size 1 are left out."""
    found: list[tuple[int, int]] = []
    for count, step in factors:
        if count == 1:
            continue
        if found and found[-1][1] == step * count:
            found[-1] = (found[-1][0] * count, step)
        else:
            found.append((count, step))
    return tuple(found)
