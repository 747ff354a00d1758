"""Permutations of more dimensions than XNNPACK's tensors have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import call
from penstock.graph.graph import MAX_TENSOR_DIMS

aten = torch.ops.aten

_RESHAPES = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
_FLATTENINGS = (aten.flatten.using_ints,)


def apply(module: GraphModule) -> int:
    """Given ``reshape(permute(reshape(x, s), p), t)`` with more dimensions between than XNNPACK has
    (windows of a video, say) → Result: the same with dimensions of size 1 left out and with those
    that stay side by side as one; where these are too many still, blocks of them change places in
    permutations of their own before."""
    changes = _join_reshapes(module)
    for node in list(module.graph.nodes):
        source = _reshaped(node)
        if source is None:
            continue
        x: Node = source
        for sizes, order in _steps(node):
            x = call(module, node, aten.reshape.default, x, sizes)
            x = call(module, node, aten.permute.default, x, order)
        for user in list(node.users):
            if user.target in _FLATTENINGS:
                shape = _sizes(user)
                assert shape is not None
                flat = call(module, user, aten.reshape.default, x, shape)
                user.replace_all_uses_with(flat)
            else:
                user.replace_input_with(node, x)
                user.target = aten.reshape.default  # a view may need a copy now
        changes += 1
    return changes


def _join_reshapes(module: GraphModule) -> int:
    """Given ``reshape(reshape(x, s), t)`` with more dimensions between than XNNPACK has → Result:
    ``reshape(x, t)``: of ``permute(…).flatten(6, 7).flatten(4, 5)`` say, one reshape is left."""
    changes = 0
    for node in list(module.graph.nodes):
        if node.target not in (*_RESHAPES, *_FLATTENINGS):
            continue
        between, shape = node.args[0], _sizes(node)
        if between.target not in (*_RESHAPES, *_FLATTENINGS) or shape is None:
            continue
        if between.meta["val"].dim() <= MAX_TENSOR_DIMS:
            continue
        joined = call(module, node, aten.reshape.default, between.args[0], shape)
        node.replace_all_uses_with(joined)
        module.graph.erase_node(node)
        if not between.users:
            module.graph.erase_node(between)
        changes += 1
    return changes


def _reshaped(node: Node) -> Node | None:
    """The tensor whose reshape ``node``, a permutation of too many dimensions between reshapes,
    permutes."""
    if node.target is not aten.permute.default or not node.users:
        return None
    before, value = node.args[0], node.meta["val"]
    if value.dim() <= MAX_TENSOR_DIMS or value.dtype != torch.float32 or _sizes(node) is None:
        return None
    if not isinstance(before, Node) or before.target not in _RESHAPES:
        return None
    for user in node.users:
        if user.target not in (*_RESHAPES, *_FLATTENINGS) or user.meta["val"].dim() > (
            MAX_TENSOR_DIMS
        ):
            return None
        if user.target in _FLATTENINGS and _sizes(user) is None:
            return None
    source = before.args[0]
    assert isinstance(source, Node)
    return source


def _sizes(node: Node) -> list[int] | None:
    """The shape of ``node`` as arguments of a reshape, with -1 for a dynamic dimension; ``None``
    where there are several, or elements that nothing tells the number of."""
    shape = layout.shape_of(node.meta["val"])
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    return sizes if sizes.count(-1) <= 1 and 0 not in sizes else None


def _steps(node: Node) -> Iterator[tuple[list[int], list[int]]]:
    """Shapes to bring the tensor to, and the order to put its dimensions into then, one after the
    other."""
    named = arguments(node)
    order = [dim % len(named["dims"]) for dim in named["dims"]]
    after = _sizes(node)
    assert after is not None
    size = dict(zip(order, after, strict=True))
    kept = [dim for dim in sorted(order) if size[dim] != 1]
    sizes = [size[dim] for dim in kept]
    wanted = [kept.index(dim) for dim in order if size[dim] != 1]
    while True:
        runs = _runs(wanted)
        now = wanted
        if len(runs) > MAX_TENSOR_DIMS:
            now = min(_swaps(len(wanted)), key=lambda swap: len(_runs(_after(swap, wanted))))
            runs = _runs(now)
        blocks = sorted(runs)
        yield [_product(sizes, block) for block in blocks], [blocks.index(run) for run in runs]
        if now is wanted:
            return
        wanted, sizes = _after(now, wanted), [sizes[dim] for dim in now]


def _product(sizes: Sequence[int], dims: Sequence[int]) -> int:
    """The size of dimensions as one: dynamic (-1) where one of them is."""
    found = math.prod(sizes[dim] for dim in dims)
    return -1 if found < 0 else found


def _runs(order: Sequence[int]) -> list[list[int]]:
    """Dimensions in order, those that stand side by side before and after in one list."""
    runs: list[list[int]] = []
    for dim in order:
        if runs and runs[-1][-1] + 1 == dim:
            runs[-1].append(dim)
        else:
            runs.append([dim])
    return runs


def _swaps(rank: int) -> Iterator[list[int]]:
    """The orders in which two neighbouring blocks of dimensions have changed places."""
    for a, b, c in itertools.combinations(range(rank + 1), 3):
        yield [*range(a), *range(b, c), *range(a, b), *range(c, rank)]


def _after(first: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """The order that is left to be made where dimensions lie in ``first`` already."""
    return [first.index(dim) for dim in wanted]
