"""Operators that compute each row of their operands alone."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.comparison import CONVERSIONS
from penstock.compiler.fx import layout
from penstock.compiler.fx.edit import call
from penstock.compiler.fx.finiteness import UNTAGGED
from penstock.compiler.fx.size_nodes import SizeNodes

aten = torch.ops.aten

#: To read a weight takes as long as so many of them.
READING = 4


@dataclass(frozen=True)
class Rows:
    """Of a tensor whose first dimension counts what is selected: the same with the mask's
    dimensions in its place, of size 1 where nothing differs along them."""

    value: Node
    #: Dimensions of size 1 ahead of it.
    ahead: int = 0


@dataclass(frozen=True)
class Coordinate:
    """Along which of the mask's dimensions an index tells the places of what is selected."""

    dim: int


@dataclass(frozen=True)
class Coordinates:
    """All of them, in a list or as columns."""


Twin = Rows | Coordinate | Coordinates


class RowWise:
    """Makes operators for all rows beside those for the ones that ``mask`` selects, and counts
    their work."""

    def __init__(self, module: GraphModule, sizes: SizeNodes, mask: Node) -> None:
        self._module = module
        self._sizes = sizes
        self._mask = mask
        self._rank = rank_of(mask)
        self._twins: dict[Node, Twin] = {}
        self._work = 0

    def of_each_row(self, node: Node) -> Rows | None:
        """``None`` where ``node`` does not compute each row alone, for all that is known."""
        rule = _RULES.get(node.target)
        if rule is None and (
            node.target in UNTAGGED or torch.Tag.pointwise in getattr(node.target, "tags", ())
        ):
            rule = _elementwise
        value = None if rule is None else rule(self, node)
        return None if value is None else Rows(value)

    def value(self, item: Any) -> Any:
        twin = self._twins.get(item) if isinstance(item, Node) else None
        return twin.value if isinstance(twin, Rows) else item

    def is_first(self, node: Node) -> bool:
        """Whether the first operand alone is of rows."""
        return [item for item in node.all_input_nodes if item in self._twins] == [node.args[0]]

    def make(self, node: Node, *args: Any, **kwargs: Any) -> Node:
        return call(self._module, node, node.target, *args, **kwargs)

    def reshaped(self, node: Node) -> Node | None:
        """The first dimension stays what it was."""
        source: Any = node.args[0]
        if not _counts_alike(source, node):
            return None
        value = self.value(source)
        of_mask = list(value.meta["val"].shape[: self._rank])
        shape = self._sizes.replace([*of_mask, *node.meta["val"].shape[1:]])
        return call(self._module, node, aten.reshape.default, value, shape)

    def spend(self, product: Node, inputs: Node) -> None:
        """The work of a product, for all rows: each of its outputs is of all ``inputs``, and each
        weight is read."""
        rows = 1
        for size in product.meta["val"].shape[:-1]:
            rows *= size if isinstance(size, int) else int(size.node.hint or 1)
        ends = product.meta["val"].shape[-1], inputs.meta["val"].shape[-1]
        if all(isinstance(size, int) for size in ends):
            self._work += max(rows, READING) * ends[0] * ends[1]


# --- how ---------------------------------------------------------------------------------------

_Rule = Callable[[RowWise, Node], "Node | None"]


def _counts_alike(source: Any, node: Node) -> bool:
    before, after = (layout.shape_of(item.meta["val"]) for item in (source, node))
    return bool(before) and bool(after) and layout.same(before[0], after[0])


def rank_of(item: Any) -> int:
    return int(item.meta["val"].dim())


def _elementwise(s: RowWise, node: Node) -> Node | None:
    for item in node.all_input_nodes:
        val = item.meta.get("val")
        if s.value(item) is not item:
            if rank_of(item) != rank_of(node):
                return None
        elif not isinstance(val, torch.Tensor) or (
            rank_of(item) == rank_of(node) and val.shape[0] != 1
        ):
            return None
    args = torch.fx.node.map_arg((node.args, node.kwargs), s.value)
    return s.make(node, *args[0], **args[1])


