"""The payload of an XNNPACK delegate as plain dataclasses: :class:`XnnGraph`.

The facts (node and field ids, enum values) are those of ExecuTorch's
``backends/xnnpack/serialization/schema.fbs`` and of ``xnnpack.h``.
:mod:`penstock.formats.payload_reader` turns bytes into these classes,
:mod:`penstock.formats.payload_writer` these classes into bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np

#: XNNPACK has no tensors of more dimensions (``XNN_MAX_TENSOR_DIMS``).
MAX_TENSOR_DIMS = 6
#: Stands for "no value": an absent bias, for instance (``XNN_INVALID_VALUE_ID``).
INVALID_VALUE_ID = 0xFFFFFFFF

# xnnpack.h's node flags, as far as payloads use them.
FLAG_TRANSPOSE_WEIGHTS = 0x1
FLAG_TENSORFLOW_SAME_PADDING = 0x4
FLAG_ALIGN_CORNERS = 0x8
FLAG_TRANSPOSE_B = 0x1
FLAG_KEEP_DIMS = 0x40


class DataType(IntEnum):
    """``xnn_datatype`` with the numbers of the payload schema."""

    FP32 = 1
    FP16 = 2
    QINT8 = 3
    QUINT8 = 4
    QINT32 = 5
    QCINT8 = 6
    QCINT32 = 7
    QCINT4 = 8
    QDINT8 = 9
    QBINT4 = 10
    QPINT8 = 11
    INT32 = 12
    PFP32 = 13
    BF16 = 14


class NodeKind(IntEnum):
    """Node types, with the numbers of the schema's union ``XNodeUnion``."""

    ADD = 1
    FULLY_CONNECTED = 2
    SOFTMAX = 3
    SIGMOID = 4
    STATIC_TRANSPOSE = 5
    CLAMP = 6
    CONV_2D = 7
    DIV = 8
    STATIC_RESIZE_BILINEAR_2D = 9
    STATIC_CONSTANT_PAD = 10
    AVG_POOLING_2D = 11
    MINIMUM = 12
    DEPTHWISE_CONV_2D = 13
    MAX_POOLING_2D = 14
    MULTIPLY = 15
    SUBTRACT = 16
    FLOOR = 17
    CONVERT = 18
    GLOBAL_AVG_POOLING_2D = 19
    STATIC_RESHAPE = 20
    ARG_MAX_POOLING_2D = 21
    SQUARE_ROOT = 22
    CEILING = 23
    HARDSWISH = 24
    LEAKY_RELU = 25
    MAXIMUM = 26
    NEGATE = 27
    SQUARE = 28
    ELU = 29
    ABS = 30
    PRELU = 31
    CONCATENATE_2 = 32
    CONCATENATE_3 = 33
    CONCATENATE_4 = 34
    STATIC_SLICE = 35
    SCALED_DOT_PRODUCT_ATTENTION = 36
    BATCH_MATRIX_MULTIPLY = 37
    CONCATENATE_5 = 38
    CONV_TRANSPOSE_2D = 39
    RECIPROCAL_SQUARE_ROOT = 40
    LOG = 41
    GELU = 42
    TANH = 43
    EXP = 44
    SIN = 45
    COPY = 46
    COS = 47


#: The node that joins so many inputs.
CONCATENATE = {
    2: NodeKind.CONCATENATE_2,
    3: NodeKind.CONCATENATE_3,
    4: NodeKind.CONCATENATE_4,
    5: NodeKind.CONCATENATE_5,
}


@dataclass(frozen=True)
class PerTensor:
    """real = scale * (q - zero_point), one pair for the whole tensor."""

    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class PerChannel:
    """One float32 scale for each index of dimension ``axis``; zero point 0 (8 for QCINT4)."""

    scales: np.ndarray
    axis: int


@dataclass(frozen=True)
class PerToken:
    """Quantized at run time, one pair for each row of the last ``nonbatch_dims`` dimensions."""

    nonbatch_dims: int


@dataclass(frozen=True, eq=False)
class Blockwise:
    """One bfloat16 scale (raw uint16) for each ``block_size`` elements along a row."""

    scales: np.ndarray
    axis: int
    block_size: int


Quantization: TypeAlias = "PerTensor | PerChannel | PerToken | Blockwise"


@dataclass
class Value:
    """A tensor of the graph. ``shape`` is the physical one (NHWC for images).

    A dynamic dimension holds its upper bound. ``data`` makes it a constant: raw bytes or an
    array, row-major, equal objects (by ``is``) are written once. ``external_id`` is the position
    among the delegate call's arguments: inputs first, then outputs.
    """

    id: int
    dtype: DataType
    shape: tuple[int, ...]
    quantization: Quantization | None = None
    data: np.ndarray | bytes | bytearray | memoryview | None = None
    external_id: int | None = None
    is_input: bool = False
    is_output: bool = False


@dataclass(frozen=True)
class Conv2dAttributes:
    """Of CONV_2D, DEPTHWISE_CONV_2D, CONV_TRANSPOSE_2D.

    ``padding`` is (top, right, bottom, left); pairs are (height, width). The filter is
    [group_output_channels * groups, kh, kw, group_input_channels] for the plain and the
    transposed convolution, [1, kh, kw, channels * multiplier] for the depthwise one.
    ``adjustment`` is the output padding of the transposed convolution.
    """

    padding: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    group_input_channels: int
    group_output_channels: int
    adjustment: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Pool2dAttributes:
    """Of MAX_POOLING_2D, AVG_POOLING_2D (which has no dilation), ARG_MAX_POOLING_2D (which has
    neither stride nor dilation)."""

    padding: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class TransposeAttributes:
    """Dimension ``i`` of the output is dimension ``perm[i]`` of the input."""

    perm: tuple[int, ...]


@dataclass(frozen=True)
class ReshapeAttributes:
    """``new_shape``; at most one 0, which XNNPACK infers from the number of elements."""

    new_shape: tuple[int, ...]


@dataclass(frozen=True)
class SliceAttributes:
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class PadAttributes:
    pre: tuple[int, ...]
    post: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class ResizeAttributes:
    height: int
    width: int


@dataclass(frozen=True)
class ConcatenateAttributes:
    axis: int


@dataclass(frozen=True)
class EluAttributes:
    alpha: float


@dataclass(frozen=True)
class LeakyReluAttributes:
    negative_slope: float


Attributes: TypeAlias = (
    "Conv2dAttributes | Pool2dAttributes | TransposeAttributes | ReshapeAttributes"
    " | SliceAttributes | PadAttributes | ResizeAttributes | ConcatenateAttributes"
    " | EluAttributes | LeakyReluAttributes"
)


@dataclass
class Node:
    """One XNNPACK node. ``inputs`` are value ids in the order of the schema's fields
    (input, filter, bias for convolutions and FULLY_CONNECTED, with INVALID_VALUE_ID for no bias).

    ``clamp`` is the output's (min, max); ``None`` means unbounded.
    """

    kind: NodeKind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Attributes | None = None
    clamp: tuple[float, float] | None = None
    flags: int = 0
    debug_handle: int = 0


@dataclass
class XnnGraph:
    """Values, and nodes in an order in which they can run. ``inputs`` and ``outputs`` are value
    ids ordered by external id."""

    values: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
