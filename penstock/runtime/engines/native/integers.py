"""The families ``qs8_conv`` and ``qs8_dwconv``: convolution, depthwise convolution and
fully-connected in int8 with static quantization, with the bits of XNNPACK's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_float, c_int32, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.graph.dtypes import DataType, PerChannel, PerTensor
from penstock.graph.graph import (
    FLAG_TENSORFLOW_SAME_PADDING,
    Node,
    Shape,
    Value,
)
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.family import (
    Family,
    Packer,
    Step,
    Values,
    Workshop,
    bias_of,
)
from penstock.runtime.engines.native.products import POINTWISE, padding_of, windows
from penstock.runtime.engines.native.rules import slower_depthwise_int8, slower_product_int8

#: What both structures begin with.
_QUANTITIES = (
    ("isa", c_uint32),
    ("input_zero_point", c_int32),
    ("output_zero_point", c_int32),
    ("output_min", c_int32),
    ("output_max", c_int32),
)
#: Where the windows of a convolution lie, and on how many threads it runs.
_WINDOWS = tuple(
    (name, c_size_t)
    for name in (
        "kernel_height", "kernel_width", "stride_height", "stride_width", "dilation_height",
        "dilation_width", "batch", "input_height", "input_width", "padding_top", "padding_left",
        "output_height", "output_width", "threads",
    )
)  # fmt: skip


class CConv(Structure):
    """``struct pk_qs8_conv``."""

    _fields_ = [
        *_QUANTITIES,
        ("groups", c_size_t),
        ("group_input", c_size_t),
        ("group_output", c_size_t),
        *_WINDOWS,
        ("cache", c_size_t),
        ("flat", c_uint32),
        ("dynamic", c_uint32),
        ("output_pixel", c_size_t),
        ("output_line", c_size_t),
        ("output_image", c_size_t),
    ]


class CDepthwise(Structure):
    """``struct pk_qs8_dwconv``."""

    _fields_ = [*_QUANTITIES, ("channels", c_size_t), *_WINDOWS]


class CConvTask(Structure):
    """``struct pk_qs8_conv_task``."""

    _fields_ = [
        ("conv", CConv),
        ("packed", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


class CDepthwiseTask(Structure):
    """``struct pk_qs8_dwconv_task``."""

    _fields_ = [("conv", CDepthwise), *CConvTask._fields_[1:]]


#: The names of C's functions and the tasks they take.
_KINDS: Mapping[type, tuple[str, type[Structure]]] = {
    CConv: ("qs8_conv", CConvTask),
    CDepthwise: ("qs8_dwconv", CDepthwiseTask),
}

#: The most taps of a kernel that ours take: their offsets lie on the stack.
MAX_TAPS = 1024
#: The smallest scale that XNNPACK accepts.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Quantities:
    """How a node is quantized. ``scales`` are those by which sums are multiplied, one for each
    output channel."""

    input_zero_point: int
    output_zero_point: int
    output_min: int
    output_max: int
    scales: np.ndarray


@dataclass(frozen=True)
class Convolution:
    """A node with its weights packed. ``conv`` lacks the sizes of its input and output."""

    node: Node
    conv: CConv | CDepthwise
    packed: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        conv = type(self.conv).from_buffer_copy(self.conv)
        set_sizes(conv, self.node, shapes)
        functions = self.workshop.library.functions
        name, kind = _KINDS[type(conv)]
        scratch = getattr(functions, f"pk_{name}_scratch_size")(byref(conv))
        task = kind(conv, self.packed, None, None, None)
        fields = ((self.node.inputs[0], "input"), (self.node.outputs[0], "output"))
        return Step(f"pk_{name}_run", task, fields, scratch)


def set_sizes(conv: CConv | CDepthwise, node: Node, shapes: Mapping[int, Shape]) -> None:
    """Those of the node's input and output, which depend on the call."""
    read, written = shapes[node.inputs[0]], shapes[node.outputs[0]]
    padding = (0, 0, 0, 0)
    if isinstance(node.attributes, Conv2dAttributes):
        padding = padding_of(node, read, written)
    else:
        read = (1, 1, math.prod(read[:-1]), read[-1])
        written = (1, 1, read[2], written[-1])
    conv.batch, conv.input_height, conv.input_width = read[:3]
    conv.output_height, conv.output_width = written[1:3]
    conv.padding_top, conv.padding_left = padding[0], padding[3]


