"""An axis in two parts: what operators make of the rows that a cache has and of those that it gets.

A cache with new rows written into it is the same set of rows, in another order, as the old cache
without the rows that are written over, and the new ones behind it. What follows it up to a
contraction over that axis (attention: scores, masks, a softmax, a product) gives the same for each
order. So each part goes its own way, and only softmaxes and contractions bring them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import call, get_attribute
from penstock.compiler.fx.marks import ATTENTION_OF_PARTS, EVERY_ROW_SEES
from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.compiler.rewrite.capped_attention import CappedAttention, capped_attention
from penstock.compiler.rewrite.moved_axis import MOVES, RESHAPES, axis_of, integer, rank_of

aten = torch.ops.aten

SOFTMAXES: Sequence[object] = (aten.softmax.int, aten._softmax.default, aten._safe_softmax.default)


@dataclass(frozen=True)
class Parts:
    """``old`` and ``new`` hold the indices of ``axis``; those of ``old`` that are written over
    are zeros, if ``clean``, and anything else otherwise."""

    old: Node
    new: Node
    axis: int
    clean: bool = False


class Splitter:
    """Carries operators out on the parts of an axis: ``length`` indices, of which those at
    ``positions`` (a node, int64 [count]) are in the new part."""

    def __init__(self, module: GraphModule, length: int, positions: Node) -> None:
        self.module = module
        self.length = length
        self.positions = positions
        self.parts: dict[Node, Parts] = {}
        self.sizes = SizeNodes(module)
        self._made: dict[tuple[object, ...], Node] = {}

    def carry_out(self, node: Node) -> Parts | Node | None:
        """What ``node``, which reads parts, comes to: parts again, or a node in its place. ``None``
        where it cannot be had from the parts."""
        if node.target in MOVES:
            return self._moved(node)
        if node.target in SOFTMAXES:
            return self._softmax(node)
        if node.target is aten.matmul.default:
            return self._matmul(node)
        if node.target is aten.scaled_dot_product_attention.default:
            return self._attention(node)
        if torch.Tag.pointwise in getattr(node.target, "tags", ()):
            return self._elementwise(node)
        return None

    def of(self, node: Node) -> Parts:
        """The parts of the first operand of ``node``."""
        source = node.args[0]
        assert isinstance(source, Node)
        return self.parts[source]

    # --- operators ---------------------------------------------------------------------------

    def _moved(self, node: Node) -> Parts | None:
        """A move of each of the parts of its first operand."""
        source = self.of(node)
        axis = MOVES[node.target](node, source.axis)
        if axis is None:
            return None
        move = self._reshaped if node.target in RESHAPES else self._same_arguments
        old, new = (move(node, part, source.axis, axis) for part in (source.old, source.new))
        return Parts(old, new, axis, source.clean)

    def _same_arguments(self, node: Node, part: Node, before: int, after: int) -> Node:
        return self.call(node, node.target, part, *node.args[1:], **node.kwargs)

    def _reshaped(self, node: Node, part: Node, before: int, after: int) -> Node:
        """To the shape of ``node``, with the part's own size along the axis."""
        shape = list(node.meta["val"].shape)
        shape[after] = part.meta["val"].shape[before]
        # A part of what is contiguous need not be.
        unsafe = node.target is aten._unsafe_view.default
        target = aten.reshape.default if unsafe else node.target
        return self.call(node, target, part, list(self.sizes.replace(shape)))

    def _elementwise(self, node: Node) -> Parts | None:
        operands = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]
        rank = rank_of(node)
        axes = {self.parts[n].axis - rank_of(n) for n in operands if n in self.parts}
        if len(axes) != 1:
            return None
        axis = rank + axes.pop()
        sides: dict[Node, tuple[Node, Node]] = {}
        for operand in operands:
            sides[operand] = self._operand(operand, axis - rank)
        old, new = (
            self._with(node, {n: pair[side] for n, pair in sides.items()}) for side in (0, 1)
        )
        return Parts(old, new, axis)

    def _with(self, node: Node, operands: dict[Node, Node]) -> Node:
        """``node`` with other operands."""
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: operands.get(n, n))
        return self.call(node, node.target, *args, **kwargs)

    def _operand(self, operand: Node, axis: int) -> tuple[Node, Node]:
        """The parts of an operand along ``axis`` (counted from the end)."""
        if operand in self.parts:
            return self.parts[operand].old, self.parts[operand].new
        shape = layout.shape_of(operand.meta["val"])
        if -axis > len(shape) or shape[axis] == 1:
            return operand, operand
        return operand, self.at_positions(operand, axis)

    def _softmax(self, node: Node) -> Parts | None:
        parts = self.of(node)
        rank = rank_of(node)
        if integer(node.args[1]) % rank != parts.axis or rank == 0:
            return None
        view = [-1] + [1] * (rank - 1 - parts.axis)
        blocked = self.once(
            ("blocked", len(view)),
            lambda: self.call(
                self.after(self.blocked()), aten.reshape.default, self.blocked(), view
            ),
        )
        old = self.call(node, aten.add.Tensor, parts.old, blocked)
        scores = self.call(node, aten.cat.default, [old, parts.new], parts.axis)
        chances = self.call(node, node.target, scores, *node.args[1:], **node.kwargs)
        end = self.sizes.replace(_symbolic(parts.old, parts.axis))
        return Parts(
            self.call(node, aten.slice.Tensor, chances, parts.axis, 0, end),
            self.call(node, aten.slice.Tensor, chances, parts.axis, end, 2**63 - 1),
            parts.axis,
            True,
        )

    def _matmul(self, node: Node) -> Parts | Node | None:
        left, right = node.args[:2]
        assert isinstance(left, Node) and isinstance(right, Node)
        if min(rank_of(left), rank_of(right)) < 2:
            return None
        capped = capped_attention(node)
        if capped is not None and (made := self._capped(node, capped)) is not None:
            return made
        a, b = self.parts.get(left), self.parts.get(right)
        if a is not None and b is not None:
            if a.axis != rank_of(left) - 1 or b.axis != rank_of(right) - 2:
                return None
            if not (a.clean or b.clean):
                a = replace(a, old=self._kept(node, a))
            return self.call(
                node, aten.add.Tensor,
                self.call(node, aten.matmul.default, a.old, b.old),
                self.call(node, aten.matmul.default, a.new, b.new),
            )  # fmt: skip
        known = a or b
        assert known is not None
        operand = left if a is not None else right
        from_end = known.axis - rank_of(operand)
        if from_end != (-2 if a is not None else -1):
            return None
        old, new = (self._with(node, {operand: x}) for x in (known.old, known.new))
        return Parts(old, new, rank_of(node) + from_end, known.clean)

    def _kept(self, node: Node, parts: Parts) -> Node:
        """The old part with zeros in place of what is written over."""
        view = [-1] + [1] * (rank_of(parts.old) - 1 - parts.axis)
        kept = self.once(
            ("kept", len(view)),
            lambda: self.call(
                self.after(self.blocked()), aten.reshape.default,
                self.call(self.after(self.blocked()), aten.exp.default, self.blocked()), view,
            ),
        )  # fmt: skip
        return self.call(node, aten.mul.Tensor, parts.old, kept)

    def _attention(self, node: Node) -> Node | None:
        named = arguments(node)
        key, value = (self.parts.get(named[name]) for name in ("key", "value"))
        rank = rank_of(named["query"])
        if key is None or value is None or named["query"] in self.parts or named["is_causal"]:
            return None
        if named["dropout_p"] or any(p.axis != rank - 2 for p in (key, value)):
            return None
        if any(rank_of(named[name]) != rank for name in ("key", "value")):
            return None
        query = named["query"]
        mask = self._mask(named["attn_mask"])
        if mask is None:
            return None
        width = query.meta["val"].shape[-1]
        scale = named["scale"] if named["scale"] is not None else 1.0 / float(width) ** 0.5
        tensors = [_shared(n, query) for n in (key.old, key.new, value.old, value.new)]
        made = self.call(node, ATTENTION_OF_PARTS, query, tensors, mask, float(scale))
        made.meta[EVERY_ROW_SEES] = node.meta.get(EVERY_ROW_SEES, False)
        return made

    def _capped(self, node: Node, found: CappedAttention) -> Node | None:
        key, value = self.parts.get(found.key), self.parts.get(found.value)
        ranks = [rank_of(n) for n in (found.query, found.key, found.value)]
        if key is None or value is None or found.query in self.parts or ranks != [4, 4, 4]:
            return None
        mask = self._mask(found.mask) if key.axis == value.axis == 2 else None
        if mask is None:
            return None
        tensors = [_shared(n, found.query) for n in (key.old, key.new, value.old, value.new)]
        scale, cap = found.scale, found.cap
        made = self.call(node, ATTENTION_OF_PARTS, found.query, tensors, mask, scale, cap)
        made.meta[EVERY_ROW_SEES] = True  # a plain softmax: a row that sees nothing is not 0
        return made

    def _mask(self, mask: Node | None) -> Node | None:
        """The additive mask of both parts, in one."""
        if mask is None:
            zeros = ("new zeros",)
            new = self.once(
                zeros,
                lambda: self.call(
                    self.after(self.positions), aten.zeros_like.default, self.positions,
                    dtype=torch.float32,
                ),
            )  # fmt: skip
            old = self.blocked()
        else:
            if not mask.meta["val"].is_floating_point():
                return None
            if rank_of(mask) == 0 or mask.meta["val"].shape[-1] == 1:
                return None
            new = self.at_positions(mask, -1)
            old = self.once(
                ("old mask", mask),
                lambda: self.call(
                    self.after(mask, self.blocked()), aten.add.Tensor, mask, self.blocked()
                ),
            )
        return self.once(
            ("mask", mask),
            lambda: self.call(self.after(old, new), aten.cat.default, [old, new], -1),
        )

    # --- nodes -------------------------------------------------------------------------------

    def after(self, *nodes: Node) -> Node:
        """What stands right behind all of ``nodes``."""
        found = max(nodes).next
        while found.op in ("placeholder", "get_attr"):
            found = found.next
        return found

    def once(self, key: tuple[object, ...], make: Callable[[], Node]) -> Node:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def call(self, before: Node, target: Any, *args: Any, **kwargs: Any) -> Node:
        return call(self.module, before, target, *args, **kwargs)

    def blocked(self) -> Node:
        """float32 [length]: minus infinity at the positions, zero elsewhere."""

        def make() -> Node:
            anchor = self.after(self.positions)
            start = get_attribute(self.module, anchor, torch.zeros(self.length), "_cache_mask")
            low = get_attribute(self.module, anchor, torch.tensor(-torch.inf), "_cache_blocked")
            return self.call(anchor, aten.index_put.default, start, [self.positions], low)

        return self.once(("blocked",), make)

    def at_positions(self, tensor: Node, axis: int) -> Node:
        """The indices of ``tensor`` that belong to the new part."""
        return self.once(
            ("at positions", tensor, axis),
            lambda: self.call(
                self.after(tensor, self.positions), aten.index_select.default, tensor, axis,
                self.positions,
            ),
        )  # fmt: skip


