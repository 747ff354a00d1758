"""What several lowerings build the same way: arithmetic, products, softmax, movement.

All functions take and return the builder's :class:`Tensor` and think in logical shapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import ConstantQuantization, LoweringError, Tensor
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dim, Shape
from penstock.graph import weights
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import FLAG_TRANSPOSE_B, Value
from penstock.graph.kinds import (
    CONCATENATE,
    ConcatenateAttributes,
    NodeKind,
    PadAttributes,
    SliceAttributes,
)

RELU = (0.0, math.inf)


def scalar(builder: GraphBuilder, value: float) -> Tensor:
    return builder.constant(torch.tensor(float(value), dtype=torch.float32))


def add(b: GraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    return b.binary(NodeKind.ADD, left, right)


def subtract(b: GraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    return b.binary(NodeKind.SUBTRACT, left, right)


def multiply(b: GraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    return b.binary(NodeKind.MULTIPLY, left, right)


def divide(b: GraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    return b.binary(NodeKind.DIV, left, right)


def bounded(b: GraphBuilder, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``min(max(x, low), high)``. ``x`` comes last in both nodes: where these give their second
    operand if one is not a number (x86), not-a-number stays one, as it does elsewhere."""
    return b.binary(NodeKind.MINIMUM, high, b.binary(NodeKind.MAXIMUM, low, x))


def affine(b: GraphBuilder, x: Tensor, scale: float, shift: float) -> Tensor:
    """``x * scale + shift``."""
    if scale != 1.0:
        x = multiply(b, x, scalar(b, scale))
    return x if shift == 0.0 else add(b, x, scalar(b, shift))


# --- weights -----------------------------------------------------------------------------------


def weight_value(b: GraphBuilder, weight: Tensor, dims: Sequence[int], channels: int = 0) -> Value:
    """A weight permuted to ``dims``, as float32 or, when it is a quantized constant, as int8 with
    its scales. XNNPACK has scales of output channels alone, which are the weight's dimension
    ``channels``: a weight with scales along another becomes float32, of the same values."""
    data = weight.constant
    if data is None:
        raise LoweringError("its weight is not a constant")
    quantization = weight.constant_quantization
    if quantization is not None and quantization.block is not None and tuple(dims) == (0, 1):
        blocks = _blocks_of_4_bits(data, quantization, quantization.block)
        if blocks is not None:
            return b.raw_constant(
                torch.from_numpy(blocks[0]), DataType.QBINT4, blocks[1], tuple(data.shape)
            )
    along_others = quantization is not None and quantization.axis not in (None, channels)
    if quantization is None or along_others or not _is_symmetric_int8(data, quantization):
        real = weight.real().to(torch.float32).permute(*dims)
        return b.raw_constant(real, DataType.FP32)
    if quantization.axis is None:
        return b.raw_constant(
            data.permute(*dims),
            DataType.QINT8,
            PerTensor(float(quantization.scale), 0),
        )
    return b.raw_constant(
        data.permute(*dims),
        DataType.QCINT8,
        PerChannel(scales_array(quantization.scale), list(dims).index(quantization.axis)),
    )


def scales_array(scale: torch.Tensor) -> np.ndarray:
    array: np.ndarray = scale.detach().to(torch.float32).contiguous().numpy()
    return array


def _is_symmetric_int8(data: torch.Tensor, quantization: ConstantQuantization) -> bool:
    by_blocks = quantization.block is not None
    return data.dtype == torch.int8 and not by_blocks and not bool(quantization.zero_point.any())


#: XNNPACK wants blocks of a multiple of this.
LEAST_BLOCK = 32


def _blocks_of_4_bits(
    data: torch.Tensor, quantization: ConstantQuantization, block: int
) -> tuple[np.ndarray, Blockwise] | None:
    """A matrix as QBINT4 and its scales, which are rounded to bfloat16; None where its integers
    have more bits, or zero points, or scales that bfloat16 does not hold."""
    if data.dtype != torch.int8 or bool(quantization.zero_point.any()) or block % LEAST_BLOCK:
        return None
    if int(data.min()) < -8 or int(data.max()) > 7:
        return None
    scales = weights.float_to_bfloat16(scales_array(quantization.scale).reshape(-1))
    if not ((scales >= LEAST_BFLOAT16) & (scales < BFLOAT16_INFINITY)).all():
        return None
    return weights.packed(data.numpy(), DataType.QBINT4), Blockwise(scales, 0, block)


#: The bits of the least normal number and of infinity.
LEAST_BFLOAT16, BFLOAT16_INFINITY = 0x0080, 0x7F80


def bias_value(b: GraphBuilder, bias: Tensor | None) -> Tensor | None:
    if bias is None:
        return None
    if bias.constant is None:
        raise LoweringError("its bias is not a constant")
    return Tensor(
        bias.shape, bias.order, bias.shape,
        b.raw_constant(bias.real().to(torch.float32), DataType.FP32),
    )  # fmt: skip


