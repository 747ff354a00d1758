"""Is a graph one that XNNPACK can be trusted with?

XNNPACK's release build asserts nothing: an element type that an operator does not expect, or a
weight that is computed where a constant is expected, ends in a crash. So each node is checked
against its row of :data:`RULES` before the first call. That the graph holds together is the
business of :mod:`penstock.graph.checks`, and shapes are that of
:mod:`penstock.graph.shapes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from penstock.errors import InvalidProgramError
from penstock.graph import checks
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import (
    FLAG_ALIGN_CORNERS,
    FLAG_KEEP_DIMS,
    FLAG_TENSORFLOW_SAME_PADDING,
    FLAG_TRANSPOSE_B,
    FLAG_TRANSPOSE_WEIGHTS,
    INVALID_VALUE_ID,
    Node,
    Value,
    XnnGraph,
)
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    EluAttributes,
    LeakyReluAttributes,
    NodeKind,
    Pool2dAttributes,
    ResizeAttributes,
)
from penstock.graph.shapes import MAX_DIMENSION

FP32, FP16, BF16, INT32 = DataType.FP32, DataType.FP16, DataType.BF16, DataType.INT32
QINT8, QUINT8, QDINT8 = DataType.QINT8, DataType.QUINT8, DataType.QDINT8

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
    """What XNNPACK expects of a kind of node.

    ``dtypes`` are those of the first input; ``same`` demands it of every input and output.
    ``flags`` are the flags that the node may have.
    """

    dtypes: frozenset[DataType]
    flags: int = 0
    same: bool = True


_CONVOLUTION = Rule(_WEIGHTED, FLAG_TENSORFLOW_SAME_PADDING, same=False)
_RULES: Mapping[NodeKind, Rule] = {
    NodeKind.CONVERT: Rule(_ELEMENTWISE, same=False),
    # The least int32 divided by -1 ends the process.
    NodeKind.DIV: Rule(_ELEMENTWISE - {INT32}),
    NodeKind.SOFTMAX: Rule(_FLOATS),
    NodeKind.FULLY_CONNECTED: Rule(_WEIGHTED, FLAG_TRANSPOSE_WEIGHTS, same=False),
    NodeKind.BATCH_MATRIX_MULTIPLY: Rule(_FLOATS | {BF16, QINT8}, FLAG_TRANSPOSE_B, same=False),
    NodeKind.CONV_2D: _CONVOLUTION,
    NodeKind.DEPTHWISE_CONV_2D: _CONVOLUTION,
    NodeKind.CONV_TRANSPOSE_2D: Rule(_WEIGHTED, same=False),
    NodeKind.AVG_POOLING_2D: Rule(_FLOATS, _PADDING),
    NodeKind.MAX_POOLING_2D: Rule(_POOLED, _PADDING),
    NodeKind.ARG_MAX_POOLING_2D: Rule(frozenset({FP32}), FLAG_KEEP_DIMS, same=False),
    NodeKind.GLOBAL_AVG_POOLING_2D: Rule(_POOLED, FLAG_KEEP_DIMS),
    # Means nothing to XNNPACK.
    NodeKind.STATIC_SLICE: Rule(_ELEMENTWISE, FLAG_KEEP_DIMS),
    NodeKind.STATIC_CONSTANT_PAD: Rule(_POOLED | {BF16}),
    NodeKind.STATIC_RESIZE_BILINEAR_2D: Rule(_POOLED, FLAG_ALIGN_CORNERS | _LEGACY_RESIZE),
}
#: A row for each node kind that XNNPACK's runtime has; most of them are elementwise.
RULES: Mapping[NodeKind, Rule] = {
    kind: _RULES.get(kind, Rule(_ELEMENTWISE))
    for kind in NodeKind
    if kind != NodeKind.SCALED_DOT_PRODUCT_ATTENTION
}


class _Fault(ValueError):
    """What is wrong with the value or node at hand."""


def check_graph(graph: XnnGraph) -> None:
    """Check all of ``graph`` but the shapes of its nodes' outputs.

    Raises:
        InvalidProgramError: names the value or node and what is wrong with it.
    """
    if graph.checked:
        return
    if not graph.sound:
        checks.check_graph(graph)
    values = {value.id: value for value in graph.values}
    for value in graph.values:
        try:
            _check_value(value)
        except _Fault as fault:
            raise InvalidProgramError(f"value {value.id} of an XNNPACK graph: {fault}") from None
    for index, node in enumerate(graph.nodes):
        try:
            _check_node(node, values)
        except _Fault as fault:
            raise InvalidProgramError(
                f"node {index} ({node.kind.name}) of an XNNPACK graph: {fault}"
            ) from None


def _check_value(value: Value) -> None:
    shape, dtype = value.shape, value.dtype
    traits = dtype.traits
    if traits.bits is None:
        raise _Fault(f"type {dtype.name} is not for files")
    if any(not 0 < size <= MAX_DIMENSION for size in shape):
        raise _Fault(f"shape {list(shape)} is out of range")
    if traits.weight and value.data is None:
        raise _Fault(f"type {dtype.name} is for constants only")
    if traits.bits == 4 and (len(shape) != 2 or shape[1] % 2):
        raise _Fault(f"{dtype.name} of shape {list(shape)}, not a matrix of even width")
    external = value.is_input or value.is_output
    if external != (value.external_id is not None) or (value.is_input and value.is_output):
        raise _Fault("input or output flags contradict its external id")
    if external and dtype == QDINT8:
        raise _Fault("a dynamically quantized value cannot be an input or output")
    q = value.quantization
    if isinstance(q, PerTensor) and q.scale < _SMALLEST_SCALE:
        raise _Fault(f"scale {q.scale} is too small")
    if isinstance(q, PerChannel) and not np.all(q.scales >= _SMALLEST_SCALE):
        raise _Fault("one of its scales is too small")
    if isinstance(q, Blockwise):
        if q.axis != 0 or q.block_size % _MIN_BLOCK:
            raise _Fault(f"blocks of {q.block_size} along axis {q.axis}")
        # bfloat16: not negative, neither zero nor subnormal, neither infinite nor NaN.
        if not np.all((q.scales >= 0x0080) & (q.scales < 0x7F80)):
            raise _Fault("its scales are not all positive normal numbers")


def _check_node(node: Node, values: Mapping[int, Value]) -> None:
    rule = RULES.get(node.kind)
    if rule is None:
        raise _Fault("XNNPACK's runtime has no such node")
    if node.flags & ~rule.flags:
        raise _Fault(f"flags 0x{node.flags:x} are not known")
    if node.clamp is not None and not node.clamp[0] <= node.clamp[1]:
        raise _Fault(f"output range {list(node.clamp)} is empty")
    sources = [values[i] for i in node.inputs if i != INVALID_VALUE_ID]
    results = [values[i] for i in node.outputs]
    if len(set(node.outputs)) != len(results):
        raise _Fault(f"outputs {list(node.outputs)} are the same value")
    _check_dtypes(node, rule, sources, results)
    for number in _numbers(node.attributes):
        if not 0 <= number <= MAX_DIMENSION:
            raise _Fault(f"{number} in its attributes is out of range")
    _check_attributes(node)


def _check_dtypes(
    node: Node, rule: Rule, sources: Sequence[Value], results: Sequence[Value]
) -> None:
    kind, first, result = node.kind, sources[0].dtype, results[0].dtype
    wrong = first not in rule.dtypes
    if rule.same:
        wrong |= any(v.dtype is not first for v in chain(sources, results))
    if kind is NodeKind.CONVERT:
        allowed = _ELEMENTWISE | {QDINT8} if first in _FLOATS else _ELEMENTWISE
        wrong |= result not in allowed
    else:
        wrong |= result is QDINT8
    if kind is NodeKind.ARG_MAX_POOLING_2D:
        index = results[1]
        wrong |= result is not FP32 or index.dtype.traits.bits != 32 or bool(index.quantization)
    if kind is NodeKind.BATCH_MATRIX_MULTIPLY:
        wrong |= sources[1].dtype is not first
    if kind.traits.weighted or kind is NodeKind.BATCH_MATRIX_MULTIPLY:
        wrong |= any(v.dtype is QDINT8 for v in sources[1:])
    if wrong:
        types = [v.dtype.name for v in chain(sources, results)]
        raise _Fault(f"element types {types} do not go together")
    if kind is NodeKind.STATIC_RESIZE_BILINEAR_2D and (
        sources[0].quantization != results[0].quantization
    ):
        raise _Fault("input and output are quantized differently")
    if kind.traits.weighted:
        _check_weights(node, sources)


def _check_weights(node: Node, sources: Sequence[Value]) -> None:
    """XNNPACK itself checks which types go together; here what it takes for granted."""
    first, weights = sources[0], sources[1]
    matrix = node.kind is NodeKind.FULLY_CONNECTED
    # XNNPACK reads one pair of parameters a row, or an image.
    dims = node.kind.traits.per_token_dims
    if isinstance(first.quantization, PerToken) and first.quantization.nonbatch_dims != dims:
        raise _Fault(f"cannot take {first.quantization.nonbatch_dims} dimensions per token")
    constants = sources[1:] if not matrix or weights.dtype not in _FLOATS else ()
    if any(v.data is None for v in constants):
        raise _Fault("filter and bias must be constants")
    if isinstance(weights.quantization, PerChannel):
        axis = node.kind.traits.output_axis
        if node.kind == NodeKind.FULLY_CONNECTED and node.flags & FLAG_TRANSPOSE_WEIGHTS:
            axis = 1
        if weights.quantization.axis != axis:
            raise _Fault(f"filter is quantized along axis {weights.quantization.axis}, not {axis}")
    if weights.dtype.traits.bits == 4 and node.flags:
        raise _Fault("a 4-bit filter cannot be transposed")


def _numbers(attributes: object) -> Iterator[int]:
    """The integers in a node's attributes, but for the axis, which may be negative."""
    if attributes is None or isinstance(attributes, ConcatenateAttributes):
        return
    for entry in vars(attributes).values():
        for number in entry if isinstance(entry, tuple) else (entry,):
            if isinstance(number, int):
                yield number


def _check_attributes(node: Node) -> None:
    a = node.attributes
    if isinstance(a, (Conv2dAttributes, Pool2dAttributes)):
        if [len(a.padding), len(a.kernel), len(a.stride), len(a.dilation)] != [4, 2, 2, 2]:
            raise _Fault("its attributes are not those of two dimensions")
        if node.flags & FLAG_TENSORFLOW_SAME_PADDING and any(a.padding):
            raise _Fault("SAME padding goes with no other padding")
    if isinstance(a, Conv2dAttributes):
        if len(a.adjustment) != 2:
            raise _Fault("its attributes are not those of two dimensions")
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
