"""Small edits that the rewrites share."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import _disable_current_modes

#: Where a node comes from in the user's model; copied to what replaces it.
ORIGIN = ("nn_module_stack", "stack_trace", "source_fn_stack", "from_node", "torch_fn")


def operator_name(node: Node) -> str:
    """``add`` for ``aten.add.Tensor``."""
    return str(node.target).removeprefix("aten.").split(".")[0]


def fake_mode(module: GraphModule) -> FakeTensorMode:
    """The mode of the graph's fake tensors."""
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch._subclasses.FakeTensor):
            return value.fake_mode
    return FakeTensorMode(allow_non_fake_inputs=True)


def fake(module: GraphModule, value: torch.Tensor) -> torch.Tensor:
    """A fake tensor with the shape and dtype of ``value``."""
    with fake_mode(module) as mode:
        result = torch.empty_strided(tuple(value.shape), value.stride(), dtype=value.dtype)
    del mode
    return result


def add_attribute(module: GraphModule, value: torch.Tensor, prefix: str) -> str:
    """Registers a constant as a buffer under a free name that starts with ``prefix``."""
    counter = module.__dict__.setdefault("_penstock_names", {})
    number = counter.get(prefix, 0)
    while hasattr(module, f"{prefix}_{number}"):
        number += 1
    counter[prefix] = number + 1
    name = f"{prefix}_{number}"
    with _disable_current_modes():  # in a fake mode, the result of detach would be fake
        module.register_buffer(name, value.detach(), persistent=False)
    return name


def get_attribute(module: GraphModule, before: Node, value: torch.Tensor, prefix: str) -> Node:
    """A new ``get_attr`` node of a new constant, placed before ``before``."""
    name = add_attribute(module, value, prefix)
    with module.graph.inserting_before(before):
        node = module.graph.create_node("get_attr", name)
    node.meta["val"] = fake(module, value)
    return node


def new_attribute(module: GraphModule, node: Node, value: torch.Tensor, prefix: str) -> Node:
    """Replaces all uses of ``node`` by a new constant."""
    result = get_attribute(module, node, value, prefix)
    copy_origin(node, result)
    node.replace_all_uses_with(result)
    return result


def copy_origin(source: Node, target: Node) -> None:
    for key in ORIGIN:
        if key in source.meta:
            target.meta[key] = source.meta[key]


def call(module: GraphModule, origin: Node, target: Any, *args: Any, **kwargs: Any) -> Node:
    """A new call before ``origin``, with its origin and a true ``meta["val"]``."""
    with module.graph.inserting_before(origin):
        node = module.graph.call_function(target, args, kwargs)
    copy_origin(origin, node)
    inputs = torch.fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
    with fake_mode(module), torch.no_grad():
        node.meta["val"] = target(*inputs[0], **inputs[1])
    return node
