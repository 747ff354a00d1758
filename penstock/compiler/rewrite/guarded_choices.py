"""Keep what is not chosen from being not-a-number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.partition import reason_against
from penstock.compiler.fx import layout
from penstock.compiler.fx.edit import call
from penstock.compiler.fx.finiteness import is_suspect, may_be_infinite, may_be_nan
from penstock.compiler.fx.marks import FINITE_IF_NOT_CHOSEN, NUMBERS_IF_NOT_CHOSEN

aten = torch.ops.aten

#: Of these, which operand is 1 where the result is not chosen: all of them are finite at 1.
_GUARDED_OPERAND: dict[Any, int] = {
    aten.log.default: 0, aten.log2.default: 0, aten.log10.default: 0, aten.log1p.default: 0,
    aten.sqrt.default: 0, aten.rsqrt.default: 0, aten.pow.Tensor_Scalar: 0, aten.tan.default: 0,
    aten.asin.default: 0, aten.acos.default: 0, aten.acosh.default: 0,
    aten.reciprocal.default: 0, aten.div.Tensor: 1, aten.div.Tensor_mode: 1,
}  # fmt: skip
#: Finite of finite numbers, with a number of the model's author beside them.
_STAYS_FINITE = {
    aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar,
    aten.mul.Tensor, aten.mul.Scalar, aten.neg.default, aten.abs.default, aten.relu.default,
    aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default, aten.tanh.default,
    aten.sigmoid.default, aten.sin.default, aten.cos.default, aten.floor.default,
    aten.ceil.default, aten.round.default,
}  # fmt: skip
#: Which arguments are chosen from: where the mask is set, and where it is not.
_BRANCHES: dict[object, tuple[int | None, int | None]] = {
    aten.where.self: (1, 2),
    aten.where.ScalarOther: (1, None),
    aten.where.ScalarSelf: (None, 2),
    aten.masked_fill.Scalar: (None, 0),
}


@dataclass(frozen=True)
class _Choice:
    mask: Node
    #: Whether the branch is what a mask that is set chooses.
    if_set: bool


def apply(module: GraphModule) -> int:
    """Given ``where(mask, f(x), other)``, of which ``f`` (a root, a logarithm, a power, a quotient,
    with sums and products by numbers behind it) may be not a number where ``other`` is chosen
    → Result: ``where(mask, f(where(mask, x, 1)), other)``, marked: ``f`` is a number where it is
    not chosen; finite too, if it is of ``x`` alone, so that products with the mask choose.
    ``masked_fill(f(x), mask, value)`` likewise.

    Only where that brings the choice into a delegate: the mask is made there too.
    """
    changes = 0
    for node in list(module.graph.nodes):
        if node.target in _BRANCHES and not node.meta.get(NUMBERS_IF_NOT_CHOSEN):
            changes += _guard(module, node)
    return changes


def _guard(module: GraphModule, node: Node) -> bool:
    mask = node.args[1 if node.target is aten.masked_fill.Scalar else 0]
    if not isinstance(mask, Node) or not _is_delegable(mask):
        return False
    marked: list[int] = []
    paths: list[tuple[_Choice, list[Node]]] = []
    for position, if_set in zip(_BRANCHES[node.target], (True, False), strict=True):
        branch = None if position is None else node.args[position]
        if position is None or not isinstance(branch, Node) or not may_be_nan(branch):
            continue
        path = _path(branch, node, mask)
        if not path:
            return False
        marked.append(position)
        paths.append((_Choice(mask, if_set), path))
    if not marked:
        return False
    _mark(node, {position: path for position, (_, path) in zip(marked, paths, strict=True)})
    if reason_against(node) is not None:
        del node.meta[NUMBERS_IF_NOT_CHOSEN], node.meta[FINITE_IF_NOT_CHOSEN]
        return False
    for choice, path in paths:
        for number, item in enumerate(path):
            node.prepend(item)  # behind the mask
            if is_suspect(item):
                _replace_operand(module, choice, item, path[:number])
    return True


def _mark(choice: Node, paths: dict[int, list[Node]]) -> None:
    """Says what is known of the branches at these positions where they are not chosen."""
    choice.meta[NUMBERS_IF_NOT_CHOSEN] = tuple(paths)
    choice.meta[FINITE_IF_NOT_CHOSEN] = tuple(
        position for position, path in paths.items() if all(map(_is_of_one_tensor, path))
    )


def _is_of_one_tensor(item: Node) -> bool:
    """Not of a numerator, say, which may be infinite whatever the mask."""
    return sum(source.op != "get_attr" for source in item.all_input_nodes) == 1


def _is_delegable(mask: Node) -> bool:
    """Whether a mask is computed within a delegate, with all masks that it is made of."""
    waiting, seen = [mask], {mask}
    while waiting:
        item = waiting.pop()
        if item.op != "call_function" or reason_against(item) is not None:
            return False
        for source in item.all_input_nodes:
            is_mask = source.op != "get_attr" and source.meta["val"].dtype is torch.bool
            if is_mask and source not in seen:
                seen.add(source)
                waiting.append(source)
    return True


def _path(branch: Node, reader: Node, mask: Node) -> list[Node]:
    """From the first suspect to ``branch``, which ``reader`` alone may read: what is finite where
    it is not chosen, once the suspects are guarded. Empty if that cannot be had."""
    if list(branch.users) != [reader] or reader.all_input_nodes.count(branch) != 1:
        return []
    if is_suspect(branch):
        place = _GUARDED_OPERAND.get(branch.target)
        operand = None if place is None else branch.args[place]
        if not isinstance(operand, Node) or not _covers(mask, operand):
            return []
        others = [source for source in branch.all_input_nodes if source is not operand]
        if any(may_be_nan(other) or may_be_infinite(other) for other in others):
            return []
        inner = _path(operand, branch, mask) if may_be_nan(operand) else []
        return [*inner, branch] if inner or not may_be_nan(operand) else []
    if branch.target not in _STAYS_FINITE:
        return []
    sources = [source for source in branch.all_input_nodes if source.op != "get_attr"]
    numbers = (source for source in branch.all_input_nodes if source.op == "get_attr")
    if len(sources) != 1 or any(may_be_infinite(number) for number in numbers):
        return []
    inner = _path(sources[0], branch, mask)
    return [*inner, branch] if inner else []


def _covers(mask: Node, operand: Node) -> bool:
    """Whether a choice by ``mask`` has the operand's own shape."""
    value = operand.meta["val"]
    if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32:
        return False
    shape = layout.shape_of(value)
    chosen = layout.broadcast(shape, layout.shape_of(mask.meta["val"]))
    return len(chosen) == len(shape) and all(map(layout.same, chosen, shape))


def _replace_operand(
    module: GraphModule, choice: _Choice, suspect: Node, before: list[Node]
) -> None:
    place = _GUARDED_OPERAND[suspect.target]
    operand = suspect.args[place]
    assert isinstance(operand, Node)
    if choice.if_set:
        chosen = call(module, suspect, aten.where.ScalarOther, choice.mask, operand, 1.0)
    else:
        chosen = call(module, suspect, aten.where.ScalarSelf, choice.mask, 1.0, operand)
    if may_be_nan(operand):  # which has been guarded by the same choice
        _mark(chosen, {1 if choice.if_set else 2: before})
    suspect.update_arg(place, chosen)
