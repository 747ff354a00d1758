"""A graph's nodes -> XNNPACK's nodes: one row of :data:`DEFINE` for each node kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from ctypes import byref, c_uint32, c_void_p
from dataclasses import replace
from typing import Any

from penstock.errors import UnsupportedError
from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape, Value, XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    EluAttributes,
    LeakyReluAttributes,
    NodeKind,
    PadAttributes,
    Pool2dAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    TransposeAttributes,
)
from penstock.runtime.engines.xnnpack.bindings import (
    DATATYPE,
    Binary,
    BinaryParams,
    ClampParams,
    Unary,
    UnaryParams,
)
from penstock.runtime.engines.xnnpack.library import Library
from penstock.runtime.engines.xnnpack.scratch import nodes_to_replan
from penstock.runtime.engines.xnnpack.values import Subgraph, define_value, sizes


def define_graph(library: Library, graph: XnnGraph, shapes: Mapping[int, Shape]) -> Subgraph:
    """Make an ``xnn_subgraph_t`` of ``graph``, which has been checked. The caller deletes it.

    ``shapes`` has the shapes of all values that are used; XNNPACK reserves memory by them.

    Raises:
        UnsupportedError: XNNPACK refuses a value or a node.
    """
    external = [v.external_id for v in graph.values if v.external_id is not None]
    handle = c_void_p()
    status = library.xnn.xnn_create_subgraph(max(external, default=-1) + 1, 0, byref(handle))
    subgraph = Subgraph(library, handle.value or 0)
    subgraph.check(status, "a new subgraph")
    try:
        values = {
            v.id: v if (shape := shapes.get(v.id, v.shape)) == v.shape else replace(v, shape=shape)
            for v in graph.values
        }
        for value in values.values():
            define_value(subgraph, value)
        for index, node in enumerate(nodes_to_replan(graph)):
            row = DEFINE.get(node.kind)
            if row is None:
                raise UnsupportedError(
                    f"node {index} is of kind {node.kind.name}, which XNNPACK's runtime lacks"
                )
            if status := row(subgraph, node, values):
                subgraph.check(status, f"node {index} ({node.kind.name})")
    except BaseException:
        library.xnn.xnn_delete_subgraph(subgraph.handle)
        raise
    return subgraph


_Define = Callable[[Subgraph, Node, "dict[int, Value]"], int]


def _clamp(node: Node) -> tuple[float, float]:
    return node.clamp or (-math.inf, math.inf)


def _simple(function: str, *, clamp: bool = False) -> _Define:
    """``function(subgraph, [min, max,] inputs..., outputs..., flags)``."""

    def define(subgraph: Subgraph, node: Node, values: dict[int, Value]) -> int:
        ids = [subgraph.ids[i] for i in (*node.inputs, *node.outputs)]
        bounds = _clamp(node) if clamp else ()
        return _call(subgraph, function, *bounds, *ids, node.flags)

    return define


def _unary(
    operator: Unary, parameters: Callable[[Node], UnaryParams | None] = lambda node: None
) -> _Define:
    def define(subgraph: Subgraph, node: Node, values: dict[int, Value]) -> int:
        ids = (subgraph.ids[node.inputs[0]], subgraph.ids[node.outputs[0]])
        return _call(subgraph, "xnn_define_unary", operator, parameters(node), *ids, node.flags)

    return define


def _binary(operator: Binary, *, clamp: bool = False) -> _Define:
    def define(subgraph: Subgraph, node: Node, values: dict[int, Value]) -> int:
        ids = [subgraph.ids[i] for i in (*node.inputs, *node.outputs)]
        parameters = BinaryParams(*_clamp(node)) if clamp else None
        return _call(subgraph, "xnn_define_binary", operator, parameters, *ids, node.flags)

    return define


def _clamp_parameters(node: Node) -> UnaryParams:
    return UnaryParams(clamp=ClampParams(*_clamp(node)))


def _elu_parameters(node: Node) -> UnaryParams:
    assert isinstance(node.attributes, EluAttributes)
    return UnaryParams(alpha=node.attributes.alpha)


def _leaky_relu_parameters(node: Node) -> UnaryParams:
    assert isinstance(node.attributes, LeakyReluAttributes)
    return UnaryParams(negative_slope=node.attributes.negative_slope)


def _convolution(subgraph: Subgraph, node: Node, values: dict[int, Value]) -> int:
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    ids = [subgraph.ids[i] for i in (*node.inputs, *node.outputs)]
    channels = (a.groups, a.group_input_channels, a.group_output_channels)
    window = (*a.kernel, *a.stride, *a.dilation)
    rest = (*_clamp(node), *ids, node.flags)
    if node.kind == NodeKind.CONV_TRANSPOSE_2D:
        return _call(
            subgraph, "xnn_define_deconvolution_2d",
            *a.padding, *a.adjustment, *window, *channels, *rest
        )  # fmt: skip
    if node.kind == NodeKind.DEPTHWISE_CONV_2D:
        multiplier = a.group_output_channels // a.group_input_channels
        return _call(
            subgraph, "xnn_define_depthwise_convolution_2d",
            *a.padding, *window, multiplier, a.groups, *rest
        )  # fmt: skip
    return _call(subgraph, "xnn_define_convolution_2d", *a.padding, *window, *channels, *rest)


def _pooling(subgraph: Subgraph, node: Node, values: dict[int, Value]) -> int:
    a = node.attributes
    assert isinstance(a, Pool2dAttributes)
    ids = [subgraph.ids[i] for i in (*node.inputs, *node.outputs)]
    if node.kind == NodeKind.ARG_MAX_POOLING_2D:
        return _call(
            subgraph, "xnn_define_argmax_pooling_2d", *a.padding, *a.kernel, *ids, node.flags
        )
    rest = (*_clamp(node), *ids, node.flags)
    if node.kind == NodeKind.MAX_POOLING_2D:
        return _call(
            subgraph, "xnn_define_max_pooling_2d",
            *a.padding, *a.kernel, *a.stride, *a.dilation, *rest
        )  # fmt: skip
    return _call(subgraph, "xnn_define_average_pooling_2d", *a.padding, *a.kernel, *a.stride, *rest)


def _fully_connected(subgraph: Subgraph, node: Node, values: dict[int, Value]) -> int:
    """A product of bfloat16 comes out in float32; a bfloat16 output needs a conversion."""
    inputs, output = [subgraph.ids[i] for i in node.inputs], subgraph.ids[node.outputs[0]]
    operands = (node.inputs[0], node.inputs[1], node.outputs[0])
    narrow = all(values[i].dtype == DataType.BF16 for i in operands)
    product = c_uint32(output)
    if narrow:
        shape = values[node.outputs[0]].shape
        subgraph.check(
            _call(
                subgraph, "xnn_define_tensor_value",
                DATATYPE[DataType.FP32], len(shape), sizes(shape), None, INVALID_VALUE_ID, 0,
                byref(product),
            ),
            "a float32 product",
        )  # fmt: skip
    status = _call(
        subgraph, "xnn_define_fully_connected",
        *_clamp(node), *inputs, product.value, node.flags
    )  # fmt: skip
    if status or not narrow:
        return status
    return _call(subgraph, "xnn_define_unary", Unary.CONVERT, None, product.value, output, 0)


def _concatenate(subgraph: Subgraph, node: Node, values: dict[int, Value]) -> int:
    assert isinstance(node.attributes, ConcatenateAttributes)
    inputs = (c_uint32 * len(node.inputs))(*(subgraph.ids[i] for i in node.inputs))
    return _call(
        subgraph, "xnn_define_concatenate",
        node.attributes.axis, len(node.inputs), inputs, subgraph.ids[node.outputs[0]], node.flags
    )  # fmt: skip


def _movement(subgraph: Subgraph, node: Node, values: dict[int, Value]) -> int:
    """Slice, transpose, reshape, pad and resize: static shapes, then input, output, flags."""
    a = node.attributes
    rest = (subgraph.ids[node.inputs[0]], subgraph.ids[node.outputs[0]], node.flags)
    if isinstance(a, SliceAttributes):
        window = (len(a.offsets), sizes(a.offsets), sizes(a.sizes))
        return _call(subgraph, "xnn_define_static_slice", *window, *rest)
    if isinstance(a, TransposeAttributes):
        return _call(subgraph, "xnn_define_static_transpose", len(a.perm), sizes(a.perm), *rest)
    if isinstance(a, ReshapeAttributes):
        shape = (len(a.new_shape), sizes(a.new_shape))
        return _call(subgraph, "xnn_define_static_reshape", *shape, *rest)
    if isinstance(a, PadAttributes):
        border = (sizes(a.pre), sizes(a.post), a.value)
        return _call(subgraph, "xnn_define_static_constant_pad", *border, *rest)
    assert isinstance(a, ResizeAttributes)
    return _call(subgraph, "xnn_define_static_resize_bilinear_2d", a.height, a.width, *rest)


def _call(subgraph: Subgraph, function: str, *arguments: Any) -> int:
    status: int = getattr(subgraph.library.xnn, function)(subgraph.handle, *arguments)
    return status


def _copy(subgraph: Subgraph, node: Node, values: dict[int, Value]) -> int:
    """A copy that stays within the graph is left out, as XNNPACK itself does, but for where a node
    reads the copy twice: there XNNPACK forgets the second time, and reads from address 0."""
    source, result = node.inputs[0], values[node.outputs[0]]
    if result.external_id is None:
        subgraph.ids[result.id] = subgraph.ids[source]
        return 0
    return _simple("xnn_define_copy")(subgraph, node, values)


DEFINE: dict[NodeKind, _Define] = {
    NodeKind.ADD: _binary(Binary.ADD, clamp=True),
    NodeKind.SUBTRACT: _binary(Binary.SUBTRACT, clamp=True),
    NodeKind.MULTIPLY: _binary(Binary.MULTIPLY, clamp=True),
    NodeKind.DIV: _binary(Binary.DIVIDE, clamp=True),
    NodeKind.MINIMUM: _binary(Binary.MINIMUM),
    NodeKind.MAXIMUM: _binary(Binary.MAXIMUM),
    NodeKind.PRELU: _binary(Binary.PRELU),
    NodeKind.ABS: _unary(Unary.ABS),
    NodeKind.CEILING: _unary(Unary.CEILING),
    NodeKind.CLAMP: _unary(Unary.CLAMP, _clamp_parameters),
    NodeKind.CONVERT: _unary(Unary.CONVERT),
    NodeKind.COS: _unary(Unary.COSINE),
    NodeKind.ELU: _unary(Unary.ELU, _elu_parameters),
    NodeKind.EXP: _unary(Unary.EXP),
    NodeKind.FLOOR: _unary(Unary.FLOOR),
    NodeKind.GELU: _unary(Unary.GELU),
    NodeKind.HARDSWISH: _unary(Unary.HARDSWISH),
    NodeKind.LEAKY_RELU: _unary(Unary.LEAKY_RELU, _leaky_relu_parameters),
    NodeKind.LOG: _unary(Unary.LOG),
    NodeKind.NEGATE: _unary(Unary.NEGATE),
    NodeKind.RECIPROCAL_SQUARE_ROOT: _unary(Unary.RECIPROCAL_SQUARE_ROOT),
    NodeKind.SIGMOID: _unary(Unary.SIGMOID),
    NodeKind.SIN: _unary(Unary.SINE),
    NodeKind.SQUARE: _unary(Unary.SQUARE),
    NodeKind.SQUARE_ROOT: _unary(Unary.SQUARE_ROOT),
    NodeKind.TANH: _unary(Unary.TANH),
    NodeKind.SOFTMAX: _simple("xnn_define_softmax"),
    NodeKind.COPY: _copy,
    NodeKind.FULLY_CONNECTED: _fully_connected,
    NodeKind.BATCH_MATRIX_MULTIPLY: _simple("xnn_define_batch_matrix_multiply"),
    NodeKind.CONV_2D: _convolution,
    NodeKind.DEPTHWISE_CONV_2D: _convolution,
    NodeKind.CONV_TRANSPOSE_2D: _convolution,
    NodeKind.AVG_POOLING_2D: _pooling,
    NodeKind.MAX_POOLING_2D: _pooling,
    NodeKind.ARG_MAX_POOLING_2D: _pooling,
    NodeKind.GLOBAL_AVG_POOLING_2D: _simple("xnn_define_global_average_pooling_2d", clamp=True),
    NodeKind.CONCATENATE_2: _concatenate,
    NodeKind.CONCATENATE_3: _concatenate,
    NodeKind.CONCATENATE_4: _concatenate,
    NodeKind.CONCATENATE_5: _concatenate,
    NodeKind.STATIC_SLICE: _movement,
    NodeKind.STATIC_TRANSPOSE: _movement,
    NodeKind.STATIC_RESHAPE: _movement,
    NodeKind.STATIC_CONSTANT_PAD: _movement,
    NodeKind.STATIC_RESIZE_BILINEAR_2D: _movement,
}
