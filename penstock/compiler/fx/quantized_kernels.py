"""The quantized kernels' schemas, and the fused operators that Penstock adds to PyTorch.

PyTorch has the ``quantized_decomposed`` operators in their functional form only. Their out
variants are declared here, so that a compile needs no other library for them. They are kept out
of PyTorch's dispatcher: a name can be registered there once in a process, and the library that
others register them with (``libquantized_ops_aot_lib.so``) ends the process if it comes second.
It may be loaded before or after, or not at all.

What PyTorch has in no form (a quantized add, products with int8 weights, quantized embeddings)
becomes an operator of the namespace ``penstock``, registered with the dispatcher, with the
meaning that the kernel of :data:`FUSED` has.

Source of the schemas: ExecuTorch 1.5.1, ``kernels/quantized/quantized.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

_PER_TENSOR = "int quant_min, int quant_max, ScalarType dtype"
_WEIGHT = "Tensor weight, Tensor weight_scales, Tensor? weight_zero_points"
_ROWS = f"{_WEIGHT}, int weight_quant_min, int weight_quant_max, Tensor indices"
_SUM = (
    "Tensor a, float a_scale, int a_zero_point, int a_quant_min, int a_quant_max, "
    "Tensor b, float b_scale, int b_zero_point, int b_quant_min, int b_quant_max, "
    "float out_scale, int out_zero_point, int out_quant_min, int out_quant_max"
)
_OUT = "*, Tensor(a!) out) -> Tensor(a!)"
_OUT_DTYPE = "*, ScalarType? out_dtype=None, Tensor(a!) out) -> Tensor(a!)"
_PARAMETERS_OUT = "*, Tensor(a!) scale_out, Tensor(b!) zero_point_out) -> (Tensor(a!), Tensor(b!))"

SCHEMAS = (
    f"add.out({_SUM}, {_OUT}",
    f"choose_qparams.Tensor_out(Tensor input, int quant_min, int quant_max, float eps, "
    f"ScalarType dtype, {_PARAMETERS_OUT}",
    f"choose_qparams_per_token_asymmetric.out(Tensor input, ScalarType dtype, {_PARAMETERS_OUT}",
    f"quantize_per_tensor.out(Tensor input, float scale, int zero_point, {_PER_TENSOR}, {_OUT}",
    f"quantize_per_tensor.Tensor_out(Tensor input, Tensor scale, Tensor zero_point, "
    f"{_PER_TENSOR}, {_OUT}",
    f"dequantize_per_tensor.out(Tensor input, float scale, int zero_point, {_PER_TENSOR}, "
    f"{_OUT_DTYPE}",
    f"dequantize_per_tensor.Tensor_out(Tensor input, Tensor scale, Tensor zero_point, "
    f"{_PER_TENSOR}, {_OUT_DTYPE}",
    f"quantize_per_channel.out(Tensor input, Tensor scales, Tensor zero_points, int axis, "
    f"{_PER_TENSOR}, {_OUT}",
    f"dequantize_per_channel.out(Tensor input, Tensor scales, Tensor? zero_points, int axis, "
    f"{_PER_TENSOR}, {_OUT_DTYPE}",
    f"quantize_per_token.out(Tensor input, Tensor scales, Tensor zero_points, {_PER_TENSOR}, "
    f"{_OUT}",
    f"dequantize_per_token.out(Tensor input, Tensor scales, Tensor zero_points, {_PER_TENSOR}, "
    f"ScalarType output_dtype, {_OUT}",
    f"embedding_byte.out({_ROWS}, {_OUT}",
    f"embedding_4bit.out({_ROWS}, {_OUT}",
    f"embedding_2bit.out({_ROWS}, {_OUT}",
    f"mixed_mm.out(Tensor input, {_WEIGHT}, {_OUT}",
    f"mixed_linear.out(Tensor input, {_WEIGHT}, ScalarType? dtype=None, {_OUT}",
)

#: Penstock's operator -> the operator whose out variant is its kernel.
FUSED = {
    f"penstock::{name}": f"quantized_decomposed::{name}"
    for name in ("add", "mixed_mm", "mixed_linear", "embedding_byte", "embedding_4bit",
                 "embedding_2bit")
}  # fmt: skip


@cache
def _parsed() -> dict[str, tuple[Any, ...]]:
    result: dict[str, tuple[Any, ...]] = {}
    for text in SCHEMAS:
        schema = torch._C.parse_schema(f"quantized_decomposed::{text}")
        result[schema.name] = (*result.get(schema.name, ()), schema)
    return result


def schemas_of(name: str) -> tuple[Any, ...]:
    """The schemas of the out variants of ``quantized_decomposed::…``; none for other names."""
    return _parsed().get(name, ())


_library = torch.library.Library("penstock", "FRAGMENT")


def _define(schema: str) -> Callable[[Callable[..., Any]], Any]:
    """Registers a function as an operator, for real and for fake tensors."""
    name = schema.split("(")[0]
    if not hasattr(torch.ops.penstock, name):
        _library.define(f"{schema} -> Tensor")

    def register(function: Any) -> Any:
        _library.impl(name, function, "CompositeExplicitAutograd")
        # Said again: the kernel cannot be called on stand-ins of dynamic sizes.
        torch.library.register_fake(
            f"penstock::{name}", function, lib=_library, allow_override=True
        )
        return getattr(torch.ops.penstock, name).default

    return register


@_define(f"add({_SUM})")
def add(
    a: torch.Tensor, a_scale: float, a_zero_point: int, a_quant_min: int, a_quant_max: int,
    b: torch.Tensor, b_scale: float, b_zero_point: int, b_quant_min: int, b_quant_max: int,
    out_scale: float, out_zero_point: int, out_quant_min: int, out_quant_max: int,
) -> torch.Tensor:  # fmt: skip
    """The sum of two quantized tensors of one shape and type, quantized, by way of float32."""
    left = (a.to(torch.float32) - a_zero_point) * a_scale
    right = (b.to(torch.float32) - b_zero_point) * b_scale
    steps = torch.round((left + right) * (1.0 / out_scale)) + out_zero_point
    return steps.clamp(out_quant_min, out_quant_max).to(a.dtype)


@_define(f"mixed_mm(Tensor input, {_WEIGHT})")
def mixed_mm(
    input: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    weight_zero_points: torch.Tensor | None,
) -> torch.Tensor:
    """``input @ weight``, the int8 ``weight`` [in, out] with a scale for each row."""
    return torch.mm(input, weight.to(input.dtype) * weight_scales[:, None])


@_define(f"mixed_linear(Tensor input, {_WEIGHT}, ScalarType? dtype=None)")
def mixed_linear(
    input: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    weight_zero_points: torch.Tensor | None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``input @ weight.T``, the int8 ``weight`` [out, in] with a scale for each row, or a row of
    scales [out, groups] for groups of its columns."""
    scales = weight_scales.reshape(weight.shape[0], -1)
    grouped = weight.to(input.dtype).reshape(*scales.shape, -1) * scales[..., None]
    return torch.mm(input, grouped.reshape(weight.shape).t()).to(dtype or input.dtype)