def structure(
    quantities: Quantities,
    channels: tuple[int, ...],
    windows: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
    workshop: Workshop,
) -> CConv | CDepthwise:
    """A node as C sees it, without the sizes of its input and output. ``channels``: groups, input
    and output channels of each; for a depthwise one the channels alone. ``windows``: kernel, stride
    and dilation."""
    q = quantities
    kind = CDepthwise if len(channels) == 1 else CConv
    conv = kind(
        int(workshop.library.isa),
        q.input_zero_point, q.output_zero_point, q.output_min, q.output_max,
        *channels, *windows[0], *windows[1], *windows[2],
    )  # fmt: skip
    conv.threads = workshop.threads
    if isinstance(conv, CConv):
        conv.cache = workshop.library.caches().l2
    return conv


def pack(
    conv: CConv | CDepthwise,
    weights: int,
    bias: int | None,
    scales: np.ndarray,
    workshop: Workshop,
) -> int:
    """Packs the weights and the bias at these addresses; returns where."""
    name, _ = _KINDS[type(conv)]
    functions = workshop.library.functions
    packed = workshop.packed.reserve(getattr(functions, f"pk_{name}_packed_size")(byref(conv)))
    factors = np.ascontiguousarray(scales, np.float32)
    getattr(functions, f"pk_{name}_pack")(byref(conv), weights, bias, address(factors), packed)
    return packed


def quantities_of(node: Node, values: Values) -> Quantities | str:
    """How ``node`` is quantized, or why that is not as our kernels want it."""
    source, filter, result = (values[i] for i in (*node.inputs[:2], node.outputs[0]))
    if source.dtype is not DataType.QINT8 or result.dtype is not DataType.QINT8:
        return "it is not int8 with static quantization"
    scales = _scales(filter, 3 if node.kind is NodeKind.DEPTHWISE_CONV_2D else 0)
    if scales is None or filter.data is None:
        return "its weights are not constant int8"
    bias = bias_of(node, values)
    types = (DataType.QINT32, DataType.QCINT32)
    if bias is not None and (bias.dtype not in types or bias.data is None):
        return "its bias is not constant int32"
    read, written = source.quantization, result.quantization
    assert isinstance(read, PerTensor) and isinstance(written, PerTensor)
    # In XNNPACK's order. (That they are not too small was checked with the graph.)
    factors = np.float32(read.scale) * scales / np.float32(written.scale)
    if not factors.max() < 256:
        return "its scales are out of XNNPACK's range"
    low, high = (quantized_bound(bound, written) for bound in node.clamp or (-math.inf, math.inf))
    if low >= high:
        return "its output range is empty"
    return Quantities(read.zero_point, written.zero_point, low, high, factors)


def _scales(filter: Value, axis: int) -> np.ndarray | None:
    """The scales of a filter, one for each output channel, which lie along ``axis``; None for a
    type that our kernels do not take."""
    quantization = filter.quantization
    if filter.dtype is DataType.QCINT8 and isinstance(quantization, PerChannel):
        return quantization.scales if quantization.axis == axis else None
    if not isinstance(quantization, PerTensor) or filter.dtype is not DataType.QINT8:
        return None
    whole = np.full(filter.shape[axis], quantization.scale, np.float32)
    return None if quantization.zero_point else whole


def quantized_bound(bound: float, quantization: PerTensor) -> int:
    """A bound of the output as XNNPACK quantizes it (``xnn_qs8_quantize``)."""
    if math.isinf(bound):
        return 127 if bound > 0 else -128
    scaled = float32(float32(bound) / float32(quantization.scale))
    return round(min(max(float32(scaled + quantization.zero_point), -128.0), 127.0))


def float32(number: float) -> float:
    """``number`` rounded to float32. (NumPy's scalars are ten times as slow.) Sums and quotients of
    such numbers are as if rounded once, although Python rounds them to float64 before."""
    return c_float(number).value


