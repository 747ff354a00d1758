"""Weights that ``torchao.quantization.quantize_`` left as quantized tensors.

torch.export shows such a weight as a constant whose integers, scales and zero points are taken out
of it, and arithmetic on these in one of several spellings. Here each becomes ``linear`` (or another
operator) on a ``dequantize`` of constants, with its activation, where that is quantized as the
program runs, behind quantize and dequantize for each token: the form that the rest of the compiler
knows. The integers and scales are torchao's own.
"""

from __future__ import annotations

from operator import attrgetter

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import call, get_attribute
from penstock.compiler.fx.origins import describe_origin
from penstock.compiler.rewrite.quantized_constants import (
    CHOOSE,
    DEQUANTIZE,
    QUANTIZE,
    activation,
    constant,
    schema_name,
)
from penstock.compiler.rewrite.quantized_products import integer_product, scaled_product
from penstock.errors import UnsupportedError

#: By name: a private namespace of torch.
TAKE = "export::access_subclass_inner_tensor"


def apply(module: GraphModule) -> int:
    """Given ``access_subclass_inner_tensor(weight, "qdata")`` and what torchao makes of it →
    Result: constants of their own, behind ``dequantize`` operators of ``quantized_decomposed``. The
    rules are in :mod:`quantized_products` and :mod:`quantized_constants`.

    Raises :class:`UnsupportedError` for quantized tensors that are used in another way.
    """
    if not any(
        schema_name(node) in (TAKE, CHOOSE, QUANTIZE, DEQUANTIZE) or _is_subclass(node, module)
        for node in module.graph.nodes
    ):
        return 0
    changes = _take_apart(module)
    for rule in (integer_product, scaled_product, constant, activation):
        for node in list(module.graph.nodes):
            if not node._erased:
                changes += rule(module, node)
    module.graph.eliminate_dead_code()
    _refuse_rest(module)
    return changes


def _refuse_rest(module: GraphModule) -> None:
    for node in module.graph.nodes:
        if schema_name(node).startswith("torchao::"):
            raise UnsupportedError(
                f"{schema_name(node).replace('::', '.')}{describe_origin(node)} quantizes in a way "
                "that is not known; 8-bit activations for each token or all of them, and weights "
                "of up to 8 bits, are"
            )


def _take_apart(module: GraphModule) -> int:
    found: dict[tuple[str, str], Node] = {}
    changes = 0
    for node in list(module.graph.nodes):
        if schema_name(node) != TAKE:
            continue
        weight, part = node.args
        assert isinstance(weight, Node) and isinstance(part, str)
        if weight.op != "get_attr":
            raise UnsupportedError(f"{weight.name} is a quantized tensor, and no weight")
        key = (str(weight.target), part)
        if key not in found:
            value = getattr(attribute(module, key[0]), part)
            first = next(iter(module.graph.nodes))
            found[key] = get_attribute(module, first, value, f"{key[0]}.{part}".replace(".", "_"))
        node.replace_all_uses_with(found[key])
        module.graph.erase_node(node)
        changes += 1
    for node in list(module.graph.nodes):
        if _is_subclass(node, module):
            changes += _dequantize_whole(module, node)
    return changes


def _is_subclass(node: Node, module: GraphModule) -> bool:
    if node.op != "get_attr":
        return False
    value = attrgetter(str(node.target))(module)
    return isinstance(value, torch.Tensor) and hasattr(value, "__tensor_flatten__")


def _dequantize_whole(module: GraphModule, node: Node) -> int:
    """Given a quantized tensor that an operator (an embedding) reads whole → Result its integers
    behind ``dequantize_affine``, or its real numbers where it is made of other parts."""
    if node.users:
        value = attribute(module, str(node.target))
        parts = [getattr(value, name, None) for name in ("qdata", "scale", "zero_point")]
        block = getattr(value, "block_size", None)
        name = str(node.target).replace(".", "_")
        if block is None or parts[0] is None or parts[0].dtype != torch.int8:
            whole = get_attribute(module, node, value.dequantize().detach(), f"{name}_real")
        else:
            constants = [
                None if part is None else get_attribute(module, node, part, f"{name}_part")
                for part in parts
            ]
            data, scale, point = constants
            dequantize = torch.ops.torchao.dequantize_affine.default
            whole = call(
                module, node, dequantize, data, block, scale, point, torch.int8,
                output_dtype=value.dtype,
            )  # fmt: skip
        node.replace_all_uses_with(whole)
    module.graph.erase_node(node)
    return 1