def _embedding(bits: int) -> None:
    name = "embedding_byte" if bits == 8 else f"embedding_{bits}bit"

    @_define(f"{name}({_ROWS})")
    def embedding(
        weight: torch.Tensor,
        weight_scales: torch.Tensor,
        weight_zero_points: torch.Tensor | None,
        weight_quant_min: int,
        weight_quant_max: int,
        indices: torch.Tensor,
    ) -> torch.Tensor:
        rows = unpacked(weight, bits)[indices].to(weight_scales.dtype)
        grouped = rows.reshape(*indices.shape, weight_scales[0].numel(), -1)
        if weight_zero_points is not None:
            grouped = grouped - weight_zero_points[indices].reshape(*grouped.shape[:-1], 1)
        grouped = grouped * weight_scales[indices].reshape(*grouped.shape[:-1], 1)
        return grouped.reshape(rows.shape)


def unpacked(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The integers that the quantized embeddings' kernels see in packed ``weight`` [rows, bytes]:
    in a byte the first of two lies in the high half, the first of four in the lowest bits."""
    if bits == 8:
        return weight
    shifts = (4, 0) if bits == 4 else (0, 2, 4, 6)
    parts = [((weight >> shift) & (2**bits - 1)).to(torch.int8) for shift in shifts]
    signed: torch.Tensor = torch.stack(parts, -1).flatten(1) - 2 ** (bits - 1)
    return signed


def packed(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The reverse of :func:`unpacked`: uint8, for integers within ±2 ** (bits - 1)."""
    if bits == 8:
        return weight
    shifts = (4, 0) if bits == 4 else (0, 2, 4, 6)
    parts = (weight.to(torch.int16) + 2 ** (bits - 1)).unflatten(1, (-1, len(shifts)))
    total = sum(parts[..., index] << shift for index, shift in enumerate(shifts))
    assert isinstance(total, torch.Tensor)
    return total.to(torch.uint8)


for _bits in (8, 4, 2):
    _embedding(_bits)
