"""torchao's quantize and dequantize operators in the terms of ``quantized_decomposed``."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import call, get_attribute, new_attribute
from penstock.compiler.fx.marks import MADE, Made
from penstock.compiler.fx.origins import describe_origin

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

#: Operators by name: torchao registers them when it is imported, and it need not be.
CHOOSE = "torchao::choose_qparams_affine"
QUANTIZE = "torchao::quantize_affine"
DEQUANTIZE = "torchao::dequantize_affine"

INT8 = (-128, 127)

#: How a default in a schema says float32.
FLOAT32 = 6


def schema_name(node: Node) -> str:
    """``aten::add`` for a node that calls it, empty for others."""
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


def value_of(module: GraphModule, node: Any) -> torch.Tensor | None:
    """The constant that a node names."""
    if isinstance(node, Node) and node.op == "get_attr":
        return attribute(module, str(node.target)).detach()
    return None


def constant(module: GraphModule, node: Node) -> int:
    """Given ``dequantize_affine`` of a constant → Result ``dequantize_per_channel``, or
    ``dequantize_per_channel_group`` for blocks of a row or of all rows; of other blocks, its
    value."""
    if schema_name(node) != DEQUANTIZE:
        return 0
    named = arguments(node)
    data, scale = value_of(module, named["input"]), value_of(module, named["scale"])
    if data is None or scale is None:
        return 0
    zero_point = value_of(module, named["zero_point"])
    block = [int(size) for size in named["block_size"]]
    points = torch.zeros_like(scale) if zero_point is None else zero_point
    limits = _limits(named)
    rows_only = data.dim() == 2 and block[0] in (1, len(data)) and data.dtype == torch.int8
    if not rows_only:
        return _written_out(module, node, named)
    groups = data.shape[1] // block[1]
    if groups > 1 and not all(_takes_groups(user, points) for user in node.users):
        rows_only = False
    if not rows_only or named["output_dtype"] not in (torch.float32, FLOAT32):
        return _written_out(module, node, named)
    rows = data.shape[0]
    scales = scale.to(torch.float32).reshape(-1, groups).expand(rows, groups)
    integers = points.to(torch.int64).reshape(-1, groups).expand(rows, groups)
    replace_by(node, dequantized(module, node, data, scales, integers, limits))
    return 1


def _takes_groups(user: Node, zero_points: torch.Tensor) -> bool:
    """Whether there is a node or a kernel for a weight with several scales a row."""
    if user.target is aten.linear.default:
        return not bool(zero_points.any())
    return user.target is aten.embedding.default


def _written_out(module: GraphModule, node: Node, named: dict[str, Any]) -> int:
    """The weight's real numbers."""
    inputs = {k: value_of(module, v) if isinstance(v, Node) else v for k, v in named.items()}
    with torch.no_grad():
        value = node.target(*inputs.values())  # type: ignore[operator]
    constant = new_attribute(module, node, value, "_dequantized")
    sources = [item for item in inputs.values() if isinstance(item, torch.Tensor)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in sources)
    constant.meta[MADE] = Made("a quantized weight as float32", describe_origin(node), size)
    module.graph.erase_node(node)
    return 1


def dequantized(
    module: GraphModule,
    before: Node,
    data: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor,
    limits: tuple[int, int],
) -> Node:
    """The real numbers of ``data`` int8 [rows, columns], ``scales`` float32 and ``zero_points``
    int64 [rows, groups of columns]."""
    integers = get_attribute(module, before, data, "_integers")
    rows, groups = scales.shape
    if groups == 1:
        scales, zero_points = scales.reshape(rows), zero_points.reshape(rows)
    factors = get_attribute(module, before, scales.contiguous(), "_scales")
    points = get_attribute(module, before, zero_points.contiguous(), "_zero_points")
    if groups == 1:
        return call(
            module, before, quantized.dequantize_per_channel.default,
            integers, factors, points, 0, *limits, torch.int8,
        )  # fmt: skip
    return call(
        module, before, quantized.dequantize_per_channel_group.default,
        integers, factors, points, *limits, torch.int8, data.shape[1] // groups, torch.float32,
    )  # fmt: skip


def _limits(named: dict[str, Any]) -> tuple[int, int]:
    low, high = named.get("quant_min"), named.get("quant_max")
    return (INT8[0] if low is None else int(low), INT8[1] if high is None else int(high))


