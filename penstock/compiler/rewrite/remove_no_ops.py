"""Remove operators that have no effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import add_attribute, call, fake
from penstock.compiler.fx.marks import STATE, STORE, WRITE_BACK
from penstock.compiler.fx.size_nodes import SizeNodes

aten = torch.ops.aten


def _same_shape(node: Node) -> bool:
    source = node.args[0]
    return isinstance(source, Node) and layout.shape_of(source.meta["val"]) == layout.shape_of(
        node.meta["val"]
    )


def _same_type(node: Node) -> bool:
    source = node.args[0]
    return isinstance(source, Node) and source.meta["val"].dtype == node.meta["val"].dtype


def _of_numbers(node: Node) -> bool:
    value = node.meta["val"]
    return not (value.is_floating_point() or value.is_complex())


def _always(node: Node) -> bool:
    return True


def _not_training(node: Node) -> bool:
    return not arguments(node).get("train", arguments(node).get("training", False))


def _zero_pad(node: Node) -> bool:
    return all(pad == 0 for pad in arguments(node)["pad"])


def _one(node: Node) -> bool:
    other = arguments(node)["other"]
    return not isinstance(other, Node) and other == 1 and _same_type(node)


def _zero(node: Node) -> bool:
    other = arguments(node)["other"]
    return not isinstance(other, Node) and other == 0 and _same_type(node)


#: target -> when its first argument can stand for its result
NO_OPS: dict[object, Callable[[Node], bool]] = {
    aten.dropout.default: _not_training,
    aten.feature_dropout.default: _not_training,
    aten.alpha_dropout.default: _not_training,
    aten.dropout_.default: _not_training,
    aten.feature_dropout_.default: _not_training,
    aten.alpha_dropout_.default: _not_training,
    aten.clone.default: _always,
    aten.contiguous.default: _always,
    aten.detach.default: _always,
    aten.alias.default: _always,
    aten.lift_fresh.default: _always,
    aten.lift_fresh_copy.default: _always,
    aten.detach_.default: _always,
    aten.positive.default: _always,
    aten.nan_to_num.default: _of_numbers,
    aten.resolve_conj.default: _always,
    aten.resolve_neg.default: _always,
    aten._to_copy.default: _same_type,
    aten.to.dtype: _same_type,
    aten.to.device: _same_type,
    aten.to.dtype_layout: _same_type,
    aten.to.other: _same_type,
    aten.type_as.default: _same_type,
    aten.expand.default: _same_shape,
    aten.view.default: _same_shape,
    aten.reshape.default: _same_shape,
    aten._unsafe_view.default: _same_shape,
    aten.flatten.using_ints: _same_shape,
    aten.constant_pad_nd.default: _zero_pad,
    aten.pad.default: _zero_pad,
    aten.mul.Tensor: _one,
    aten.mul.Scalar: _one,
    aten.div.Tensor: _one,
    aten.add.Tensor: _zero,
    aten.add.Scalar: _zero,
    aten.sub.Tensor: _zero,
}

#: Checks of what the shapes promise, which torch.export has done, and of matrices: a singular one
#: gives infinities.
ASSERTIONS = {
    aten._linalg_check_errors.default,
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
    aten.sym_constrain_range_for_size.default,
    aten.sym_constrain_range.default,
}


def _drop_empty(module: GraphModule, node: Node) -> bool:
    """Takes tensors without elements out of a concatenation."""
    tensors = node.args[0]
    assert isinstance(tensors, (list, tuple))
    # Sizes that are known when the program runs are no reason to ask whether they are 0 now.
    full = [item for item in tensors if 0 not in layout.shape_of(item.meta["val"])]  # type: ignore[union-attr]
    if len(full) == len(tensors) or not full:
        return False
    types = {item.meta["val"].dtype for item in full}  # type: ignore[union-attr]
    if types != {node.meta["val"].dtype}:
        return False
    node.args = (full, *node.args[1:])
    if len(full) == 1:
        source = full[0]
        assert isinstance(source, Node)
        node.replace_all_uses_with(source)
        node.graph.erase_node(node)
    return True


def _written_over(module: GraphModule, node: Node) -> bool:
    """``copy(x, y)``, which functionalization leaves of ``x[...] = y``, has nothing of ``x`` but
    its shape and type."""
    source = node.args[1]
    if not isinstance(source, Node) or not isinstance(source.meta.get("val"), torch.Tensor):
        return False
    if source.meta["val"].dtype != node.meta["val"].dtype:
        source = call(module, node, aten.to.dtype, source, node.meta["val"].dtype)
    if layout.shape_of(source.meta["val"]) != layout.shape_of(node.meta["val"]):
        source = call(module, node, aten.expand.default, source, _sizes(module, node))
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)
    return True


def _leaves_it(module: GraphModule, node: Node) -> bool:
    """What a buffer, or an input, is given is what it holds (``weight.div_(1)``). A buffer that
    nothing else is given is a constant."""
    target, value = node.args[:2]
    assert isinstance(target, Node)
    held = next((user for user in target.users if user.target is STATE), target)
    if value is not held or node.users:
        return False
    node.graph.erase_node(node)
    if held is not target and set(target.users) == {held}:
        held.replace_all_uses_with(target)
        node.graph.erase_node(held)
    return True


def _sizes(module: GraphModule, node: Node) -> list[Any]:
    """The node's shape as an argument."""
    sizes: list[Any] = SizeNodes(module).replace(list(node.meta["val"].shape))
    return sizes