def _symbolic(node: Node, axis: int) -> Any:
    return node.meta["val"].shape[axis]


def _shared(tensor: Node, query: Node) -> Node:
    """Keys or values [..., heads, rows, size] before they were repeated for groups of queries."""
    if query.meta["val"].dim() != 4:
        return tensor
    if tensor.target is aten.repeat_interleave.self_int and axis_of(tensor, 2) == 1:
        return tensor.args[0]  # type: ignore[return-value]
    if tensor.target not in RESHAPES or tensor.target is aten.expand.default:
        return tensor
    wide = tensor.args[0]
    narrow = wide.args[0] if isinstance(wide, Node) and wide.target is aten.expand.default else None
    if not isinstance(wide, Node) or not isinstance(narrow, Node):
        return tensor
    source = narrow.args[0]
    if narrow.target is not aten.unsqueeze.default or not isinstance(source, Node):
        return tensor
    before, after = (layout.shape_of(n.meta["val"]) for n in (source, tensor))
    one = layout.shape_of(narrow.meta["val"])
    repeated = layout.shape_of(wide.meta["val"])
    if len(before) != 4 or len(after) != 4 or one[2] != 1 or one[:2] != before[:2]:
        return tensor
    heads = before[1], repeated[2]
    if not all(isinstance(n, int) for n in heads) or after[1] != layout.product(heads):
        return tensor
    return source