def is_depthwise(node: Node) -> bool:
    """Whether each output channel has an input channel of its own: as a depthwise convolution, or
    as one with so many groups."""
    a = node.attributes
    return (
        node.kind in (NodeKind.DEPTHWISE_CONV_2D, NodeKind.CONV_2D)
        and isinstance(a, Conv2dAttributes)
        and a.group_input_channels == a.group_output_channels == 1
        and (a.groups > 1 or node.kind is NodeKind.DEPTHWISE_CONV_2D)
    )


def reason_against_windows(node: Node, a: Conv2dAttributes) -> str | None:
    """Why our kernels cannot run the windows of ``node``, whatever its types."""
    if node.flags & ~FLAG_TENSORFLOW_SAME_PADDING or math.prod(a.kernel) > MAX_TAPS:
        return f"its kernel has more than {MAX_TAPS} taps, or flags that our kernels do not know"
    return None


def examine_convolution(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    a = node.attributes
    if not isinstance(a, Conv2dAttributes):
        if node.flags:
            return "its weights are transposed"
    elif reason := reason_against_windows(node, a):
        return reason
    if is_depthwise(node):
        return "it is depthwise"
    found = quantities_of(node, values)
    return found if isinstance(found, str) else partial(prepare, node, values, found)


def examine_depthwise(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    a = node.attributes
    if not is_depthwise(node) or not isinstance(a, Conv2dAttributes):
        return "it is no depthwise convolution with a multiplier of 1"
    if reason := reason_against_windows(node, a):
        return reason
    found = quantities_of(node, values)
    return found if isinstance(found, str) else partial(prepare, node, values, found)


def prepare(node: Node, values: Values, quantities: Quantities, workshop: Workshop) -> Convolution:
    """Packs the weights of ``node``."""
    filter, bias = values[node.inputs[1]], bias_of(node, values)
    a = node.attributes if isinstance(node.attributes, Conv2dAttributes) else None
    bias_at = None if bias is None else workshop.constant_at(bias)
    channels: tuple[int, ...] = (1, filter.shape[-1], filter.shape[0])
    by_tap: np.ndarray | None = None
    if a is not None and is_depthwise(node):
        channels = (a.groups,)
        if node.kind is NodeKind.CONV_2D:
            by_channel = workshop.constant(filter).reshape(a.groups, math.prod(a.kernel))
            by_tap = np.ascontiguousarray(by_channel.T)
    elif a is not None:
        channels = (a.groups, a.group_input_channels, a.group_output_channels)
    weights = workshop.constant_at(filter) if by_tap is None else address(by_tap)
    conv = structure(quantities, channels, POINTWISE[1:] if a is None else windows(a), workshop)
    if isinstance(conv, CConv):
        window = (conv.kernel_height, conv.kernel_width, conv.stride_height, conv.stride_width)
        conv.flat = window == (1, 1, 1, 1) and not (a is not None and any(a.padding))
    packed = pack(conv, weights, bias_at, quantities.scales, workshop)
    return Convolution(node, conv, packed, workshop)


def _prototypes(name: str, shape: type[Structure]) -> dict[str, tuple[object, tuple[object, ...]]]:
    conv = POINTER(shape)
    return {
        f"pk_{name}_packed_size": (c_size_t, (conv,)),
        f"pk_{name}_pack": (None, (conv, c_void_p, c_void_p, c_void_p, c_void_p)),
        f"pk_{name}_scratch_size": (c_size_t, (conv,)),
        f"pk_{name}_run": (None, (c_void_p, c_void_p)),
    }


CONVOLUTION = Family(
    "qs8_conv",
    frozenset({NodeKind.CONV_2D, NodeKind.FULLY_CONNECTED}),
    examine_convolution,
    slower_product_int8,
    _prototypes("qs8_conv", CConv),
    overread=True,
)
DEPTHWISE = Family(
    "qs8_dwconv",
    frozenset({NodeKind.DEPTHWISE_CONV_2D, NodeKind.CONV_2D}),
    examine_depthwise,
    slower_depthwise_int8,
    _prototypes("qs8_dwconv", CDepthwise),
    overread=True,
)
