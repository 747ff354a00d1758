"""Constraints that several operator families share. Each returns a reason, or ``None``."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.operators.registry import Constraint
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.finiteness import may_be_nan
from penstock.graph.graph import MAX_TENSOR_DIMS

SUPPORTED_FLOATS = (torch.float32,)


def tensors_of(node: Node) -> list[torch.Tensor]:
    """The fake tensors of the node's inputs and outputs."""
    values: list[Any] = [source.meta.get("val") for source in node.all_input_nodes]
    values.append(node.meta.get("val"))
    flat: list[torch.Tensor] = []
    for value in values:
        items = value if isinstance(value, (tuple, list)) else (value,)
        flat.extend(item for item in items if isinstance(item, torch.Tensor))
    return flat


def only_floats(node: Node) -> str | None:
    """Every tensor is float32."""
    for tensor in tensors_of(node):
        if tensor.dtype not in SUPPORTED_FLOATS:
            return f"it works on {_name(tensor.dtype)}, XNNPACK's operators on float32"
    return None


def float_data(node: Node) -> str | None:
    """Every tensor is float32, constants aside."""
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        if is_constant(source) or not isinstance(value, torch.Tensor):
            continue
        if value.dtype not in SUPPORTED_FLOATS:
            return f"it works on {_name(value.dtype)}, XNNPACK's operators on float32"
    result = node.meta.get("val")
    if isinstance(result, torch.Tensor) and result.dtype not in SUPPORTED_FLOATS:
        return f"its result is {_name(result.dtype)}, XNNPACK's are float32"
    return None


def first_result_only(node: Node) -> str | None:
    """Of several results only the first, float32, is used."""
    for user in node.users:
        if user.target is operator.getitem and user.args[1] != 0 and user.users:
            return "its second result (the positions) is used too, XNNPACK gives values alone"
    source = node.all_input_nodes[0].meta.get("val")
    if isinstance(source, torch.Tensor) and source.dtype not in SUPPORTED_FLOATS:
        return f"it works on {_name(source.dtype)}, XNNPACK's operators on float32"
    return None


def rank_fits(node: Node) -> str | None:
    """No tensor has more dimensions than XNNPACK knows, and none is empty."""
    for tensor in tensors_of(node):
        if tensor.dim() > MAX_TENSOR_DIMS:
            return f"a tensor has {tensor.dim()} dimensions, XNNPACK has at most {MAX_TENSOR_DIMS}"
        if 0 in layout.shape_of(tensor):
            return "one of its tensors has no elements, XNNPACK has no such tensors"
    return None


FLOATS: tuple[Constraint, ...] = (only_floats, rank_fits)


def has_dimensions(node: Node) -> str | None:
    """Its input has dimensions to pick along."""
    if node.all_input_nodes[0].meta["val"].dim() == 0:
        return "its input has no dimensions, XNNPACK picks along one"
    return None


def constant(name: str) -> Constraint:
    """The argument ``name`` is a parameter, buffer or other constant (or absent)."""

    def check(node: Node) -> str | None:
        value = arguments(node).get(name)
        if value is None or not isinstance(value, Node) or is_constant(value):
            return None
        return f"its {name} is computed at run time, XNNPACK needs a constant"

    return check


def is_constant(node: Node) -> bool:
    """A constant, or the dequantization of an integer constant."""
    if node.op == "get_attr":
        return True
    return is_dequantize(node) and all(source.op == "get_attr" for source in node.all_input_nodes)


def is_dequantize(node: Node) -> bool:
    target = node.target
    return (
        isinstance(target, torch._ops.OpOverload)
        and target.namespace in ("quantized_decomposed", "torchao")
        and "dequantize" in target._schema.name
    )


def reads_integers(node: Node) -> bool:
    """Whether the node's first input was quantized, so that XNNPACK may run it on int8."""
    source = node.args[0]
    return isinstance(source, Node) and is_dequantize(source)


def argument_is(name: str, *allowed: Any) -> Constraint:
    """The argument ``name`` has one of the ``allowed`` values."""

    def check(node: Node) -> str | None:
        value = arguments(node).get(name)
        if value in allowed:
            return None
        expected = " or ".join(map(repr, allowed))
        return f"its {name} is {value!r}, supported is {expected}"

    return check


def of_numbers(node: Node) -> str | None:
    """Of what is a number for ordinary inputs."""
    if any(may_be_nan(source) for source in node.all_input_nodes):
        return "it is of what may be NaN (a logarithm, root or quotient), which XNNPACK keeps"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