def _left_alone(module: GraphModule, node: Node) -> bool:
    return False


def _by_type(module: GraphModule, node: Node) -> bool:
    """Of the other tensor, or of device and layout, only the type is left. What is true of a
    floating-point tensor is a comparison, for which XNNPACK has nodes. Of a number (batching
    converts those) a constant is left."""
    source = node.args[0]
    if not isinstance(source, Node):
        _make_constant(module, node, torch.tensor(source, dtype=node.meta["val"].dtype))
        return True
    if _same_type(node):
        return False
    if node.meta["val"].dtype is torch.bool and source.meta["val"].is_floating_point():
        _replace(module, node, aten.ne.Scalar, source, 0)
        return True
    if node.target in (aten.to.dtype, aten._to_copy.default):
        return False
    _replace(module, node, aten.to.dtype, node.args[0], node.meta["val"].dtype)
    return True


def _by_shape(module: GraphModule, node: Node) -> bool:
    """Of the other tensor only the shape is read."""
    target = aten.expand.default if node.target is aten.expand_as.default else aten.reshape.default
    _replace(module, node, target, node.args[0], _sizes(module, node))
    return True


def _replace(module: GraphModule, node: Node, target: object, *args: object) -> None:
    node.replace_all_uses_with(call(module, node, target, *args))
    node.graph.erase_node(node)


def _make_constant(module: GraphModule, node: Node, value: torch.Tensor) -> None:
    with module.graph.inserting_before(next(iter(module.graph.nodes))):
        made = module.graph.create_node("get_attr", add_attribute(module, value, "_scalar"))
    made.meta["val"] = fake(module, value)
    node.replace_all_uses_with(made)
    node.graph.erase_node(node)


#: Those that are not simply dropped. Each function says whether it replaced its node.
SPECIAL: dict[object, Callable[[GraphModule, Node], bool]] = {
    STORE: _leaves_it,
    WRITE_BACK: _leaves_it,
    aten.cat.default: _drop_empty,
    aten.copy.default: _written_over,
    aten.type_as.default: _by_type,
    aten.to.other: _by_type,
    aten.to.device: _by_type,
    aten.to.dtype_layout: _by_type,
    aten.to.dtype: _by_type,
    aten._to_copy.default: _by_type,
    aten.expand_as.default: _by_shape,
    aten.view_as.default: _by_shape,
    aten.reshape_as.default: _by_shape,
}


def apply(module: GraphModule) -> int:
    """Given ``y = op(x, …)`` with ``y`` equal to ``x`` (dropout, clone, to the same type, expand
    and view to the same shape, times one …) → Result: readers of ``y`` read ``x``. ``copy(x, y)``
    is ``y``, as wide as ``x``; what reads another tensor's shape or type alone (``expand_as``,
    ``type_as``) reads it no more, and a conversion names the type only. Run-time assertions are
    dropped, and writes of what is there already."""
    changes = 0
    for node in list(module.graph.nodes):
        if node.op == "call_module" and not node.users:
            module.graph.erase_node(node)
        elif node.op != "call_function":
            continue
        elif SPECIAL.get(node.target, _left_alone)(module, node):
            pass
        elif node.target in ASSERTIONS:
            module.graph.erase_node(node)
        elif node.target in NO_OPS and NO_OPS[node.target](node):
            source = node.args[0]
            assert isinstance(source, Node)
            node.replace_all_uses_with(source)
            module.graph.erase_node(node)
        else:
            continue
        changes += 1
    return changes