# --- products ----------------------------------------------------------------------------------


def innermost(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    """``x`` placed so that ``dim`` is the innermost dimension of its memory."""
    x = b.dense(x)
    if x.order[-1] == dim:
        return b.place(x)
    order = (*(d for d in x.order if d != dim), dim)
    return b.place(x, order)


def quantized_rows(b: GraphBuilder, x: Tensor) -> Tensor:
    """``x`` in int8, each row with parameters that are chosen at run time."""
    x = innermost(b, x, x.rank - 1)
    output = b.result(x.shape, x.order, DataType.QDINT8, PerToken(1))
    return b.add_node(NodeKind.CONVERT, [x], output)


def real_rows(b: GraphBuilder, x: Tensor) -> Tensor:
    """What :func:`quantized_rows` gave, in float32."""
    return b.add_node(NodeKind.CONVERT, [x], b.result(x.shape, x.order))


def linear(b: GraphBuilder, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias`` over the last dimension; ``weight`` is [out, in], or [in] for the
    product of one row, whose dimension the result lacks."""
    if weight.rank == 1:
        product = matmul(b, x, weight)
        return product if bias is None else add(b, product, bias)
    if weight.constant is None:
        product = matmul(b, x, b.permute(weight, (1, 0)))
        return product if bias is None else add(b, product, bias)
    if x.rank == 1:
        row = linear(b, b.reshape(x, (1, *x.shape)), weight, bias)
        return b.reshape(row, row.shape[1:])
    late_bias = None if bias is None or bias.constant is not None else bias
    x = innermost(b, x, x.rank - 1)
    shape: Shape = (*x.shape[:-1], weight.shape[0])
    filter_value = weight_value(b, weight, (0, 1))
    filter_tensor = Tensor(weight.shape, (0, 1), weight.shape, filter_value)
    output = b.result(shape, x.order)
    bias_tensor = bias_value(b, None if late_bias is not None else bias)
    b.add_node(NodeKind.FULLY_CONNECTED, [x, filter_tensor, bias_tensor], output)
    return output if late_bias is None else add(b, output, late_bias)


def matmul(b: GraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    """PyTorch's ``matmul`` for any ranks, batch dimensions broadcast."""
    if left.rank == 1:
        product = matmul(b, b.reshape(left, (1, left.shape[0])), right)
        row = len(product.shape) - (1 if right.rank == 1 else 2)
        return b.reshape(product, (*product.shape[:row], *product.shape[row + 1 :]))
    if right.rank == 1:
        product = matmul(b, left, b.reshape(right, (right.shape[0], 1)))
        return b.reshape(product, product.shape[:-1])
    if right.is_constant and right.rank == 2 and not right.is_expanded:
        return linear(b, left, b.permute(right, (1, 0)), None)
    rank = max(left.rank, right.rank)
    left, right = b.unsqueeze_front(left, rank), b.unsqueeze_front(right, rank)
    batch = layout.identity(rank - 2)
    left = b.place(b.dense(left) if _core_expanded(left) else left, layout.identity(rank))
    if _core_expanded(right):
        right = b.dense(right)
    transposed = (*batch, rank - 1, rank - 2)
    flags = 0
    if right.constant is None and layout.same_memory(right.stored, right.order, transposed):
        flags = FLAG_TRANSPOSE_B
        right = b.place(right, transposed)
    else:
        right = b.place(right, layout.identity(rank))
    try:
        lead = layout.broadcast(left.shape[:-2], right.shape[:-2])
        stored = layout.broadcast(left.stored[:-2], right.stored[:-2])
    except ValueError as error:
        raise LoweringError(str(error)) from None
    tail = (left.shape[-2], right.shape[-1])
    output = b.result((*lead, *tail), layout.identity(rank), stored=(*stored, *tail))
    return b.add_node(NodeKind.BATCH_MATRIX_MULTIPLY, [left, right], output, flags=flags)


def _core_expanded(tensor: Tensor) -> bool:
    return tensor.stored[-2:] != tensor.shape[-2:]


# --- softmax -----------------------------------------------------------------------------------


def softmax(b: GraphBuilder, x: Tensor, dim: int) -> Tensor:
    """Softmax over ``dim``, which XNNPACK wants innermost."""
    if x.rank == 0:
        return b.reshape(softmax(b, b.reshape(x, (1,)), 0), ())
    x = innermost(b, x, dim % x.rank)
    return b.add_node(NodeKind.SOFTMAX, [x], b.result(x.shape, x.order))


# --- movement ----------------------------------------------------------------------------------


def slice_dims(
    b: GraphBuilder, x: Tensor, starts: Sequence[int], sizes: Sequence[Dim], flags: int = 0
) -> Tensor:
    """A static slice: ``starts`` and ``sizes`` for each logical dimension. With FLAG_KEEP_DIMS
    sizes of 1 are that even where ``x`` turns out to have no elements."""
    if tuple(sizes) == x.shape:
        return x
    if x.constant is not None:
        real = b.full_constant(x)
        for dim, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            extent = x.shape[dim]
            if not isinstance(extent, int):
                # What every index holds. There may be fewer of them than PyTorch took for granted.
                if isinstance(size, int) and start + size > b.dynamic.lower(extent):
                    raise LoweringError("it slices a constant of a dynamic size to a fixed one")
                continue
            if not isinstance(size, int):
                raise LoweringError("it slices a constant to a dynamic size")
            real = real.narrow(dim, start, size)
        return b.constant_of(real, tuple(sizes))
    stored: list[Dim] = [
        1 if x.stored[dim] == 1 and x.shape[dim] != 1 else size for dim, size in enumerate(sizes)
    ]
    if tuple(stored) == x.stored:
        return replace(x, shape=tuple(sizes))
    offsets = [0 if stored[dim] == 1 and x.stored[dim] == 1 else s for dim, s in enumerate(starts)]
    counts = list(stored)
    for dim, size in enumerate(stored):
        if isinstance(size, int):
            continue
        counts[dim] = 0
        if not layout.same(size, x.stored[dim]):
            if not layout.same(size + offsets[dim], x.stored[dim]):
                raise LoweringError("it slices to a dynamic size")
            # XNNPACK cuts off what exceeds the end.
            counts[dim] = b.dynamic.upper(x.stored[dim]) - offsets[dim]
            b.graph.fixed_sizes = False
    value = b.value_of(x)
    output = b.result(tuple(sizes), x.order, value.dtype, value.quantization, tuple(stored))
    attributes = SliceAttributes(
        tuple(offsets[dim] for dim in x.order), tuple(counts[dim] for dim in x.order)
    )
    return b.add_node(NodeKind.STATIC_SLICE, [x], output, attributes, flags=flags)


def cut(b: GraphBuilder, x: Tensor, dim: int, start: int, size: Dim, flags: int = 0) -> Tensor:
    """``size`` indices of dimension ``dim``, from ``start`` on; ``flags`` as in slice_dims."""
    starts, sizes = [0] * x.rank, list(x.shape)
    starts[dim], sizes[dim] = start, size
    return slice_dims(b, x, starts, sizes, flags)


def concatenate(b: GraphBuilder, tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenation of any number of tensors: XNNPACK joins up to five at once."""
    tensors = [b.dense(tensor) for tensor in tensors]
    if len(tensors) == 1:
        return tensors[0]
    dim %= tensors[0].rank
    dynamic = [tensor for tensor in tensors if not tensor.is_constant]
    leader = max(
        dynamic or list(tensors),
        key=lambda tensor: math.prod(b.dynamic.upper(size) for size in tensor.shape),
    )
    placed = [b.place(tensor, leader.order) for tensor in tensors]
    while len(placed) > 1:
        placed = [
            group[0] if len(group) == 1 else _concatenate_up_to_5(b, group, dim, leader.order)
            for group in (placed[i : i + 5] for i in range(0, len(placed), 5))
        ]
    return placed[0]


def _concatenate_up_to_5(
    b: GraphBuilder, group: Sequence[Tensor], dim: int, order: layout.Order
) -> Tensor:
    size: Dim = 0
    for tensor in group:
        size = size + tensor.shape[dim]
    shape = (*group[0].shape[:dim], size, *group[0].shape[dim + 1 :])
    value = b.value_of(group[0])
    output = b.result(shape, order, value.dtype, value.quantization)
    attributes = ConcatenateAttributes(order.index(dim))
    return b.add_node(CONCATENATE[len(group)], list(group), output, attributes)


def pad_constant(
    b: GraphBuilder, x: Tensor, pre: Sequence[int], post: Sequence[int], value: float
) -> Tensor:
    """Pads with ``value``; negative amounts cut."""
    if any(amount < 0 for amount in (*pre, *post)):
        starts = [max(0, -amount) for amount in pre]
        sizes = [
            size - start - max(0, -after)
            for size, start, after in zip(x.shape, starts, post, strict=True)
        ]
        x = slice_dims(b, x, starts, sizes)
        pre = [max(0, amount) for amount in pre]
        post = [max(0, amount) for amount in post]
    if not any((*pre, *post)):
        return x
    x = b.place(b.dense(x))
    shape = tuple(s + a + z for s, a, z in zip(x.shape, pre, post, strict=True))
    held = b.value_of(x)
    output = b.result(shape, x.order, held.dtype, held.quantization)
    attributes = PadAttributes(
        tuple(pre[dim] for dim in x.order), tuple(post[dim] for dim in x.order), value
    )
    return b.add_node(NodeKind.STATIC_CONSTANT_PAD, [x], output, attributes)
