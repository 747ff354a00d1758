"""What must hold in an :class:`~penstock.graph.graph.XnnGraph`, whoever made it.

XNNPACK checks much itself but trusts sizes: a filter that has fewer elements than the node's
attributes say, or a permutation of another rank, makes it read beyond the end. So everything that
decides about memory is checked here.
"""

from __future__ import annotations

import math

import numpy as np

from penstock.errors import InvalidProgramError, shorten
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import (
    FLAG_TRANSPOSE_WEIGHTS,
    INVALID_VALUE_ID,
    MAX_TENSOR_DIMS,
    Node,
    Value,
    XnnGraph,
)
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    PadAttributes,
    Pool2dAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    TransposeAttributes,
)

#: The stock runtime's limit on external values.
MAX_EXTERNAL = 4096
_MAX_U32 = 0xFFFFFFFF


def data_size(dtype: DataType, shape: tuple[int, ...]) -> int:
    """Bytes of a constant; 4-bit elements lie two in a byte.

    Raises:
        InvalidProgramError: there are no constants of this type.
    """
    traits = dtype.traits
    if traits.bits is None or not traits.constant:
        raise InvalidProgramError(f"a tensor of type {dtype.name} cannot be constant")
    return (math.prod(shape) * traits.bits + 7) // 8


def check_graph(graph: XnnGraph) -> None:
    """Raise :class:`InvalidProgramError` unless the graph can be given to XNNPACK."""
    values: dict[int, Value] = {}
    checked: set[int] = set()
    for value in graph.values:
        if value.id in values or not 0 <= value.id < INVALID_VALUE_ID:
            raise InvalidProgramError(f"two values of the XNNPACK graph have the id {value.id}")
        values[value.id] = value
        _check_value(value, checked)
    _check_externals(graph, values)
    ready = {v.id for v in graph.values if v.data is not None or v.is_input}
    for index, node in enumerate(graph.nodes):
        try:
            _check_node(node, values, ready)
        except InvalidProgramError as error:
            what = f"node {index} ({node.kind.name}) of the XNNPACK graph"
            raise InvalidProgramError(shorten(f"{what} {error}", 300)) from None
    missing = [value.id for value in graph.values if value.is_output and value.id not in ready]
    if missing:
        raise InvalidProgramError(f"no node of the XNNPACK graph computes its output {missing[0]}")


def _check_value(value: Value, checked: set[int]) -> None:
    """``checked``: ids of quantizations that are known to be right; many values may share one."""

    def error(problem: str) -> InvalidProgramError:
        return InvalidProgramError(f"value {value.id} of the XNNPACK graph {problem}")

    shape = value.shape
    if len(shape) > MAX_TENSOR_DIMS or not all(0 <= size <= _MAX_U32 for size in shape):
        raise error(f"has the shape {shorten(shape)}, up to {MAX_TENSOR_DIMS} dimensions can be")
    traits = value.dtype.traits
    expected = traits.quantized
    quantization = value.quantization
    if (expected is None) != (quantization is None) or (
        expected is not None and not isinstance(quantization, expected)
    ):
        raise error(f"is {value.dtype.name} and has {type(quantization).__name__} quantization")
    if isinstance(quantization, PerTensor):
        if not 0 < quantization.scale < math.inf:
            raise error(f"has the scale {quantization.scale}")
        if quantization.zero_point not in traits.zero_points:
            raise error(f"is {value.dtype.name} and has the zero point {quantization.zero_point}")
    elif isinstance(quantization, PerToken):
        if not 1 <= quantization.nonbatch_dims <= len(shape):
            raise error(f"has {len(shape)} dimensions and {quantization}")
    elif quantization is not None:
        if problem := _scales_problem(quantization, shape, id(quantization) in checked):
            raise error(problem)
        checked.add(id(quantization))
    if value.is_input and value.is_output:
        raise error("is an input and an output")
    if value.data is not None:
        if value.is_input or value.is_output:
            raise error("is constant and external")
        size = memoryview(value.data).nbytes  # type: ignore[arg-type]
        if not traits.constant or size != data_size(value.dtype, shape):
            raise error(f"({value.dtype.name} {shape}) has {size} bytes of data")


def _scales_problem(
    quantization: PerChannel | Blockwise, shape: tuple[int, ...], checked: bool
) -> str:
    if not 0 <= quantization.axis < len(shape):
        return f"has {len(shape)} dimensions and scales along dimension {quantization.axis}"
    scales = quantization.scales
    if isinstance(quantization, Blockwise):
        size = quantization.block_size
        if size < 1 or len(shape) < 2 or shape[1] % size:
            return f"has the shape {shape} and blocks of {size}"
        count, real = shape[0] * shape[1] // size, scales.dtype == np.uint16
    else:
        count, real = shape[quantization.axis], scales.dtype == np.float32
        real = checked or (real and bool(np.all((scales > 0) & np.isfinite(scales))))
    if scales.shape != (count,):
        return f"needs {count} scales and has {scales.size}"
    return "" if real else "has scales that are not positive numbers of the right type"


def _check_externals(graph: XnnGraph, values: dict[int, Value]) -> None:
    external = [v for v in graph.values if v.is_input or v.is_output]
    ids = {v.external_id for v in external}
    if len(ids) < len(external) or any(i is None or not 0 <= i < MAX_EXTERNAL for i in ids):
        raise InvalidProgramError(f"the XNNPACK graph has the external ids {shorten(ids)}")
    for what, listed, flagged in (
        ("inputs", graph.inputs, [v for v in external if v.is_input]),
        ("outputs", graph.outputs, [v for v in external if v.is_output]),
    ):
        ordered = sorted(flagged, key=lambda v: v.external_id or 0)
        if [v.id for v in ordered] != list(listed):
            raise InvalidProgramError(f"the XNNPACK graph lists the {what} {shorten(listed)}")


