"""Quantize and dequantize nodes, as ``convert_pt2e`` leaves them."""

from __future__ import annotations

from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import (
    ConstantQuantization,
    LoweringError,
    Tensor,
    dequantize_constant,
)
from penstock.compiler.delegate.operators.constraints import is_constant, rank_fits
from penstock.compiler.delegate.operators.registry import operator
from penstock.compiler.fx.arguments import arguments
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.kinds import NodeKind

quantized = torch.ops.quantized_decomposed

INTEGER_TYPES = {torch.int8: DataType.QINT8, torch.uint8: DataType.QUINT8}


def _known_parameters(node: Node) -> str | None:
    """A scale and a zero point that are known."""
    named = arguments(node)
    if any(isinstance(named[key], Node) for key in ("scale", "zero_point")):
        return "its scale or zero point is computed at run time, XNNPACK needs constants"
    return None


def _eight_bits(node: Node) -> str | None:
    """int8 or uint8, the whole range."""
    named = arguments(node)
    limits = {torch.int8: (-128, 127), torch.uint8: (0, 255)}
    dtype = named["dtype"]
    if is_constant(node):
        return None
    if dtype not in limits:
        return f"XNNPACK's quantized tensors have 8 bits, not {dtype}"
    if (named["quant_min"], named["quant_max"]) != limits[dtype]:
        return f"XNNPACK uses all of {dtype}, not {named['quant_min']} to {named['quant_max']}"
    return None


@operator(
    "quantize_per_tensor",
    quantized.quantize_per_tensor.default,
    constraints=(rank_fits, _known_parameters, _eight_bits),
)
def lower_quantize(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["input"])
    x = b.place(x)
    output = b.result(
        x.shape, x.order, INTEGER_TYPES[named["dtype"]],
        PerTensor(float(named["scale"]), int(named["zero_point"])), x.stored,
    )  # fmt: skip
    return b.add_node(NodeKind.CONVERT, [x], output)


@operator(
    "dequantize_per_tensor",
    quantized.dequantize_per_tensor.default,
    constraints=(rank_fits, _known_parameters, _eight_bits),
)
def lower_dequantize(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    x = b.tensor(named["input"]) if not is_constant(node) else _integers(b, named["input"])
    scale, zero_point = float(named["scale"]), int(named["zero_point"])
    if x.constant is not None:
        return b.constant(
            x.constant,
            ConstantQuantization(torch.tensor(scale), torch.tensor(zero_point), None),
        )
    value = b.value_of(x)
    if value.quantization is None:
        # A quantized input of the delegate learns its parameters from its first reader.
        value.quantization = PerTensor(scale, zero_point)
    output = b.result(x.shape, x.order, stored=x.stored)
    return b.add_node(NodeKind.CONVERT, [x], output)


def _integers(b: GraphBuilder, node: Node) -> Tensor:
    return b.integer_constant(node)


def _constant_input(node: Node) -> str | None:
    """Of a constant."""
    return None if is_constant(node) else "only constants are dequantized per channel"


@operator(
    "dequantize_per_channel",
    quantized.dequantize_per_channel.default,
    constraints=(_constant_input,),
)
def lower_dequantize_per_channel(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    data = b.integer_constant(named["input"])
    scales, zero_points = (b.integer_constant(named[key]) for key in ("scales", "zero_points"))
    assert data.constant is not None
    assert scales.constant is not None and zero_points.constant is not None
    axis = int(named["axis"]) % data.rank
    return b.constant(
        data.constant, ConstantQuantization(scales.constant, zero_points.constant, axis)
    )


@operator(
    "dequantize_per_channel_group",
    quantized.dequantize_per_channel_group.default,
    constraints=(_constant_input,),
    notes="4-bit weights of products whose activations are quantized at run time stay so; others "
    "are written out as float32",
)
def lower_dequantize_groups(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    data = b.integer_constant(named["input"]).constant
    scales = b.integer_constant(named["scales"]).constant
    assert data is not None and scales is not None
    points = torch.zeros_like(scales)
    if named["zero_points"] is not None:
        found = b.integer_constant(named["zero_points"]).constant
        assert found is not None
        points = found
    quantization = ConstantQuantization(scales, points, 0, int(named["group_size"]))
    if not all(_reads_tokens(user) for user in node.users):
        return b.constant(dequantize_constant(data, quantization))
    return b.constant(data, quantization)


def _reads_tokens(node: Node) -> bool:
    """Whether a product reads an activation that is quantized at run time."""
    source = node.args[0]
    return (
        node.target is torch.ops.aten.linear.default
        and isinstance(source, Node)
        and source.target in DYNAMIC_DEQUANTIZE
    )


CHOOSE = (
    quantized.choose_qparams.tensor,
    quantized.choose_qparams_symmetric.tensor,
    quantized.choose_qparams_per_token_asymmetric.default,
)
DYNAMIC_DEQUANTIZE = (
    quantized.dequantize_per_tensor.tensor,
    quantized.dequantize_per_token.default,
)


DYNAMIC_QUANTIZE = (
    quantized.quantize_per_tensor.tensor,
    quantized.quantize_per_token.default,
)


def is_dynamic_parameters(node: Node) -> bool:
    return node.target in CHOOSE


def _for_conversions(node: Node) -> str | None:
    """Read by conversions only."""
    readers = (reader for item in node.users for reader in item.users)
    if all(reader.target in (*DYNAMIC_QUANTIZE, *DYNAMIC_DEQUANTIZE) for reader in readers):
        return None
    return "other operators than quantize and dequantize read its scale or zero point"


@operator("choose_qparams", *CHOOSE, constraints=(_for_conversions,))
def lower_choose_qparams(b: GraphBuilder, node: Node) -> tuple[Tensor, ...]:
    """XNNPACK chooses the parameters itself, row by row, when it converts."""
    x = b.tensor(node.args[0])
    return (x, x)


_NOT_CHOSEN = "its scale and zero point do not come from choose_qparams, which XNNPACK computes"


def _dynamic_pair(node: Node) -> str | None:
    """A scale and a zero point from choose_qparams."""
    named = arguments(node)
    for item in (named.get("scale", named.get("scales")), _zero_point(named)):
        if not isinstance(item, Node) or not item.args or not isinstance(item.args[0], Node):
            return _NOT_CHOSEN
        if not is_dynamic_parameters(item.args[0]):
            return _NOT_CHOSEN
    return None


def _zero_point(named: dict[str, Any]) -> Any:
    return named.get("zero_point", named.get("zero_points"))


@operator(
    "quantize_per_tensor (dynamic)",
    *DYNAMIC_QUANTIZE,
    constraints=(rank_fits, _dynamic_pair),
)
def lower_dynamic_quantize(b: GraphBuilder, node: Node) -> Tensor:
    return ex.quantized_rows(b, b.tensor(node.args[0]))


@operator(
    "dequantize_per_tensor (dynamic)",
    *DYNAMIC_DEQUANTIZE,
    constraints=(rank_fits, _dynamic_pair),
)
def lower_dynamic_dequantize(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    if b.value_of(x).dtype is not DataType.QDINT8:
        raise LoweringError("its input is not quantized by the operator before it")
    return ex.real_rows(b, x)
