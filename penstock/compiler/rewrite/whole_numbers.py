"""Masks and small integers in float32: which operators on them come to what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.operators.comparison import (
    COMPARISONS,
    CONNECTIVES,
    CONVERSIONS,
    INFINITE,
    MASKED_FILL,
    NOT,
    WHERE,
)
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.rewrite.twins import EXACT, Maker, Number, Twin

aten = torch.ops.aten

#: What takes the place of a node, or stands for it; ``None`` where there is neither.
Rule = Callable[[Maker, Node], "Twin | Node | None"]

#: So many constants are looked through for each value.
LONGEST_SEARCH = 64


def _dtype(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _is_float(item: Any) -> bool:
    return isinstance(item, Node) and _dtype(item) is torch.float32


# --- where they come from ----------------------------------------------------------------------


def _compared(m: Maker, node: Node) -> Number | None:
    tensors = [item for item in node.args if isinstance(item, Node)]
    if not all(map(_is_float, tensors)) or all(item.op == "get_attr" for item in tensors):
        return None
    return Number(m.numbers(node, m.call(node, node.target, *node.args)), 0, 1)


def _searched(m: Maker, node: Node) -> Number | None:
    """How many of a row's values are below."""
    given = arguments(node)
    x: Node = given["self"]
    row: Node = given["boundaries" if "boundaries" in given else "sorted_sequence"]
    if given.get("side") is not None or given.get("sorter") is not None:
        return None
    if not _is_float(x) or not _is_float(row) or x.op == "get_attr":
        return None
    size, rank = row.meta["val"].shape[-1], row.meta["val"].dim()
    if not isinstance(size, int) or size > LONGEST_SEARCH:
        return None
    if rank != 1:
        row = m.call(node, aten.unsqueeze.default, row, -2)
    column = m.call(node, aten.unsqueeze.default, x, -1)
    below = aten.ge.Tensor if given["right"] else aten.gt.Tensor
    hit = m.numbers(node, m.call(node, below, column, row))
    return Number(m.call(node, aten.sum.dim_IntList, hit, [-1]), 0, size)


SOURCES: dict[Any, Rule] = {
    **{target: _compared for targets, _ in COMPARISONS.values() for target in targets},
    **{target: _compared for target, _ in INFINITE.values()},
    aten.bucketize.Tensor: _searched,
    aten.searchsorted.Tensor: _searched,
}


# --- what follows ------------------------------------------------------------------------------


def _number(m: Maker, node: Node) -> Number:
    twin = m.twins[node.args[0]]  # type: ignore[index]
    assert isinstance(twin, Number)
    return twin


def _moved(m: Maker, node: Node) -> Number | None:
    if not isinstance(m.twins.get(node.args[0]), Number):  # type: ignore[arg-type]
        return None
    number = _number(m, node)
    moved = m.call(node, node.target, number.value, *node.args[1:])
    return Number(moved, number.least, number.most)


def _converted(m: Maker, node: Node) -> Twin | Node | None:
    number, dtype = _number(m, node), _dtype(node)
    if dtype is torch.float32:
        return number.value
    if dtype is torch.bool and (number.least, number.most) != (0, 1):
        if number.least < 0:
            return None
        return Number(m.numbers(node, m.mask(node, number.value)), 0, 1)
    integral = dtype in (torch.bool, torch.int32, torch.int64)
    return number if integral else None


def _summed(m: Maker, node: Node) -> Twin | Node | None:
    number, given = _number(m, node), arguments(node)
    source: Any = node.args[0]
    dims, keep = given.get("dim"), given.get("keepdim", False)
    every = list(range(source.meta["val"].dim()))
    dims = every if dims in (None, []) else [dims] if isinstance(dims, int) else list(dims)
    shape = layout.shape_of(source.meta["val"])
    if not shape:
        return None
    total = m.call(node, aten.sum.dim_IntList, number.value, dims, keep)
    if _dtype(node) is torch.float32:
        return total
    count = layout.product([shape[dim] for dim in dims])
    if not isinstance(count, int) or _dtype(node) not in (torch.int64, torch.int32):
        return None
    return _within(Number(total, min(0, number.least * count), max(0, number.most * count)))


def _extreme(target: Any) -> Rule:
    def rule(m: Maker, node: Node) -> Number | None:
        number, given = _number(m, node), arguments(node)
        source: Any = node.args[0]
        if number.least < 0 or _dtype(source) is not torch.bool:
            return None
        dims = given.get("dim")
        every = list(range(source.meta["val"].dim()))
        dims = every if dims in (None, []) else [dims] if isinstance(dims, int) else list(dims)
        found = m.call(node, target, number.value, dims, given.get("keepdim", False))
        return Number(found, number.least, number.most)

    return rule


def _within(number: Number) -> Number | None:
    return number if number.least > -EXACT and number.most < EXACT else None


