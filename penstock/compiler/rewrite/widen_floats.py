"""Widen 16-bit floating point to float32."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import call, copy_origin, fake_mode, get_attribute
from penstock.compiler.fx.marks import STATE, WRITE_BACK

aten = torch.ops.aten

NARROW = (torch.float16, torch.bfloat16)


def apply(module: GraphModule) -> int:
    """Given a graph on float16 or bfloat16 → Result: the same one on float32, with a cast behind
    each such input and before each such output. XNNPACK computes in 16 bits on few machines; in
    float32 it does everywhere, and the answers are closer to what the weights mean. What is
    written to such an input is cast back as an output is.

    Left alone: graphs that look at the bits of such numbers, or keep state in them.
    """
    nodes = list(module.graph.nodes)
    if not any(map(_is_narrow, nodes)) or any(map(_depends_on_bits, nodes)):
        return 0
    changes = 0
    returned = {node: _types(node) for node in nodes if _is_narrow(node)}
    for node in nodes:
        if node.op == "placeholder" and node in returned:
            returned[_cast_input(module, node)] = returned[node]
        elif node.op == "get_attr" and node in returned:
            value = attribute(module, str(node.target)).float()
            wide = get_attribute(module, node, value, "_wide")
            copy_origin(node, wide)
            returned[wide] = returned[node]
            node.replace_all_uses_with(wide)
            module.graph.erase_node(node)
        elif node.target is WRITE_BACK:
            _cast_written(module, node)
        elif node.op == "call_function":
            if node.target is aten.nan_to_num.default and node in returned:
                _bound_infinities(node)
            node.args, node.kwargs = _widened((node.args, node.kwargs))
            if node in returned:
                with fake_mode(module):
                    node.meta["val"] = _wide_value(node.meta["val"])
        elif node.op == "output":
            _cast_outputs(module, node, returned)
        else:
            continue
        changes += 1
    return changes


def _types(node: Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def _is_narrow(node: Node) -> bool:
    value = node.meta.get("val")
    items = value if isinstance(value, (tuple, list)) else (value,)
    return any(isinstance(item, torch.Tensor) and item.dtype in NARROW for item in items)


def _depends_on_bits(node: Node) -> bool:
    if node.target in (aten.view.dtype, aten.view_copy.dtype):
        return True
    return node.target is STATE and _is_narrow(node)


def _bound_infinities(node: Node) -> None:
    """What infinities become unless it is said: the largest numbers, those of the short type."""
    given = arguments(node)
    ends = torch.finfo(node.meta["val"].dtype)
    high, low = given["posinf"], given["neginf"]
    node.args = (given["self"], given["nan"], ends.max if high is None else high,
                 ends.min if low is None else low)  # fmt: skip
    node.kwargs = {}


def _cast_input(module: GraphModule, node: Node) -> Node:
    readers = list(node.users)
    anchor = node.next
    while anchor.op in ("placeholder", "get_attr"):
        anchor = anchor.next
    wide = call(module, anchor, aten.to.dtype, node, torch.float32)
    for reader in readers:
        back = reader.target is WRITE_BACK and reader.args[0] is node
        reader.replace_input_with(node, wide)
        if back:
            reader.args = (node, *reader.args[1:])
    return wide


def _cast_written(module: GraphModule, node: Node) -> None:
    source, value = node.args
    assert isinstance(source, Node) and isinstance(value, Node)
    dtype = source.meta["val"].dtype
    if dtype in NARROW:
        node.args = (source, call(module, node, aten.to.dtype, value, dtype))


def _cast_outputs(module: GraphModule, output: Node, types: dict[Node, torch.dtype | None]) -> None:
    def cast(node: Node) -> Node:
        dtype = types.get(node)
        return node if dtype is None else call(module, output, aten.to.dtype, node, dtype)

    output.args = torch.fx.node.map_arg(output.args, cast)


def _widened(value: Any) -> Any:
    """The arguments with float32 for every 16-bit type."""
    if isinstance(value, torch.dtype):
        return torch.float32 if value in NARROW else value
    if isinstance(value, (tuple, list)):
        return type(value)(_widened(item) for item in value)
    if isinstance(value, dict):
        return {key: _widened(item) for key, item in value.items()}
    return value


def _wide_value(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_wide_value(item) for item in value)
    if isinstance(value, torch.Tensor) and value.dtype in NARROW:
        return value.to(torch.float32)
    return value
