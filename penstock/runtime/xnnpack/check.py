"""Is a graph one that XNNPACK can be trusted with?

XNNPACK's release build asserts nothing: an element type that an operator does not expect, or a
constant shorter than its shape, ends in a crash. What comes from a file is therefore checked in
full before the first call: values, constants, the order of nodes, and each node against its row
of :data:`RULES`. Shapes are in :mod:`penstock.runtime.xnnpack.infer`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain

import numpy as np

from penstock.errors import InvalidProgramError
from penstock.formats.payload import (
    FLAG_ALIGN_CORNERS,
    FLAG_KEEP_DIMS,
    FLAG_TENSORFLOW_SAME_PADDING,
    FLAG_TRANSPOSE_B,
    FLAG_TRANSPOSE_WEIGHTS,
    INVALID_VALUE_ID,
    MAX_TENSOR_DIMS,
    Blockwise,
    ConcatenateAttributes,
    Conv2dAttributes,
    DataType,
    EluAttributes,
    LeakyReluAttributes,
    Node,
    NodeKind,
    PadAttributes,
    PerChannel,
    PerTensor,
    PerToken,
    Pool2dAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    TransposeAttributes,
    Value,
    XnnGraph,
)
from penstock.runtime.xnnpack.infer import MAX_DIMENSION

FP32, FP16, BF16, INT32 = DataType.FP32, DataType.FP16, DataType.BF16, DataType.INT32
QINT8, QUINT8, QDINT8 = DataType.QINT8, DataType.QUINT8, DataType.QDINT8

#: Bits of an element.
BITS: Mapping[DataType, int] = {
    FP32: 32, FP16: 16, BF16: 16, INT32: 32, QINT8: 8, QUINT8: 8, QDINT8: 8,
    DataType.QINT32: 32, DataType.QCINT8: 8, DataType.QCINT32: 32, DataType.QCINT4: 4,
    DataType.QBINT4: 4,
}  # fmt: skip
#: How each type is quantized; ``None`` means that it is not.
QUANTIZATION: Mapping[DataType, type | None] = {
    FP32: None, FP16: None, BF16: None, INT32: None, QDINT8: PerToken,
    QINT8: PerTensor, QUINT8: PerTensor, DataType.QINT32: PerTensor,
    DataType.QCINT8: PerChannel, DataType.QCINT32: PerChannel, DataType.QCINT4: PerChannel,
    DataType.QBINT4: Blockwise,
}  # fmt: skip
_ZERO_POINTS = {QINT8: (-128, 127), QUINT8: (0, 255), DataType.QINT32: (0, 0)}
#: Types of filters and biases, which must be constants.
WEIGHTS_ONLY = frozenset(
    {DataType.QINT32, DataType.QCINT8, DataType.QCINT32, DataType.QCINT4, DataType.QBINT4}
)
MAX_EXTERNAL = 4096
_MIN_BLOCK = 32
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)

_FLOATS = frozenset({FP32, FP16})
_EIGHT_BITS = frozenset({QINT8, QUINT8})
_ELEMENTWISE = frozenset({FP32, FP16, BF16, INT32}) | _EIGHT_BITS
_POOLED = _FLOATS | _EIGHT_BITS
_WEIGHTED = _POOLED | {QDINT8, BF16}
_PADDING = FLAG_TENSORFLOW_SAME_PADDING | FLAG_KEEP_DIMS
_LEGACY_RESIZE = 0x4


@dataclass(frozen=True)
class Rule:
    """What a node of a kind must look like.

    ``dtypes`` are those of the first input; ``same`` demands them of every input and output.
    ``bias`` allows the last input to be absent.
    """

    inputs: int
    dtypes: frozenset[DataType]
    attributes: type | None = None
    flags: int = 0
    outputs: int = 1
    same: bool = True
    bias: bool = False


_UNARY = Rule(1, _ELEMENTWISE)
_BINARY = Rule(2, _ELEMENTWISE)
_CONVOLUTION = Rule(
    3, _WEIGHTED, Conv2dAttributes, FLAG_TENSORFLOW_SAME_PADDING, same=False, bias=True
)
RULES: Mapping[NodeKind, Rule] = {
    **dict.fromkeys(
        (
            NodeKind.ABS, NodeKind.CEILING, NodeKind.CLAMP, NodeKind.COPY, NodeKind.COS,
            NodeKind.EXP, NodeKind.FLOOR, NodeKind.GELU, NodeKind.HARDSWISH, NodeKind.LOG,
            NodeKind.NEGATE, NodeKind.RECIPROCAL_SQUARE_ROOT, NodeKind.SIGMOID, NodeKind.SIN,
            NodeKind.SQUARE, NodeKind.SQUARE_ROOT, NodeKind.TANH,
        ),
        _UNARY,
    ),
    **dict.fromkeys(
        (
            NodeKind.ADD, NodeKind.SUBTRACT, NodeKind.MULTIPLY, NodeKind.DIV, NodeKind.MINIMUM,
            NodeKind.MAXIMUM, NodeKind.PRELU,
        ),
        _BINARY,
    ),
    **{
        kind: Rule(count, _ELEMENTWISE, ConcatenateAttributes)
        for count, kind in enumerate(
            (
                NodeKind.CONCATENATE_2, NodeKind.CONCATENATE_3,
                NodeKind.CONCATENATE_4, NodeKind.CONCATENATE_5,
            ),
            start=2,
        )
    },
    NodeKind.ELU: Rule(1, _ELEMENTWISE, EluAttributes),
    NodeKind.LEAKY_RELU: Rule(1, _ELEMENTWISE, LeakyReluAttributes),
    NodeKind.CONVERT: Rule(1, _ELEMENTWISE, same=False),
    NodeKind.SOFTMAX: Rule(1, _FLOATS),
    NodeKind.FULLY_CONNECTED: Rule(
        3, _WEIGHTED, flags=FLAG_TRANSPOSE_WEIGHTS, same=False, bias=True
    ),
    NodeKind.BATCH_MATRIX_MULTIPLY: Rule(
        2, _FLOATS | {BF16, QINT8}, flags=FLAG_TRANSPOSE_B, same=False
    ),
    NodeKind.CONV_2D: _CONVOLUTION,
    NodeKind.DEPTHWISE_CONV_2D: _CONVOLUTION,
    NodeKind.CONV_TRANSPOSE_2D: Rule(3, _WEIGHTED, Conv2dAttributes, same=False, bias=True),
    NodeKind.AVG_POOLING_2D: Rule(1, _FLOATS, Pool2dAttributes, _PADDING),
    NodeKind.MAX_POOLING_2D: Rule(1, _POOLED, Pool2dAttributes, _PADDING),
    NodeKind.ARG_MAX_POOLING_2D: Rule(
        1, frozenset({FP32}), Pool2dAttributes, FLAG_KEEP_DIMS, outputs=2, same=False
    ),
    NodeKind.GLOBAL_AVG_POOLING_2D: Rule(1, _POOLED, flags=FLAG_KEEP_DIMS),
    NodeKind.STATIC_TRANSPOSE: Rule(1, _ELEMENTWISE, TransposeAttributes),
    NodeKind.STATIC_RESHAPE: Rule(1, _ELEMENTWISE, ReshapeAttributes),
    NodeKind.STATIC_SLICE: Rule(1, _ELEMENTWISE, SliceAttributes),
    NodeKind.STATIC_CONSTANT_PAD: Rule(1, _POOLED | {BF16}, PadAttributes),
    NodeKind.STATIC_RESIZE_BILINEAR_2D: Rule(
        1, _POOLED, ResizeAttributes, FLAG_ALIGN_CORNERS | _LEGACY_RESIZE
    ),
}  # fmt: skip


class _Fault(ValueError):
    """What is wrong with the value or node at hand."""


def check_graph(graph: XnnGraph) -> None:
    """Check all of ``graph`` but the shapes of its nodes' outputs.

    Raises:
        InvalidProgramError: names the value or node and what is wrong with it.
    """
    values: dict[int, Value] = {}
    for value in graph.values:
        try:
            if value.id in values or not 0 <= value.id < INVALID_VALUE_ID:
                raise _Fault("its id is taken or out of range")
            _check_value(value)
        except _Fault as fault:
            raise InvalidProgramError(f"value {value.id} of the graph: {fault}") from None
        values[value.id] = value
    _check_ports(graph, values)
    ready = {i for i, v in values.items() if v.is_input or v.data is not None}
    for index, node in enumerate(graph.nodes):
        try:
            _check_node(node, values, ready)
        except _Fault as fault:
            raise InvalidProgramError(
                f"node {index} ({node.kind.name}) of the graph: {fault}"
            ) from None
        ready.update(node.outputs)
    for i in graph.outputs:
        if i not in ready:
            raise InvalidProgramError(f"output value {i} of the graph is never computed")


def _check_value(value: Value) -> None:
    if value.dtype not in BITS:
        raise _Fault(f"type {value.dtype.name} is not for files")
    shape = value.shape
    if len(shape) > MAX_TENSOR_DIMS or any(not 0 < size <= MAX_DIMENSION for size in shape):
        raise _Fault(f"shape {list(shape)} is out of range")
    kind = QUANTIZATION[value.dtype]
    if not isinstance(value.quantization, kind or type(None)):
        raise _Fault(f"type {value.dtype.name} does not go with {value.quantization}")
    _check_quantization(value)
    if value.data is not None:
        needed, given = constant_size(value), _buffer_size(value.data)
        if given < needed:
            raise _Fault(f"constant has {given} bytes, its shape {list(shape)} needs {needed}")
    elif value.dtype in WEIGHTS_ONLY:
        raise _Fault(f"type {value.dtype.name} is for constants only")
    external = value.is_input or value.is_output
    if external != (value.external_id is not None) or (value.is_input and value.is_output):
        raise _Fault("input or output flags contradict its external id")
    if external and (value.data is not None or value.dtype == QDINT8):
        raise _Fault("a constant or dynamically quantized value cannot be an input or output")


def _check_quantization(value: Value) -> None:
    q, shape = value.quantization, value.shape
    if isinstance(q, PerTensor):
        low, high = _ZERO_POINTS[value.dtype]
        if not low <= q.zero_point <= high:
            raise _Fault(f"zero point {q.zero_point} of {value.dtype.name} is out of range")
        if not _SMALLEST_SCALE <= q.scale < math.inf:
            raise _Fault(f"scale {q.scale} is not a positive normal number")
    elif isinstance(q, PerChannel):
        if not 0 <= q.axis < len(shape):
            raise _Fault(f"channel axis {q.axis} of {len(shape)} dimensions")
        if np.shape(q.scales) != (shape[q.axis],):
            raise _Fault(f"{np.size(q.scales)} scales for {shape[q.axis]} channels")
        scales = np.asarray(q.scales, np.float32)
        if not np.all((scales >= _SMALLEST_SCALE) & (scales < np.inf)):
            raise _Fault("scales are not all positive normal numbers")
    elif isinstance(q, PerToken):
        if not 0 < q.nonbatch_dims <= len(shape):
            raise _Fault(f"{q.nonbatch_dims} dimensions per token of {len(shape)}")
    elif isinstance(q, Blockwise):
        if len(shape) != 2 or q.axis != 0 or shape[1] % _MIN_BLOCK:
            raise _Fault(f"blockwise quantization of shape {list(shape)} along axis {q.axis}")
        if q.block_size < _MIN_BLOCK or q.block_size % _MIN_BLOCK or shape[1] % q.block_size:
            raise _Fault(f"block size {q.block_size} for rows of {shape[1]}")
        if np.size(q.scales) != shape[0] * (shape[1] // q.block_size):
            raise _Fault(f"{np.size(q.scales)} scales for blocks of {q.block_size}")
        # bfloat16: not negative, neither zero nor subnormal, neither infinite nor NaN.
        bits = np.asarray(q.scales, np.uint16)
        if not np.all((bits >= 0x0080) & (bits < 0x7F80)):
            raise _Fault("scales are not all positive normal numbers")


def constant_size(value: Value) -> int:
    """Bytes of a constant. Rows of 4-bit elements begin at a byte."""
    if BITS[value.dtype] == 4:
        return math.prod(value.shape[:-1]) * -(-(value.shape[-1] if value.shape else 1) // 2)
    return math.prod(value.shape) * BITS[value.dtype] // 8


def _buffer_size(data: np.ndarray | bytes | bytearray | memoryview) -> int:
    return len(data) if isinstance(data, (bytes, bytearray)) else data.nbytes


def _check_ports(graph: XnnGraph, values: Mapping[int, Value]) -> None:
    seen: set[int] = set()
    for value in values.values():
        if value.external_id is None:
            continue
        if value.external_id in seen or not 0 <= value.external_id < MAX_EXTERNAL:
            raise InvalidProgramError(
                f"external id {value.external_id} of the graph is taken or out of range"
            )
        seen.add(value.external_id)
    for what, ids, flagged in (
        ("inputs", graph.inputs, {i for i, v in values.items() if v.is_input}),
        ("outputs", graph.outputs, {i for i, v in values.items() if v.is_output}),
    ):
        if set(ids) != flagged or len(ids) != len(flagged):
            raise InvalidProgramError(f"{what} {ids} of the graph differ from its flagged values")


def _check_node(node: Node, values: Mapping[int, Value], ready: set[int]) -> None:
    rule = RULES.get(node.kind)
    if rule is None:
        raise _Fault("XNNPACK's runtime has no such node")
    if len(node.inputs) != rule.inputs or len(node.outputs) != rule.outputs:
        raise _Fault(f"{len(node.inputs)} inputs and {len(node.outputs)} outputs")
    if node.flags & ~rule.flags:
        raise _Fault(f"flags 0x{node.flags:x} are not known")
    if not isinstance(node.attributes, rule.attributes or type(None)):
        raise _Fault(f"attributes are {type(node.attributes).__name__}")
    if node.clamp is not None and not node.clamp[0] <= node.clamp[1]:
        raise _Fault(f"output range {list(node.clamp)} is empty")
    inputs = node.inputs
    if rule.bias and inputs[-1] == INVALID_VALUE_ID:
        inputs = inputs[:-1]
    for i in chain(inputs, node.outputs):
        if i not in values:
            raise _Fault(f"value {i} does not exist")
    for i in inputs:
        if i not in ready:
            raise _Fault(f"value {i} is read before it is computed")
    if len(set(node.outputs)) != len(node.outputs) or not ready.isdisjoint(node.outputs):
        raise _Fault(f"output {list(node.outputs)} is computed twice, an input or a constant")
    sources, results = [values[i] for i in inputs], [values[i] for i in node.outputs]
    _check_dtypes(node, rule, sources, results)
    for number in _numbers(node.attributes):
        if not 0 <= number <= MAX_DIMENSION:
            raise _Fault(f"{number} in its attributes is out of range")
    _check_attributes(node)


def _check_dtypes(
    node: Node, rule: Rule, sources: Sequence[Value], results: Sequence[Value]
) -> None:
    types = [v.dtype.name for v in chain(sources, results)]
    fault = _Fault(f"element types {types} do not go together")
    first, result = sources[0], results[0]
    if first.dtype not in rule.dtypes:
        raise fault
    if rule.same and any(v.dtype != first.dtype for v in chain(sources, results)):
        raise fault
    if node.kind == NodeKind.CONVERT:
        allowed = _ELEMENTWISE | {QDINT8} if first.dtype in _FLOATS else _ELEMENTWISE
        if result.dtype not in allowed:
            raise fault
    elif result.dtype == QDINT8:
        raise fault
    if node.kind == NodeKind.ARG_MAX_POOLING_2D and (
        result.dtype != FP32 or BITS[results[1].dtype] != 32 or results[1].quantization
    ):
        raise fault
    if node.kind == NodeKind.STATIC_RESIZE_BILINEAR_2D and (
        first.quantization != result.quantization
    ):
        raise _Fault("input and output are quantized differently")
    if rule.bias or node.kind == NodeKind.BATCH_MATRIX_MULTIPLY:
        _check_weights(node, sources, fault)


def _check_weights(node: Node, sources: Sequence[Value], fault: _Fault) -> None:
    """XNNPACK itself checks which types go together; here what it takes for granted."""
    first, weights = sources[0], sources[1]
    matrix = node.kind in (NodeKind.FULLY_CONNECTED, NodeKind.BATCH_MATRIX_MULTIPLY)
    if any(v.dtype == QDINT8 for v in sources[1:]):
        raise fault
    if node.kind == NodeKind.BATCH_MATRIX_MULTIPLY:
        if weights.dtype != first.dtype:
            raise fault
        return
    # XNNPACK reads one pair of parameters a row, or an image.
    if isinstance(first.quantization, PerToken) and first.quantization.nonbatch_dims != (
        1 if matrix else 3
    ):
        raise _Fault(f"cannot take {first.quantization.nonbatch_dims} dimensions per token")
    constants = sources[1:] if not matrix or weights.dtype not in _FLOATS else ()
    if any(v.data is None for v in constants):
        raise _Fault("filter and bias must be constants")
    if isinstance(weights.quantization, PerChannel):
        axis = 0
        if node.kind == NodeKind.DEPTHWISE_CONV_2D:
            axis = len(weights.shape) - 1
        elif node.kind == NodeKind.FULLY_CONNECTED and node.flags & FLAG_TRANSPOSE_WEIGHTS:
            axis = 1
        if weights.quantization.axis != axis:
            raise _Fault(f"filter is quantized along axis {weights.quantization.axis}, not {axis}")
    if BITS[weights.dtype] == 4 and node.flags:
        raise _Fault("a 4-bit filter cannot be transposed")


def _numbers(attributes: object) -> Iterator[int]:
    """The integers in a node's attributes, but for the axis, which may be negative."""
    if attributes is None or isinstance(attributes, ConcatenateAttributes):
        return
    for field in fields(attributes):  # type: ignore[arg-type]
        entry = getattr(attributes, field.name)
        for number in entry if isinstance(entry, tuple) else (entry,):
            if isinstance(number, int):
                yield number


