"""Resolve data-dependent sizes of selections by constants."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import call, fake_mode, get_attribute

aten = torch.ops.aten

MASKS = (torch.bool, torch.uint8)


def apply(module: GraphModule) -> int:
    """Given ``repeat_interleave(x, counts)`` with constant counts, or ``x[mask]`` with constant
    masks or ``nonzero`` of one, whose sizes torch.export takes to depend on data → Result: the
    same by constant indices, and the sizes as numbers wherever they are read. What was written to
    no place at all (``y[mask] = f(x[mask])`` with a mask that is nowhere true) is not written."""
    changes = 0
    for node in list(module.graph.nodes):
        if node.target is aten.repeat_interleave.self_Tensor:
            found = _repeated(module, node)
        elif node.target is aten.index.Tensor:
            found = _indexed(module, node, arguments(node)["self"], arguments(node)["indices"])
        elif node.target is aten.masked_select.default:
            found = _selected(module, node)
        elif _writes_nothing(node):
            node.replace_all_uses_with(node.args[0])
            changes += 1
            continue
        else:
            continue
        if found is not None:
            _settle(module, node, found)
            changes += 1
    if changes:
        _insert_sizes(module)
    return changes


def _writes_nothing(node: Node) -> bool:
    if node.target not in (aten.index_put.default, aten.index_copy.default):
        return False
    named = arguments(node)
    written = named.get("values", named.get("source"))
    return isinstance(written, Node) and 0 in layout.shape_of(written.meta["val"])


def _repeated(module: GraphModule, node: Node) -> Node | None:
    named = arguments(node)
    counts, x, dim = named["repeats"], named["self"], named["dim"]
    if counts.op != "get_attr":
        return None
    if dim is None:
        x, dim = call(module, node, aten.reshape.default, x, [-1]), 0
    values = attribute(module, str(counts.target))
    if values.numel() == 1:
        return call(module, node, aten.repeat_interleave.self_int, x, int(values), dim)
    places = get_attribute(module, node, torch.repeat_interleave(values), "_places")
    return call(module, node, aten.index_select.default, x, dim, places)


def _selected(module: GraphModule, node: Node) -> Node | None:
    x, mask = arguments(node)["self"], arguments(node)["mask"]
    if mask.op != "get_attr":
        return None
    shape = list(torch.broadcast_shapes(x.meta["val"].shape, mask.meta["val"].shape))
    if not layout.is_static([layout.dim_of(size) for size in shape]):
        return None
    whole = call(module, node, aten.expand.default, x, shape)
    value = attribute(module, str(mask.target)).expand(shape)
    return _indexed(module, node, whole, [get_attribute(module, node, value, "_mask")])


def _indexed(
    module: GraphModule, node: Node, x: Node, indices: Sequence[Node | None]
) -> Node | None:
    given = [index for index in indices if index is not None]
    if any(index.op != "get_attr" for index in given):
        return None
    if not (_size_is_unknown(node) or any(i.meta["val"].dtype in MASKS for i in given)):
        return None
    places: list[Node | None] = []
    for index in indices:
        if index is None or index.meta["val"].dtype not in MASKS:
            places.append(index)
            continue
        mask = attribute(module, str(index.target))
        places += [
            get_attribute(module, node, place, "_places") for place in mask.nonzero(as_tuple=True)
        ]
    return call(module, node, aten.index.Tensor, x, places)


def _size_is_unknown(node: Node) -> bool:
    """Whether PyTorch takes a size of the result to depend on data."""
    sizes = [size for size in node.meta["val"].shape if isinstance(size, torch.SymInt)]
    return any(not size.node.has_hint() for size in sizes)


def _settle(module: GraphModule, node: Node, found: Node) -> None:
    """``found`` instead of ``node``, and what that says about the sizes that PyTorch did not
    know."""
    with fake_mode(module):
        for old, new in zip(node.meta["val"].shape, found.meta["val"].shape, strict=True):
            torch._check(old == new)
    node.replace_all_uses_with(found)
    module.graph.erase_node(node)
    if 0 in found.meta["val"].shape:
        _measure_again(module, found)


def _measure_again(module: GraphModule, empty: Node) -> None:
    """Sizes of what follows from ``empty``: PyTorch does not put 0 for a size that it did not
    know, as it puts other numbers."""
    changed, reached = {empty}, False
    for node in module.graph.nodes:
        reached = reached or node is empty
        if (
            not reached
            or node.op != "call_function"
            or not changed.intersection(node.all_input_nodes)
        ):
            continue
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
        with fake_mode(module), torch.no_grad():
            value = node.target(*args, **kwargs)
        before, node.meta["val"] = node.meta.get("val"), value
        same = isinstance(value, torch.Tensor) and isinstance(before, torch.Tensor)
        if not same or layout.shape_of(value) != layout.shape_of(before):
            changed.add(node)


def _insert_sizes(module: GraphModule) -> None:
    for node in list(module.graph.nodes):
        value = node.meta.get("val")
        if node.op != "call_function" or type(value) not in (torch.SymInt, int):
            continue
        size = layout.dim_of(value)
        if isinstance(size, int):
            for user in list(node.users):
                _insert(user, node, size)
            module.graph.erase_node(node)


def _insert(user: Node, node: Node, size: int) -> None:
    user.args, user.kwargs = torch.fx.node.map_arg(
        (user.args, user.kwargs), lambda item: size if item is node else item
    )