def _check_node(node: Node, values: dict[int, Value], ready: set[int]) -> None:
    traits = node.kind.traits
    if len(node.inputs) != traits.inputs or len(node.outputs) != traits.outputs:
        raise InvalidProgramError(f"has {len(node.inputs)} inputs, {len(node.outputs)} outputs")
    for position, id_ in enumerate(node.inputs, 1):
        if id_ == INVALID_VALUE_ID and traits.optional_bias and position == traits.inputs:
            continue
        if id_ not in ready:
            raise InvalidProgramError(f"uses value {id_}, which nothing before it makes")
    for id_ in node.outputs:
        if id_ not in values or id_ in ready:
            raise InvalidProgramError(f"writes value {id_}, which does not exist or is made before")
        ready.add(id_)
    if type(node.attributes) is not (traits.attributes or type(None)):
        raise InvalidProgramError(f"has the attributes {node.attributes}")
    if node.clamp is not None and any(math.isnan(bound) for bound in node.clamp):
        raise InvalidProgramError(f"is bounded by {node.clamp}")
    inputs = [values[i] if i != INVALID_VALUE_ID else None for i in node.inputs]
    if problem := _shape_problem(node, inputs):
        raise InvalidProgramError(problem)


def _is_stated(value: Value) -> bool:
    """Whether the sizes in the file are those at run time, or bounds of them. XNNPACK computes the
    others itself, and the stock compiler states wrong ones (those before a change of layout)."""
    return value.is_input or value.data is not None


def _shape_problem(node: Node, inputs: list[Value | None]) -> str:
    first = inputs[0]
    assert first is not None  # only a bias may be absent
    shape, attributes = first.shape, node.attributes
    rank = len(shape)
    match attributes:
        case Conv2dAttributes():
            return _convolution_problem(node.kind, attributes, inputs)
        case Pool2dAttributes(kernel=kernel, stride=stride, dilation=dilation):
            if rank != 4 or min(*kernel, *stride, *dilation) < 1:
                return f"pools {shape} with {attributes}"
        case TransposeAttributes(perm=perm):
            if sorted(perm) != list(range(rank)):
                return f"permutes {rank} dimensions with {perm}"
        case ReshapeAttributes(new_shape=new_shape):
            if len(new_shape) > MAX_TENSOR_DIMS or new_shape.count(0) > 1:
                return f"reshapes to {new_shape}"
        case SliceAttributes(offsets=offsets, sizes=sizes):
            if not len(offsets) == len(sizes) == rank or (
                _is_stated(first)
                and any(o + s > full for o, s, full in zip(offsets, sizes, shape, strict=True))
            ):
                return f"slices {shape} with {attributes}"
        case PadAttributes(pre=pre, post=post):
            if not len(pre) == len(post) == rank:
                return f"pads {shape} with {attributes}"
        case ResizeAttributes(height=height, width=width):
            if rank != 4 or min(height, width) < 1:
                return f"resizes {shape} to {height} x {width}"
        case ConcatenateAttributes(axis=axis):
            if axis >= rank or any(v is None or len(v.shape) != rank for v in inputs):
                shapes = [v.shape for v in inputs if v is not None]
                return f"concatenates {shapes} along {axis}"
    if node.kind is NodeKind.FULLY_CONNECTED:
        return _linear_problem(node, inputs)
    return ""


def _convolution_problem(
    kind: NodeKind, attributes: Conv2dAttributes, inputs: list[Value | None]
) -> str:
    image, filter_, bias = inputs
    assert image is not None and filter_ is not None
    groups, fan_in = attributes.groups, attributes.group_input_channels
    fan_out = attributes.group_output_channels
    positive = (*attributes.kernel, *attributes.stride, *attributes.dilation)
    if min(*positive, groups, fan_in, fan_out) < 1:
        return f"has the attributes {attributes}"
    expected: tuple[int, ...] = (groups * fan_out, *attributes.kernel, fan_in)
    if kind is NodeKind.DEPTHWISE_CONV_2D:
        expected = (1, *attributes.kernel, groups * (fan_out // fan_in))
    if filter_.shape != expected:
        return f"needs a filter of shape {expected} and has {filter_.shape}"
    channels = image.shape[3] if len(image.shape) == 4 else 0
    if not channels or (_is_stated(image) and channels != groups * fan_in):
        return f"has an input of shape {image.shape} and {groups} x {fan_in} input channels"
    return _bias_problem(bias, expected[3] if kind is NodeKind.DEPTHWISE_CONV_2D else expected[0])


def _linear_problem(node: Node, inputs: list[Value | None]) -> str:
    rows, filter_, bias = inputs
    assert rows is not None and filter_ is not None
    shape = filter_.shape
    if len(shape) < 2:
        return f"has a filter of shape {shape}"
    ends = (shape[0], shape[-1])
    fan_out, fan_in = ends[::-1] if node.flags & FLAG_TRANSPOSE_WEIGHTS else ends
    width = rows.shape[-1:]
    fits = width == (fan_in,) or (width and not _is_stated(rows))
    if math.prod(shape) != fan_in * fan_out or not fits:
        return f"multiplies {rows.shape} with a filter of shape {shape}"
    return _bias_problem(bias, fan_out)


def _bias_problem(bias: Value | None, channels: int) -> str:
    if bias is not None and math.prod(bias.shape) != channels:
        return f"needs a bias of {channels} elements and has the shape {bias.shape}"
    return ""
