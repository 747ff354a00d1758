"""PyTorch's fake quantization in the terms of ``quantized_decomposed``."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import call
from penstock.compiler.rewrite.quantized_constants import value_of

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

#: One scale, as a number or in a tensor, or one for each channel. Programs that were taken apart
#: have the operators with a mask, for gradients, as their second result.
NUMBERS = (
    aten.fake_quantize_per_tensor_affine.default,
    aten.fake_quantize_per_tensor_affine_cachemask.default,
)
TENSORS = (aten.fake_quantize_per_tensor_affine.tensor_qparams,)
CHANNELS = (
    aten.fake_quantize_per_channel_affine.default,
    aten.fake_quantize_per_channel_affine_cachemask.default,
)


def apply(module: GraphModule) -> int:
    """Given ``fake_quantize_…(x)`` in 8 bits, with known parameters → Result:
    ``dequantize(quantize(x))``."""
    changes = 0
    for node in list(module.graph.nodes):
        if node.target not in (*NUMBERS, *TENSORS, *CHANNELS):
            continue
        results = [node]
        if isinstance(node.meta["val"], tuple):
            results = list(node.users)
        masks = any(user.args[1] != 0 for user in results if user is not node)
        made = None if masks else _pair(module, node)
        if made is None:
            continue
        for result in results:
            result.replace_all_uses_with(made)
        changes += 1
    if changes:
        module.graph.eliminate_dead_code()
    return changes


def _pair(module: GraphModule, node: Node) -> Node | None:
    named = arguments(node)
    low, high = int(named["quant_min"]), int(named["quant_max"])
    dtype = torch.int8 if -128 <= low <= high <= 127 else torch.uint8
    if not 0 <= low <= high <= 255 and dtype == torch.uint8:
        return None
    x, scale, zero_point = named["self"], named["scale"], named["zero_point"]
    if x.meta["val"].dtype != torch.float32:
        return None
    if node.target in CHANNELS:
        rest: tuple[Any, ...] = (scale, zero_point, named["axis"], low, high, dtype)
        quantize, dequantize = quantized.quantize_per_channel, quantized.dequantize_per_channel
    else:
        if node.target in TENSORS:
            factor, point = value_of(module, scale), value_of(module, zero_point)
            if factor is None or point is None:
                return None
            scale, zero_point = float(factor), int(point)
        rest = (scale, zero_point, low, high, dtype)
        quantize, dequantize = quantized.quantize_per_tensor, quantized.dequantize_per_tensor
    small = call(module, node, quantize.default, x, *rest)
    return call(module, node, dequantize.default, small, *rest)
