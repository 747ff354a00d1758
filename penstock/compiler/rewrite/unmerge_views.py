"""Cancel views that merge dynamic dimensions and views that split them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import call
from penstock.compiler.fx.layout import Dim, Dynamic
from penstock.compiler.fx.size_nodes import SizeNodes

aten = torch.ops.aten

VIEWS = {
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints,
    aten.unflatten.int, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.squeeze.default,
}  # fmt: skip
PERMUTES = {aten.permute.default, aten.transpose.int, aten.t.default}
#: Products of matrices, one for each index of the first dimension.
PRODUCTS = {aten.bmm.default, aten.baddbmm.default, aten.matmul.default}
#: Operators on one dimension (the last, but for softmax), row by row, and the argument that they
#: are given the rows as.
ROW_WISE = {
    aten.linear.default: "input", aten.layer_norm.default: "input",
    aten.rms_norm.default: "input", aten.softmax.int: "self", aten._softmax.default: "self",
}  # fmt: skip


def apply(module: GraphModule) -> int:
    """XNNPACK can merge dynamic dimensions, but not take them apart.

    Given ``view(f(view(x, [B * S, C])), [B, S, D])`` with dynamic ``B`` and ``S``, where ``f``
    consists of element-wise operators and such as work on rows (``linear``, ``layer_norm`` ...)
    → Result ``view(f(x), [B, S, D])``.
    Given ``view(transpose(view(x, [S, B * H, D]), 0, 1), [B, H, S, D])``
    → Result ``permute(view(x, [S, B, H, D]), (1, 2, 0, 3))``.
    Given ``bmm(view(x, [B * H, S, D]), view(y, [B * H, D, T]))``
    → Result ``view(matmul(x, y), [B * H, S, T])``, of ``x`` and ``y`` with ``B`` and ``H`` apart.
    """
    nodes = list(module.graph.nodes)
    if not any(layout.several_dynamic(_shape(node)) for node in nodes):
        return 0
    pass_over = _Unmerging(module)
    return sum(pass_over.visit(node) for node in nodes if node.op == "call_function")


def _shape(node: Node) -> tuple[Dim, ...]:
    value = node.meta.get("val")
    return layout.shape_of(value) if isinstance(value, torch.Tensor) else ()


@dataclass(frozen=True)
class Merged:
    """What a node is a view of: ``base`` in the order of ``dims``, each entry of which names the
    dimensions of ``base`` that one dimension of the node is merged from."""

    base: Node
    dims: tuple[tuple[int, ...], ...]

    @property
    def flat(self) -> tuple[int, ...]:
        return tuple(dim for group in self.dims for dim in group)

    def sizes(self) -> list[list[Dim]]:
        shape = _shape(self.base)
        return [[shape[dim] for dim in group] for group in self.dims]


class _Unmerging:
    def __init__(self, module: GraphModule) -> None:
        self._module = module
        self._sizes = SizeNodes(module)
        self._known: dict[Node, Merged] = {}
        self._bounds = _Guess()

    def visit(self, node: Node) -> int:
        """Rewrites ``node``, or notes what it is a view of; the number of changes."""
        target = node.target
        if target in VIEWS:
            return self._view(node)
        sources = [source for source in node.all_input_nodes if source in self._known]
        if not sources:
            return 0
        if target in PERMUTES:
            self._permute(node)
            return 0
        if target in ROW_WISE:
            return self._row_wise(node)
        if target in PRODUCTS:
            return self._product(node)
        if isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags:
            return self._element_wise(node, sources)
        return 0

    # --- views -------------------------------------------------------------------------------

    def _view(self, node: Node) -> int:
        source = node.args[0]
        if not isinstance(source, Node) or not isinstance(node.meta.get("val"), torch.Tensor):
            return 0
        known = self._known.get(source)
        merged = known or Merged(source, tuple((dim,) for dim in range(len(_shape(source)))))
        base = _shape(merged.base)
        if not layout.several_dynamic(base):
            return 0
        sizes, shape = [base[dim] for dim in merged.flat], _shape(node)
        # Dimensions of size 1 belong to no group: they are left out.
        split = _refined([size for size in sizes if size != 1], shape, self._bounds)
        if split is None:
            return 0
        atoms, dims = split
        if all(len(group) <= 1 for group in dims if not layout.is_static(_of(atoms, group))):
            if known is None:
                return 0
            result = self._reshaped(node, self._straight(node, merged), shape)
            node.replace_all_uses_with(result)
            return 1
        atoms, dims = _joined(atoms, dims)
        straight = self._straight(node, merged)
        fine = straight if atoms == sizes else self._reshaped(node, straight, atoms)
        self._known[node] = Merged(fine, tuple(map(tuple, dims)))
        return 0

    def _straight(self, node: Node, merged: Merged) -> Node:
        """The base with its dimensions in the order in which the view has them."""
        if list(merged.flat) == list(range(len(merged.flat))):
            return merged.base
        return call(self._module, node, aten.permute.default, merged.base, list(merged.flat))

    def _reshaped(self, node: Node, x: Node, shape: Sequence[Dim]) -> Node:
        # As the model writes a size, where it does: nodes for that may be there already.
        written = {
            layout.dim_of(size): size.node.expr
            for source in (x, node)
            for size in source.meta["val"].shape
            if isinstance(size, torch.SymInt)
        }
        wanted = [
            size if isinstance(size, int) else self._sizes.node(written.get(size, size))
            for size in shape
        ]
        return call(self._module, node, aten.reshape.default, x, wanted)

    def _permute(self, node: Node) -> None:
        source = node.args[0]
        if not isinstance(source, Node) or source not in self._known:
            return
        merged = self._known[source]
        places = list(range(len(merged.dims)))
        if node.target is aten.permute.default:
            places = [dim % len(places) for dim in arguments(node)["dims"]]
        elif len(places) > 1:
            first, second = node.args[1:3] if node.target is aten.transpose.int else (0, 1)
            places[first], places[second] = places[second], places[first]  # type: ignore[index]
        self._known[node] = Merged(merged.base, tuple(merged.dims[place] for place in places))

    # --- work on the base instead of the view ------------------------------------------------

    def _row_wise(self, node: Node) -> int:
        named = arguments(node)
        source = named[ROW_WISE[node.target]]  # type: ignore[index]
        others = [item for item in node.all_input_nodes if item is not source]
        if source not in self._known or any(item.op != "get_attr" for item in others):
            return 0
        merged = self._known[source]
        dim = named.get("dim", -1) % len(merged.dims)
        if len(merged.dims[dim]) != 1 or len(named.get("normalized_shape", (1,))) != 1:
            return 0
        args = [self._straight(node, merged), *node.args[1:]]
        if "dim" in named:
            args[1] = sum(len(group) for group in merged.dims[:dim])
        self._put(node, call(self._module, node, node.target, *args, **node.kwargs), merged)
        return 1

    def _product(self, node: Node) -> int:
        """Of two that are merged alike in the first dimension, and in no other; what is added is
        a number, or merged so too."""
        named = arguments(node)
        added, *factors = node.args if node.target is aten.baddbmm.default else (None, *node.args)
        operands = [item for item in (*factors, added) if isinstance(item, Node)]
        if not all(item is None or item in self._known for item in (*factors, added)):
            return 0
        if any(named.get(factor, 1) != 1 for factor in ("alpha", "beta")):
            return 0
        left, right = operands[:2]
        batch = self._known[left].sizes()[0]
        for item in operands:
            first, *others = self._known[item].sizes()
            if len(others) != 2 or first != batch or any(len(sizes) > 1 for sizes in others):
                return 0
        x, y = (self._with_ones(node, self._known[item]) for item in (left, right))
        result = call(self._module, node, aten.matmul.default, x, y)
        if added is not None:
            result = call(
                self._module, node, aten.add.Tensor, result,
                self._with_ones(node, self._known[operands[2]]),
            )  # fmt: skip
        self._put(
            node, result, Merged(left, (tuple(range(len(batch))), (len(batch),), (len(batch) + 1,)))
        )
        return 1

    def _with_ones(self, node: Node, merged: Merged) -> Node:
        """The base as the view has it, with the dimensions of size 1 that belong to no group."""
        straight = self._straight(node, merged)
        sizes = [size for group in merged.sizes() for size in (group or [1])]
        return straight if len(sizes) == len(merged.flat) else self._reshaped(node, straight, sizes)

    def _element_wise(self, node: Node, sources: list[Node]) -> int:
        merged = self._known[sources[0]]
        replaced: dict[Node, Node] = {}
        for item in node.all_input_nodes:
            if item in self._known and self._known[item].sizes() == merged.sizes():
                replaced[item] = self._straight(node, self._known[item])
            elif not self._fits(item, merged):
                return 0
        args, kwargs = torch.fx.node.map_arg(
            (node.args, node.kwargs), lambda item: replaced.get(item, item)
        )
        self._put(node, call(self._module, node, node.target, *args, **kwargs), merged)
        return 1

    @staticmethod
    def _fits(item: Node, merged: Merged) -> bool:
        """Whether an operand broadcasts to the base as it does to the view."""
        if not isinstance(item.meta.get("val"), torch.Tensor):
            return True
        rank = len(_shape(item))
        return rank == 0 or (rank == 1 and len(merged.dims[-1]) == 1)

    def _put(self, node: Node, result: Node, merged: Merged) -> None:
        """``result``, merged like ``merged``, takes the place of ``node``."""
        places = iter(range(len(merged.flat)))
        dims = tuple(tuple(next(places) for _ in group) for group in merged.dims)
        view = self._reshaped(node, result, _shape(node))
        self._known[view] = Merged(result, dims)
        node.replace_all_uses_with(view)


class _Guess(Dynamic):
    """Bounds for the order in which groups are extended; any that tell large from small do."""

    def __init__(self) -> None:
        super().__init__({})

    def upper(self, dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        return int(dim.subs(dict.fromkeys(dim.free_symbols, 1009)))


def _of(atoms: Sequence[Dim], group: Sequence[int]) -> list[Dim]:
    return [atoms[place] for place in group]


def _refined(
    sizes: list[Dim], shape: Sequence[Dim], bounds: Dynamic
) -> tuple[list[Dim], list[list[int]]] | None:
    """``sizes``, some split, and for each dimension of ``shape`` which of those it is made of;
    ``None`` where that cannot be told."""
    try:
        groups = layout.reshape_groups(tuple(sizes), tuple(shape), bounds)
    except ValueError:
        return None
    parts: dict[int, list[Dim]] = {place: [size] for place, size in enumerate(sizes)}
    made: dict[int, list[tuple[int, int]]] = {out: [] for out in range(len(shape))}
    for ins, outs in groups:
        found = _split_group([sizes[place] for place in ins], [shape[out] for out in outs])
        if found is None:
            return None
        pieces, shares = found
        for place, split in zip(ins, pieces, strict=True):
            parts[place] = split
        for out, share in zip(outs, shares, strict=True):
            made[out] = [(ins[place], piece) for place, piece in share]
    starts: dict[int, int] = {}
    atoms: list[Dim] = []
    for place, split in parts.items():
        starts[place] = len(atoms)
        atoms.extend(split)
    dims = [[starts[place] + piece for place, piece in made[out]] for out in range(len(shape))]
    if [place for group in dims for place in group] != list(range(len(atoms))):
        return None  # dimensions of size 1, which belong to no group
    return atoms, dims


def _joined(
    atoms: Sequence[Dim], dims: Sequence[Sequence[int]]
) -> tuple[list[Dim], list[list[int]]]:
    """Constant dimensions that one dimension is made of become one."""
    sizes: list[Dim] = []
    groups: list[list[int]] = []
    for group in dims:
        parts = _of(atoms, group)
        parts = [layout.product(parts)] if layout.is_static(parts) else parts
        groups.append(list(range(len(sizes), len(sizes) + len(parts))))
        sizes.extend(parts)
    return sizes, groups


def _split_group(
    ins: list[Dim], outs: list[Dim]
) -> tuple[list[list[Dim]], list[list[tuple[int, int]]]] | None:
    """Matches two lists of sizes of one product from the right, splitting constant ones."""
    pieces: list[list[Dim]] = [[] for _ in ins]
    shares: list[list[tuple[int, int]]] = [[] for _ in outs]
    place = len(ins) - 1
    left: Dim = ins[place]
    for out in range(len(outs) - 1, -1, -1):
        wanted: Dim = outs[out]
        while not layout.same(wanted, 1):
            if place < 0:
                return None
            piece = _common(left, wanted)
            if piece is None:
                return None
            pieces[place].insert(0, piece)
            shares[out].insert(0, (place, -len(pieces[place])))
            left, wanted = _quotient(left, piece), _quotient(wanted, piece)
            if layout.same(left, 1):
                place -= 1
                left = ins[place] if place >= 0 else 1
    if place >= 0:
        return None
    counted = [[(place, len(pieces[place]) + back) for place, back in share] for share in shares]
    return pieces, counted


def _common(left: Dim, wanted: Dim) -> Dim | None:
    """What the innermost of ``left`` and ``wanted`` have in common: the smaller one, where it
    divides the other."""
    for small, large in ((left, wanted), (wanted, left)):
        if isinstance(small, int) and isinstance(large, int):
            if large % small == 0:
                return small
        elif layout.same(small, large):
            return small
        else:
            quotient = large / small
            if not isinstance(quotient, float) and _is_product(quotient):
                return small
    return None


def _quotient(size: Dim, piece: Dim) -> Dim:
    if isinstance(size, int) and isinstance(piece, int):
        return size // piece
    result = size / piece
    return int(result) if getattr(result, "is_number", False) else result


def _is_product(quotient: Any) -> bool:
    """Whether a quotient of sizes is a size: has no denominator."""
    return bool(quotient.as_numer_denom()[1] == 1)
