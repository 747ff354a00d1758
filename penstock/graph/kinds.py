"""Node kinds and their traits: one row for each :class:`NodeKind`.

Whoever needs "the products", "what only moves data" or "what takes an output range" asks a trait;
nobody lists kinds. The facts are those of ``xnnpack.h`` and of ExecuTorch's
``backends/xnnpack/serialization/schema.fbs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeAlias


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

    #: the kind's row in :data:`KINDS`, set below it
    traits: Traits


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


@dataclass(frozen=True)
class Traits:
    """What is true of all nodes of a kind.

    Form:

    - ``inputs``, ``outputs``: how many values; ``optional_bias``: the last input may be absent.
    - ``attributes``: the class of the node's attributes, None for none.

    What it computes:

    - ``elementwise``: an element of the output depends on those at its place in the inputs alone,
      which are broadcast to each other.
    - ``rearranges``: the output holds every element of the input once (reshape, transpose).
    - ``selects``: the output holds elements of its one input as they are (rearranging, slices).
    - ``keeps_values``: each element of the output is one of the input's, whichever: the same
      operation on integers as on the reals they stand for (selecting, maximum pooling).
    - ``joins``: a concatenation.
    - ``weighted``: a product with a filter at input 1 and an optional bias at input 2, which
      XNNPACK copies into a packed form when the runtime is made.
    - ``output_axis``: the dimension of a weighted node's filter that holds the output channels.
    - ``input_axis``: the dimension of the filter that meets the last dimension of the input; None
      where they do not meet one to one.

    What XNNPACK has of it:

    - ``output_range``: takes a (min, max) for its output.
    - ``own_int8``: runs on int8 with parameters of their own for inputs and output (in the XNNPACK
      of executorch 1.5.1).
    - ``shared_int8``: runs on int8 where inputs and output have the same parameters, and may bring
      in values of its own.
    - ``blends``: averages its inputs: what exceeds the range of its outputs counts all the same.
    - ``per_token_dims``: takes an input that is quantized at run time, with one pair of parameters
      for each of so many innermost dimensions; None where it does not.
    """

    inputs: int = 1
    outputs: int = 1
    optional_bias: bool = False
    attributes: type | None = None
    elementwise: bool = False
    rearranges: bool = False
    selects: bool = False
    keeps_values: bool = False
    joins: bool = False
    weighted: bool = False
    output_axis: int | None = None
    input_axis: int | None = None
    output_range: bool = False
    own_int8: bool = False
    shared_int8: bool = False
    blends: bool = False
    per_token_dims: int | None = None


_UNARY = Traits(elementwise=True, own_int8=True)
_BINARY = replace(_UNARY, inputs=2)
_ARITHMETIC = replace(_BINARY, output_range=True)
_SELECTION = Traits(selects=True, keeps_values=True)
_REARRANGEMENT = replace(_SELECTION, rearranges=True)
_WEIGHTED = Traits(inputs=3, optional_bias=True, weighted=True, output_axis=0, output_range=True)
_CONVOLUTION = replace(_WEIGHTED, attributes=Conv2dAttributes)
_POOL = Traits(attributes=Pool2dAttributes, output_range=True)

KINDS: Mapping[NodeKind, Traits] = {
    **dict.fromkeys(
        (
            NodeKind.ABS, NodeKind.CEILING, NodeKind.COS, NodeKind.EXP, NodeKind.FLOOR,
            NodeKind.GELU, NodeKind.HARDSWISH, NodeKind.LOG, NodeKind.NEGATE,
            NodeKind.RECIPROCAL_SQUARE_ROOT, NodeKind.SIGMOID, NodeKind.SIN, NodeKind.SQUARE,
            NodeKind.SQUARE_ROOT, NodeKind.TANH,
        ),
        _UNARY,
    ),
    NodeKind.CLAMP: replace(_UNARY, output_range=True),
    NodeKind.ELU: replace(_UNARY, attributes=EluAttributes),
    NodeKind.LEAKY_RELU: replace(_UNARY, attributes=LeakyReluAttributes),
    # Between element types; between kinds of quantization it is no element's business alone.
    NodeKind.CONVERT: Traits(),
    **dict.fromkeys(
        (NodeKind.ADD, NodeKind.SUBTRACT, NodeKind.MULTIPLY, NodeKind.DIV), _ARITHMETIC
    ),
    **dict.fromkeys((NodeKind.MINIMUM, NodeKind.MAXIMUM, NodeKind.PRELU), _BINARY),
    NodeKind.COPY: replace(_SELECTION, elementwise=True),
    NodeKind.STATIC_RESHAPE: replace(_REARRANGEMENT, attributes=ReshapeAttributes),
    NodeKind.STATIC_TRANSPOSE: replace(_REARRANGEMENT, attributes=TransposeAttributes),
    NodeKind.STATIC_SLICE: replace(_SELECTION, attributes=SliceAttributes),
    NodeKind.STATIC_CONSTANT_PAD: Traits(attributes=PadAttributes, shared_int8=True),
    NodeKind.STATIC_RESIZE_BILINEAR_2D: Traits(
        attributes=ResizeAttributes, shared_int8=True, blends=True
    ),
    NodeKind.CONCATENATE_2: Traits(2, attributes=ConcatenateAttributes, joins=True),
    NodeKind.CONCATENATE_3: Traits(3, attributes=ConcatenateAttributes, joins=True),
    NodeKind.CONCATENATE_4: Traits(4, attributes=ConcatenateAttributes, joins=True),
    NodeKind.CONCATENATE_5: Traits(5, attributes=ConcatenateAttributes, joins=True),
    NodeKind.FULLY_CONNECTED: replace(_WEIGHTED, input_axis=1, per_token_dims=1),
    NodeKind.CONV_2D: replace(_CONVOLUTION, input_axis=3, per_token_dims=3),
    NodeKind.CONV_TRANSPOSE_2D: replace(_CONVOLUTION, per_token_dims=3),
    NodeKind.DEPTHWISE_CONV_2D: replace(_CONVOLUTION, output_axis=3),
    NodeKind.BATCH_MATRIX_MULTIPLY: Traits(2),
    NodeKind.SOFTMAX: Traits(),
    NodeKind.AVG_POOLING_2D: _POOL,
    NodeKind.MAX_POOLING_2D: replace(_POOL, keeps_values=True),
    NodeKind.ARG_MAX_POOLING_2D: Traits(outputs=2, attributes=Pool2dAttributes),
    NodeKind.GLOBAL_AVG_POOLING_2D: Traits(own_int8=True),
    NodeKind.SCALED_DOT_PRODUCT_ATTENTION: Traits(5),
}  # fmt: skip

for _kind, _traits in KINDS.items():
    _kind.traits = _traits

#: The node that joins so many inputs.
CONCATENATE: Mapping[int, NodeKind] = {
    traits.inputs: kind for kind, traits in KINDS.items() if traits.joins
}