def _arithmetic(m: Maker, node: Node) -> Twin | Node | None:
    """Sums, differences and products; quotients in float32."""
    values = [m.value(node, item) for item in node.args[:2]]
    if any(value is None for value in values) or node.kwargs.get("alpha", 1) != 1:
        return None
    if len(node.args) > 2:
        return None
    if _dtype(node) is torch.float32:
        return m.call(node, node.target, *values)
    combine = _COMBINED.get(str(node.target).split(".")[1])
    bounds = [m.bounds(item) for item in node.args[:2]]
    if combine is None or None in bounds or _dtype(node) not in (torch.int64, torch.int32):
        return None
    if not any(isinstance(value, Node) for value in values):
        return None
    (a, b), (c, d) = bounds  # type: ignore[misc]
    corners = [combine(x, y) for x in (a, b) for y in (c, d)]
    least, most = min(corners), max(corners)
    return _within(Number(m.call(node, node.target, *values), least, most))


_COMBINED: dict[str, Callable[[float, float], float]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "rsub": lambda x, y: y - x,
    "mul": lambda x, y: x * y,
    "maximum": max,
    "minimum": min,
}


def _clamped(m: Maker, node: Node) -> Number | None:
    number, given = _number(m, node), arguments(node)
    low, high = given.get("min"), given.get("max")
    if not all(bound is None or isinstance(bound, int) for bound in (low, high)):
        return None
    least, most = number.least, number.most
    if low is not None:
        least, most = max(least, low), max(most, low)
    if high is not None:
        least, most = min(least, high), min(most, high)
    clamped = m.call(node, aten.clamp.default, number.value, low, high)
    return _within(Number(clamped, least, most))


def _numbers_compared(m: Maker, node: Node) -> Number | None:
    values = [m.value(node, item) for item in node.args[:2]]
    if any(value is None for value in values) or not isinstance(values[0], Node):
        return None
    if values[0] is values[1]:
        return None
    return Number(m.numbers(node, m.call(node, node.target, *values)), 0, 1)


def _connected(m: Maker, node: Node) -> Number | None:
    masks = [m.twins.get(item) for item in node.args[:2]]  # type: ignore[arg-type]
    if _dtype(node) is not torch.bool or not all(isinstance(one, Number) for one in masks):
        return None
    if any(_dtype(item) is not torch.bool for item in node.args[:2]):  # type: ignore[arg-type]
        return None
    left, right = (m.mask(node, one.value) for one in masks)  # type: ignore[union-attr]
    return Number(m.numbers(node, m.call(node, node.target, left, right)), 0, 1)


def _negated(m: Maker, node: Node) -> Number | None:
    number = _number(m, node)
    if _dtype(node.args[0]) is not torch.bool:  # type: ignore[arg-type]
        return None
    return Number(m.call(node, aten.rsub.Scalar, number.value, 1.0), 0, 1)


def _chosen(m: Maker, node: Node) -> Twin | Node | None:
    filled = node.target in MASKED_FILL
    mask = node.args[1 if filled else 0]
    others = [m.value(node, item) for item in node.args if item is not mask]
    twin = m.twins.get(mask)  # type: ignore[arg-type]
    if any(value is None for value in others) or _dtype(node) is not torch.float32:
        return None
    if not isinstance(twin, Number):
        return None
    made = m.mask(node, twin.value)
    args = (others[0], made, others[1]) if filled else (made, *others)
    return m.call(node, node.target, *args)


_MOVES = (
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.unsqueeze.default,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.permute.default,
    aten.transpose.int, aten.t.default, aten.select.int, aten.slice.Tensor, aten.expand.default,
    aten.repeat.default, aten.flatten.using_ints, aten.clone.default, aten.contiguous.default,
    aten.flip.default, aten.narrow.default,
)  # fmt: skip

RULES: dict[Any, Rule] = {
    **dict.fromkeys(_MOVES, _moved),
    **dict.fromkeys(CONVERSIONS, _converted),
    **{target: _numbers_compared for targets, _ in COMPARISONS.values() for target in targets},
    **{target: _connected for targets, _ in CONNECTIVES.values() for target in targets},
    **dict.fromkeys(NOT, _negated),
    **dict.fromkeys((*WHERE, *MASKED_FILL), _chosen),
    **dict.fromkeys((aten.sum.dim_IntList, aten.sum.default), _summed),
    **dict.fromkeys((aten.any.dim, aten.any.default, aten.any.dims), _extreme(aten.amax.default)),
    **dict.fromkeys((aten.all.dim, aten.all.default, aten.all.dims), _extreme(aten.amin.default)),
    **dict.fromkeys(
        (
            aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.rsub.Scalar,
            aten.div.Tensor, aten.maximum.default, aten.minimum.default,
        ),
        _arithmetic,
    ),
    **dict.fromkeys(
        (aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default), _clamped
    ),
}  # fmt: skip