def replace_by(node: Node, result: Node) -> None:
    node.replace_all_uses_with(result)
    node.graph.erase_node(node)


def activation(module: GraphModule, node: Node) -> int:
    """Given ``dequantize_affine(quantize_affine(x))`` with parameters that
    ``choose_qparams_affine`` finds for each row → Result
    ``dequantize_per_token(quantize_per_token(x))``; with ones that it finds for all of x, or
    constant ones → Result ``dequantize_per_tensor(quantize_per_tensor(x))``."""
    if schema_name(node) != DEQUANTIZE or not isinstance(node.args[0], Node):
        return 0
    made = quantized_activation(module, node, node.args[0])
    if made is None:
        return 0
    replace_by(node, made)
    return 1


def quantized_activation(module: GraphModule, before: Node, quantize: Node) -> Node | None:
    """``dequantize(quantize(x))`` for each token or all of x, for a ``quantize_affine`` node; new
    nodes before ``before``. None where it is quantized in another way."""
    if schema_name(quantize) != QUANTIZE:
        return None
    named = arguments(quantize)
    x = named["input"]
    value = x.meta["val"]
    block = list(named["block_size"])
    if named["output_dtype"] != torch.int8 or _limits(named) != INT8:
        return None
    scale, zero_point = value_of(module, named["scale"]), zero_point_of(module, quantize)
    if scale is not None and scale.numel() == 1 and zero_point is not None:
        return _pair(
            module, before, quantized.quantize_per_tensor.default,
            quantized.dequantize_per_tensor.default, x, (float(scale), zero_point), INT8,
        )  # fmt: skip
    choose = chosen_by(quantize)
    if choose is None or value.dtype != torch.float32:
        return None
    by_row = all(size == 1 for size in block[:-1]) and same_size(block[-1], value.shape[-1])
    if by_row:
        parameters = call(
            module, before, quantized.choose_qparams_per_token_asymmetric.default, x, torch.int8
        )
    elif all(map(same_size, block, value.shape)):
        eps = float(arguments(choose)["eps"] or torch.finfo(torch.float32).eps)
        parameters = call(
            module, before, quantized.choose_qparams.tensor, x, *INT8, eps, torch.int8
        )
    else:
        return None
    pair = tuple(call(module, before, operator.getitem, parameters, index) for index in (0, 1))
    if by_row:
        return _pair(
            module, before, quantized.quantize_per_token.default,
            quantized.dequantize_per_token.default, x, pair, INT8, torch.float32,
        )  # fmt: skip
    return _pair(
        module, before, quantized.quantize_per_tensor.tensor,
        quantized.dequantize_per_tensor.tensor, x, pair, INT8,
    )  # fmt: skip


def chosen_by(quantize: Node) -> Node | None:
    """The ``choose_qparams_affine`` that finds the parameters of a ``quantize_affine``."""
    scale = arguments(quantize)["scale"]
    if not isinstance(scale, Node) or scale.target is not operator.getitem:
        return None
    source = scale.args[0]
    return source if isinstance(source, Node) and schema_name(source) == CHOOSE else None


def zero_point_of(module: GraphModule, quantize: Node) -> int | None:
    """The one zero point of a ``quantize_affine``, where it is known."""
    chosen = chosen_by(quantize)
    if chosen is not None:
        return 0 if arguments(chosen)["mapping_type"] == "SYMMETRIC" else None
    node = arguments(quantize)["zero_point"]
    if node is None or isinstance(node, Node) and node.target is aten.zeros_like.default:
        return 0
    value = value_of(module, node)
    return int(value) if value is not None and value.numel() == 1 else None


def same_size(size: Any, other: Any) -> bool:
    if isinstance(size, Node):
        size = size.meta["val"]
    return bool(size == other)


def _pair(
    module: GraphModule,
    before: Node,
    quantize: Any,
    dequantize: Any,
    x: Node,
    parameters: tuple[Any, ...],
    limits: tuple[int, int],
    *rest: Any,
) -> Node:
    small = call(module, before, quantize, x, *parameters, *limits, torch.int8)
    return call(module, before, dequantize, small, *parameters, *limits, torch.int8, *rest)