def _check_attributes(node: Node) -> None:
    a = node.attributes
    if isinstance(a, (Conv2dAttributes, Pool2dAttributes)):
        if len(a.padding) != 4 or not len(a.kernel) == len(a.stride) == len(a.dilation) == 2:
            raise _Fault("attributes have a wrong number of dimensions")
        if min(*a.kernel, *a.stride, *a.dilation) < 1:
            raise _Fault("kernel, stride and dilation must be positive")
        if node.flags & FLAG_TENSORFLOW_SAME_PADDING and any(a.padding):
            raise _Fault("SAME padding goes with no other padding")
    if isinstance(a, Conv2dAttributes):
        if min(a.groups, a.group_input_channels, a.group_output_channels) < 1:
            raise _Fault("groups and channels must be positive")
        if node.kind == NodeKind.CONV_TRANSPOSE_2D and any(
            x >= max(s, d) for x, s, d in zip(a.adjustment, a.stride, a.dilation, strict=True)
        ):
            raise _Fault(f"output padding {list(a.adjustment)} exceeds the stride")
        if node.kind == NodeKind.DEPTHWISE_CONV_2D and (
            a.group_output_channels % a.group_input_channels
        ):
            raise _Fault("output channels are no multiple of the input channels")
    elif isinstance(a, ResizeAttributes) and not (0 < a.height < 1 << 24 and 0 < a.width < 1 << 24):
        raise _Fault(f"cannot resize to {a.height} x {a.width}")
    elif isinstance(a, (EluAttributes, LeakyReluAttributes)):
        number = a.alpha if isinstance(a, EluAttributes) else a.negative_slope
        if not math.isfinite(number):
            raise _Fault(f"parameter is {number}")
