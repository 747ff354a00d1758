"""Rows that a mask selects, what is computed of each, and where that is written: for all rows, and
then chosen by the mask."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import is_zero
from penstock.compiler.fx.edit import call
from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.compiler.rewrite.row_wise import (
    UNCHANGED,
    Coordinate,
    Coordinates,
    Rows,
    RowWise,
    Twin,
    rank_of,
)

aten = torch.ops.aten

#: These tell where a mask is set, the first in one tensor.
_FINDERS = (aten.nonzero.default, aten.nonzero_numpy.default, aten.where.default)

#: So many multiply-adds of rows that are not selected take as long as the selection and the calls
#: for it; of dynamic sizes those of the example count.
MOST_FOR_ALL = 1 << 22


def apply(module: GraphModule) -> int:
    """Given ``out[mask] = f(x[mask])``, ``out[mask] += ...`` or the same with the places that
    ``nonzero(mask)`` tells, and ``index_add``, of which ``f`` computes each row alone
    → Result: ``where(mask, f(x), out)``, or ``out`` and the sums of ``where(mask, f(x), 0)``.

    Up to so many multiply-adds for each selection: experts of a mixture are computed for all
    tokens, which is less work than selecting them where experts are small or tokens are few.
    """
    masks: dict[Node, None] = {}
    for node in module.graph.nodes:
        mask = _mask_of(node)
        if mask is not None:
            masks.setdefault(mask)
    sizes = SizeNodes(module)
    return sum(_Selection(module, sizes, mask).settle() for mask in masks)


def _mask_of(node: Node) -> Node | None:
    """The mask that ``node`` selects rows by."""
    if node.target in _FINDERS:
        source = node.args[0]
        return source if isinstance(source, Node) and source.op != "get_attr" else None
    if node.target is not aten.index.Tensor:
        return None
    indices: Any = node.args[1]
    if len(indices) != 1 or indices[0] is None or indices[0].op == "get_attr":
        return None
    return indices[0] if indices[0].meta["val"].dtype is torch.bool else None


class _Selection(RowWise):
    """What one mask selects: all of it changes, or nothing does."""

    def __init__(self, module: GraphModule, sizes: SizeNodes, mask: Node) -> None:
        super().__init__(module, sizes, mask)
        self._ends: dict[Node, Node] = {}

    def settle(self) -> int:
        if self._rank == 0 or not self._follow() or self._work > MOST_FOR_ALL:
            return 0
        for node, made in self._ends.items():
            node.replace_all_uses_with(made)
        return len(self._ends)

    def _follow(self) -> bool:
        """Whether all that is selected is known to be written back."""
        waiting = sorted(user for user in self._mask.users if _mask_of(user) is self._mask)
        while waiting:
            node = waiting.pop(0)
            if node in self._twins or node in self._ends:
                continue
            if node.target is aten.index_put.default and not self._is_of_rows(node.args[2]):
                continue  # one value for all: a choice by itself
            if node.op != "call_function" or not self._visit(node):
                return False
            if node in self._twins:
                waiting = sorted({*waiting, *node.users})
        return bool(self._ends)

    def _is_of_rows(self, item: Any) -> bool:
        return isinstance(self._twins.get(item), Rows)

    def _visit(self, node: Node) -> bool:
        if _mask_of(node) is self._mask:
            if node.target is aten.index.Tensor:
                found: Twin | None = self._selected(node)
            else:
                found = Coordinates()
        elif node.target in _ENDS:
            end = _ENDS[node.target](self, node)
            if end is not None:
                self._ends[node] = end
            return end is not None
        else:
            found = self._next(node)
        if found is not None:
            self._twins[node] = found
        return found is not None

    # --- what is selected

    def _selected(self, node: Node) -> Rows | None:
        x = node.args[0]
        if not isinstance(x, Node) or x in self._twins or not self._covers(x):
            return None
        return Rows(x)

    def _covers(self, x: Node) -> bool:
        shape, mask = (layout.shape_of(item.meta["val"]) for item in (x, self._mask))
        return len(shape) >= len(mask) and all(map(layout.same, shape, mask))

    def _next(self, node: Node) -> Twin | None:
        twins = [self._twins[item] for item in node.all_input_nodes if item in self._twins]
        if node.target is aten.index.Tensor:
            return self._at_places(node, *node.args[:2])  # type: ignore[arg-type]
        if node.target is aten.index_select.default and node.args[1] == 0:
            return self._at_places(node, node.args[0], [node.args[2]])
        if any(isinstance(twin, (Coordinate, Coordinates)) for twin in twins):
            return self._coordinate(node) if len(node.all_input_nodes) == 1 else None
        if any(isinstance(twin, Rows) and twin.ahead for twin in twins):
            return self._without_ones(node) if len(node.all_input_nodes) == 1 else None
        return self.of_each_row(node)

    def _coordinate(self, node: Node) -> Twin | None:
        """One of ``nonzero``'s results or columns."""
        twin = self._twins[node.all_input_nodes[0]]
        if isinstance(twin, Coordinate):
            return twin if node.target in UNCHANGED else None
        (source,) = node.all_input_nodes
        if source.target in _FINDERS[1:]:
            return Coordinate(int(node.args[1])) if node.target is operator.getitem else None  # type: ignore[arg-type]
        dim = node.args[1] if len(node.args) > 1 else None
        if node.target is aten.select.int and dim in (1, -1):
            return Coordinate(int(node.args[2]) % self._rank)  # type: ignore[arg-type]
        if node.target is aten.squeeze.dim and dim in (1, -1) and self._rank == 1:
            return Coordinate(0)
        flat = node.target in (aten.flatten.using_ints, aten.view.default, aten.reshape.default)
        if flat and self._rank == 1 and node.meta["val"].dim() == 1:
            return Coordinate(0)
        if node.target is aten.unbind.int and dim in (1, -1):
            return Coordinates()
        if node.target is operator.getitem and source.target is aten.unbind.int:
            return Coordinate(int(node.args[1]))  # type: ignore[arg-type]
        return None

    def _at_places(self, node: Node, x: Any, indices: Sequence[Any]) -> Rows | None:
        """Rows by some of the coordinates: where others are, nothing differs."""
        ahead = next((n for n, index in enumerate(indices) if index is not None), len(indices))
        if not isinstance(x, Node) or x in self._twins or not _are_ones(x, ahead):
            return None
        value = self._by_mask(node, x, indices, ahead)
        return None if value is None else Rows(value, ahead)

    def _by_mask(self, node: Node, x: Node, indices: Sequence[Any], ahead: int = 0) -> Node | None:
        """``x``, whose dimensions from ``ahead`` on ``indices`` point into, with the mask's
        dimensions in their order and place."""
        dims = [self._dim(index) for index in indices[ahead:]]
        while dims and indices[ahead + len(dims) - 1] is None:
            dims.pop()
        if not dims or None in dims or len(set(dims)) < len(dims):
            return None
        shape, mask = (layout.shape_of(item.meta["val"]) for item in (x, self._mask))
        if not all(
            layout.same(shape[ahead + n], mask[dim])  # type: ignore[index]
            for n, dim in enumerate(dims)
        ):
            return None
        order = sorted(range(len(dims)), key=lambda n: dims[n])  # type: ignore[arg-type, return-value]
        for _ in range(ahead):
            x = call(self._module, node, aten.squeeze.dim, x, 0)
        if order != list(range(len(dims))):
            behind = range(len(dims), x.meta["val"].dim())
            x = call(self._module, node, aten.permute.default, x, [*order, *behind])
        for dim in range(self._rank):
            if dim not in dims:
                x = call(self._module, node, aten.unsqueeze.default, x, dim)
        return x

    def _dim(self, index: Any) -> int | None:
        twin = self._twins.get(index) if isinstance(index, Node) else None
        return twin.dim if isinstance(twin, Coordinate) else None

    def _without_ones(self, node: Node) -> Rows | None:
        (source,) = node.all_input_nodes
        twin = self._twins[source]
        assert isinstance(twin, Rows)
        before, after = (layout.shape_of(item.meta["val"]) for item in (source, node))
        views = (aten.view.default, aten.reshape.default, aten.squeeze.dim, aten.squeeze.default)
        if node.target not in views or len(after) != len(before) - twin.ahead:
            return None
        same = all(map(layout.same, after, before[twin.ahead :]))
        return Rows(twin.value) if same else None

    # --- where it is written

    def put(self, node: Node) -> Node | None:
        given = arguments(node)
        base, indices = given["self"], given["indices"]
        value = self._written(base, given["values"])
        if value is None:
            return None
        by_mask = list(indices) == [self._mask]
        every: list[int | None] = list(range(self._rank))
        dims = every if by_mask else [self._dim(index) for index in indices]
        if value.meta["val"].dim() != base.meta["val"].dim() - len(dims) + self._rank:
            return None
        if given["accumulate"]:
            return self._sum(node, base, dims, value)
        return self._replaced(node, base, dims, value)

    def _written(self, base: Node, values: Node) -> Node | None:
        twin = self._twins.get(values)
        if base in self._twins or not isinstance(twin, Rows) or twin.ahead:
            return None
        return twin.value

    def add(self, node: Node) -> Node | None:
        given = arguments(node)
        base = given["self"]
        value = self._written(base, given["source"])
        if value is None:
            return None
        if given["dim"] not in (0, -base.meta["val"].dim()) or given["alpha"] != 1:
            return None
        return self._sum(node, base, [self._dim(given["index"])], value)

    def _replaced(self, node: Node, base: Node, dims: list[int | None], value: Node) -> Node | None:
        others = self._others(base, dims)
        if others is None:
            return None
        chosen = self.mask(node, value)
        if others:
            if not self._is_one_at_most(others):
                return None  # the last one of several writes would win
            value = self._total(node, chosen, value, others)
            shown = call(self._module, node, aten.any.dims, self._bool(node), others)
            chosen = self._widened(node, shown, value)
        if is_zero(self._module, base) and _is_like(value, base):
            return call(self._module, node, aten.where.ScalarOther, chosen, value, 0)
        return call(self._module, node, aten.where.self, chosen, value, base)

    def _sum(self, node: Node, base: Node, dims: list[int | None], value: Node) -> Node | None:
        """Sums along the coordinates that do not tell where to."""
        others = self._others(base, dims)
        if others is None:
            return None
        kept = self._total(node, self.mask(node, value), value, others)
        if is_zero(self._module, base) and _is_like(kept, base):
            return kept
        return call(self._module, node, aten.add.Tensor, base, kept)

    def _others(self, base: Node, dims: list[int | None]) -> list[int] | None:
        """The mask's dimensions that do not tell where in ``base``, of which ``dims`` do."""
        shape, mask = (layout.shape_of(item.meta["val"]) for item in (base, self._mask))
        known = [dim for dim in dims if dim is not None]
        if known != dims or known != sorted(set(known)) or len(known) > len(shape):
            return None
        if not all(layout.same(shape[n], mask[dim]) for n, dim in enumerate(known)):
            return None
        return [dim for dim in range(self._rank) if dim not in known]

    def _total(self, node: Node, chosen: Node, value: Node, others: list[int]) -> Node:
        kept = call(self._module, node, aten.where.ScalarOther, chosen, value, 0)
        return call(self._module, node, aten.sum.dim_IntList, kept, others) if others else kept

    def _is_one_at_most(self, others: list[int]) -> bool:
        """Whether the mask shows where one of several places lies that differ from each other."""
        places = self._mask.args[0] if self._mask.target is aten.eq.Scalar else None
        if not isinstance(places, Node) or places.target is not operator.getitem:
            return False
        source: Any = places.args[0]
        if source.target is not aten.topk.default or places.args[1] != 1:
            return False
        return [arguments(source)["dim"] % self._rank] == others

    def mask(self, node: Node, value: Node) -> Node:
        """With dimensions behind it for those of ``value``."""
        return self._widened(node, self._bool(node), value)

    def _bool(self, node: Node) -> Node:
        if self._mask.meta["val"].dtype is torch.bool:
            return self._mask
        return call(self._module, node, aten.ne.Scalar, self._mask, 0)

    def _widened(self, node: Node, mask: Node, value: Node) -> Node:
        for _ in range(rank_of(value) - rank_of(mask)):
            mask = call(self._module, node, aten.unsqueeze.default, mask, -1)
        return mask


def _is_like(value: Node, base: Node) -> bool:
    """Whether the shapes are the same, and the types."""
    shapes = [layout.shape_of(item.meta["val"]) for item in (value, base)]
    same = len(shapes[0]) == len(shapes[1]) and all(map(layout.same, *shapes))
    return same and value.meta["val"].dtype is base.meta["val"].dtype


def _are_ones(x: Node, ahead: int) -> bool:
    return all(size == 1 for size in layout.shape_of(x.meta["val"])[:ahead])


_ENDS: dict[Any, Callable[[_Selection, Node], Node | None]] = {
    aten.index_put.default: _Selection.put,
    aten.index_add.default: _Selection.add,
}
