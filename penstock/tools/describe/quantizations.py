"""How the tensors of a method are quantized. The format does not say it of a tensor: it is read off
the delegates that take or give it, and off the kernels that quantize it or that take it back."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.formats.program import Method
from penstock.tools.describe.delegates import DelegateDescription
from penstock.tools.describe.instructions import InstructionDescription
from penstock.tools.describe.values import QuantizationDescription

_QUANTIZE = "quantized_decomposed::quantize_per_tensor"
_DEQUANTIZE = "quantized_decomposed::dequantize_per_tensor"


def known_quantizations(
    method: Method,
    instructions: Sequence[InstructionDescription],
    delegates: Sequence[DelegateDescription],
) -> dict[int, QuantizationDescription]:
    """By the number of a value of the method, that of those where it is known."""
    found: dict[int, QuantizationDescription] = {}
    for one in instructions:
        if one.delegate is not None:
            _of_delegate(one, delegates[one.delegate], found)
        elif one.kind == "kernel":
            _of_kernel(one, method, found)
    return found


def _of_delegate(
    call: InstructionDescription,
    delegate: DelegateDescription,
    found: dict[int, QuantizationDescription],
) -> None:
    for kind, numbers in (("input", call.inputs), ("output", call.outputs)):
        externals = [value for value in delegate.values if value.kind == kind]
        order = delegate.inputs if kind == "input" else delegate.outputs
        if len(numbers) != len(order):
            continue
        by_position = dict(zip(order, numbers, strict=True))
        for value in externals:
            if value.quantization is not None and value.external_id in by_position:
                found.setdefault(by_position[value.external_id], value.quantization)


def _of_kernel(
    call: InstructionDescription, method: Method, found: dict[int, QuantizationDescription]
) -> None:
    name = call.label.partition(".")[0]
    if name not in (_QUANTIZE, _DEQUANTIZE) or len(call.inputs) < 3 or not call.outputs:
        return
    scale, zero_point = (method.values[number] for number in call.inputs[1:3])
    if isinstance(scale, (int, float)) and isinstance(zero_point, int):
        quantized = call.outputs[0] if name == _QUANTIZE else call.inputs[0]
        scale = float(scale)
        found.setdefault(
            quantized, QuantizationDescription("per tensor", zero_point, 1, scale, scale)
        )