def _product(s: RowWise, node: Node) -> Node | None:
    x: Any = node.args[0]
    weight: Any = node.args[1]
    if not s.is_first(node) or rank_of(x) < 2 or rank_of(weight) > 2:
        return None
    made = s.make(node, s.value(x), *node.args[1:], **node.kwargs)
    s.spend(made, s.value(x))
    return made


def _normalized(s: RowWise, node: Node) -> Node | None:
    x: Any = node.args[0]
    shape: Any = node.args[1]
    if not s.is_first(node) or len(shape) >= rank_of(x):
        return None
    return s.make(node, s.value(x), *node.args[1:], **node.kwargs)


def _along(position: int, added: int = 0) -> _Rule:
    """Along dimensions, the argument at ``position``, of which the first is none."""

    def rule(s: RowWise, node: Node) -> Node | None:
        x: Any = node.args[0]
        dims = node.args[position] if len(node.args) > position else None
        listed = isinstance(dims, (list, tuple))
        rank = rank_of(x) + added
        every: Any = dims if listed else [dims]
        if not s.is_first(node) or not every or not all(isinstance(d, int) for d in every):
            return None
        behind = [d % rank - rank for d in every]
        if -rank in behind:
            return None
        args = [s.value(x), *node.args[1:]]
        args[position] = behind if listed else behind[0]
        return s.make(node, *args, **node.kwargs)

    return rule


def _viewed(s: RowWise, node: Node) -> Node | None:
    return s.reshaped(node) if s.is_first(node) else None


def _same(s: RowWise, node: Node) -> Node | None:
    value = s.value(node.args[0])
    return value if isinstance(value, Node) and s.is_first(node) else None


def _converted(s: RowWise, node: Node) -> Node | None:
    if not s.is_first(node):
        return None
    return s.make(node, s.value(node.args[0]), *node.args[1:], **node.kwargs)


def _piece(s: RowWise, node: Node) -> Node | None:
    return s.make(node, s.value(node.args[0]), node.args[1])


def _joined(s: RowWise, node: Node) -> Node | None:
    """Of rows alone, that differ along the same dimensions."""
    parts: Any = node.args[0]
    dim: Any = node.args[1] if len(node.args) > 1 else 0
    rank, first = rank_of(node), s.value(parts[0])
    if dim % rank == 0:
        return None
    ahead = rank_of(first) - rank_of(parts[0]) + 1
    sizes = [layout.shape_of(s.value(part).meta["val"])[:ahead] for part in parts]
    if any(s.value(part) is part for part in parts) or any(size != sizes[0] for size in sizes):
        return None
    return s.make(node, [s.value(part) for part in parts], dim % rank - rank)


UNCHANGED = (aten.clone.default, aten.contiguous.default, aten.alias.default)

_RULES: dict[Any, _Rule] = {
    **dict.fromkeys((aten.linear.default, aten.matmul.default), _product),
    **dict.fromkeys((aten.layer_norm.default, aten.rms_norm.default), _normalized),
    **dict.fromkeys(
        (
            aten.softmax.int, aten.log_softmax.int, aten.sum.dim_IntList, aten.mean.dim,
            aten.amax.default, aten.amin.default, aten.select.int, aten.slice.Tensor,
            aten.squeeze.dim,
        ),
        _along(1),
    ),
    **dict.fromkeys(
        (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default), _along(2)
    ),
    aten.unsqueeze.default: _along(1, added=1),
    aten.glu.default: _along(1),
    operator.getitem: _piece,
    **dict.fromkeys(
        (
            aten.view.default, aten.reshape.default, aten._unsafe_view.default,
            aten.flatten.using_ints,
        ),
        _viewed,
    ),
    **dict.fromkeys(UNCHANGED, _same),
    **dict.fromkeys(CONVERSIONS, _converted),
    **dict.fromkeys((aten.cat.default, aten.stack.default), _joined),
}  # fmt: skip
