"""Legalize scalar operands where a kernel takes tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import out_variants
from penstock.compiler.fx.edit import add_attribute, copy_origin, fake

aten = torch.ops.aten

#: Parameters that take no part in the type of the result.
CONDITIONS = ("condition", "mask", "index")


def apply(module: GraphModule) -> int:
    """Given ``add(x, 2)`` in the overload for tensors → Result ``add(x, c)`` with a constant ``c``
    of no dimensions, and a type that leaves the result's as it is. A number that is computed at
    run time (a size) becomes such a tensor by ``scalar_tensor``."""
    changes = 0
    constants: dict[tuple[object, ...], Node] = {}
    for node in list(module.graph.nodes):
        if not isinstance(node.target, torch._ops.OpOverload) or node.op != "call_function":
            continue
        for place, parameter in enumerate(node.target._schema.arguments):
            keyword = place >= len(node.args)
            value = node.kwargs.get(parameter.name) if keyword else node.args[place]
            if str(parameter.type) != "Tensor" or not _is_number(value):
                continue
            dtype = _dtype(node, value)
            tensor = (
                _computed(module, node, value, dtype)
                if isinstance(value, Node)
                else _constant(module, constants, value, dtype)
            )
            if keyword:
                node.update_kwarg(parameter.name, tensor)
            else:
                node.update_arg(place, tensor)
            changes += 1
    return changes


def _is_number(value: Any) -> bool:
    if isinstance(value, Node):
        value = value.meta.get("val")
    return isinstance(value, (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool))


def _dtype(node: Node, value: Any) -> torch.dtype:
    """The type that the number has in the operator's type promotion."""
    number = value.meta["val"] if isinstance(value, Node) else value
    if isinstance(number, (torch.SymInt, torch.SymFloat)):
        number = 1 if isinstance(number, torch.SymInt) else 1.0
    assert isinstance(node.target, torch._ops.OpOverload)
    for argument, parameter in zip(node.args, node.target._schema.arguments, strict=False):
        tensor = argument.meta.get("val") if isinstance(argument, Node) else None
        if isinstance(tensor, torch.Tensor) and parameter.name not in CONDITIONS:
            dtype = torch.result_type(torch.empty(1, dtype=tensor.dtype), number)
            # PyTorch divides bytes by -1 in floating point, in which they are divided here too.
            result = node.meta.get("val")
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                return dtype if _holds(dtype, number) else result.dtype
            return dtype
    return torch.tensor(number).dtype


def _holds(dtype: torch.dtype, number: Any) -> bool:
    if dtype is torch.bool or dtype.is_floating_point or dtype.is_complex:
        return True
    return bool(torch.iinfo(dtype).min <= number <= torch.iinfo(dtype).max)


def _constant(
    module: GraphModule, known: dict[tuple[object, ...], Node], value: Any, dtype: torch.dtype
) -> Node:
    key = (repr(value), dtype)
    if key not in known:
        tensor = torch.tensor(value, dtype=dtype)
        first = next(iter(module.graph.nodes))
        with module.graph.inserting_before(first):
            made = module.graph.create_node("get_attr", add_attribute(module, tensor, "_scalar"))
        made.meta["val"] = fake(module, tensor)
        known[key] = made
    return known[key]


def _computed(module: GraphModule, node: Node, value: Node, dtype: torch.dtype) -> Node:
    with module.graph.inserting_before(node):
        made = module.graph.call_function(aten.scalar_tensor.default, (value,), {"dtype": dtype})
    assert out_variants.find(made.target) is not None
    made.meta["val"] = fake(module, torch.zeros((), dtype=dtype))
    copy_origin(node, made)
    return made
