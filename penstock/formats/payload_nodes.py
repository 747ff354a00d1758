"""How each kind of node lies in a payload: which fields of its table hold what.

One table for the reader, the writer and the checks. Names are those of ``schema/xnnpack.fbs``.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class AttributeForm:
    """An attributes class; each of its fields is one schema field, or a tuple of several."""

    type: type
    fields: dict[str, str | tuple[str, ...]]
    #: Fields that are vectors in the schema and tuples in the class.
    vectors: tuple[str, ...] = ()
    #: The schema field that repeats the length of the vectors.
    rank: str | None = None


@dataclass(frozen=True)
class NodeForm:
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("output_id",)
    attributes: AttributeForm | None = None


_PADDING = ("padding_top", "padding_right", "padding_bottom", "padding_left")
_CONVOLUTION = NodeForm(
    ("input1_id", "filter_id", "bias_id"),
    attributes=AttributeForm(
        Conv2dAttributes,
        {
            "padding": _PADDING,
            "kernel": ("kernel_height", "kernel_width"),
            "stride": ("subsampling_height", "subsampling_width"),
            "dilation": ("dilation_height", "dilation_width"),
            "groups": "groups",
            "group_input_channels": "group_input_channels",
            "group_output_channels": "group_output_channels",
            "adjustment": ("adjustment_height", "adjustment_width"),
        },
    ),
)
_POOL: dict[str, str | tuple[str, ...]] = {
    "padding": _PADDING,
    "kernel": ("pooling_height", "pooling_width"),
    "stride": ("stride_height", "stride_width"),
}
_DILATION = ("dilation_height", "dilation_width")
_UNARY = NodeForm(("input_id",))
_BINARY = NodeForm(("input1_id", "input2_id"))


def _with(type_: type, **fields: str) -> NodeForm:
    return NodeForm(("input_id",), attributes=AttributeForm(type_, dict(fields)))


def _with_vectors(type_: type, *names: str) -> NodeForm:
    form = AttributeForm(type_, {name: name for name in names}, names, "num_dims")
    return NodeForm(("input_id",), attributes=form)


def _concatenate(count: int) -> NodeForm:
    inputs = tuple(f"input{i}_id" for i in range(1, count + 1))
    return NodeForm(inputs, attributes=AttributeForm(ConcatenateAttributes, {"axis": "axis"}))


FORMS: dict[NodeKind, NodeForm] = {
    **dict.fromkeys(
        (
            NodeKind.SOFTMAX,
            NodeKind.SIGMOID,
            NodeKind.CLAMP,
            NodeKind.FLOOR,
            NodeKind.CONVERT,
            NodeKind.GLOBAL_AVG_POOLING_2D,
            NodeKind.SQUARE_ROOT,
            NodeKind.CEILING,
            NodeKind.HARDSWISH,
            NodeKind.NEGATE,
            NodeKind.SQUARE,
            NodeKind.ABS,
            NodeKind.RECIPROCAL_SQUARE_ROOT,
            NodeKind.LOG,
            NodeKind.GELU,
            NodeKind.TANH,
            NodeKind.EXP,
            NodeKind.SIN,
            NodeKind.COPY,
            NodeKind.COS,
        ),
        _UNARY,
    ),
    **dict.fromkeys(
        (
            NodeKind.ADD,
            NodeKind.DIV,
            NodeKind.MINIMUM,
            NodeKind.MULTIPLY,
            NodeKind.SUBTRACT,
            NodeKind.MAXIMUM,
            NodeKind.PRELU,
            NodeKind.BATCH_MATRIX_MULTIPLY,
        ),
        _BINARY,
    ),
    **dict.fromkeys(
        (NodeKind.CONV_2D, NodeKind.DEPTHWISE_CONV_2D, NodeKind.CONV_TRANSPOSE_2D), _CONVOLUTION
    ),
    NodeKind.FULLY_CONNECTED: NodeForm(("input1_id", "filter_id", "bias_id")),
    # What the stock compiler writes as the dilation of an average pool means nothing: it has none.
    NodeKind.AVG_POOLING_2D: NodeForm(
        ("input_id",), attributes=AttributeForm(Pool2dAttributes, _POOL)
    ),
    NodeKind.MAX_POOLING_2D: NodeForm(
        ("input_id",),
        attributes=AttributeForm(Pool2dAttributes, {**_POOL, "dilation": _DILATION}),
    ),
    NodeKind.ARG_MAX_POOLING_2D: NodeForm(
        ("input_id",),
        ("output_value_id", "output_index_id"),
        AttributeForm(
            Pool2dAttributes,
            {"padding": _PADDING, "kernel": ("pooling_height", "pooling_width")},
        ),
    ),
    NodeKind.STATIC_TRANSPOSE: _with_vectors(TransposeAttributes, "perm"),
    NodeKind.STATIC_RESHAPE: _with_vectors(ReshapeAttributes, "new_shape"),
    NodeKind.STATIC_SLICE: _with_vectors(SliceAttributes, "offsets", "sizes"),
    NodeKind.STATIC_CONSTANT_PAD: NodeForm(
        ("input_id",),
        attributes=AttributeForm(
            PadAttributes,
            {"pre": "pre_paddings", "post": "post_paddings", "value": "padding_value"},
            ("pre", "post"),
        ),
    ),
    NodeKind.STATIC_RESIZE_BILINEAR_2D: _with(
        ResizeAttributes, height="new_height", width="new_width"
    ),
    NodeKind.LEAKY_RELU: _with(LeakyReluAttributes, negative_slope="negative_slope"),
    NodeKind.ELU: _with(EluAttributes, alpha="alpha"),
    NodeKind.CONCATENATE_2: _concatenate(2),
    NodeKind.CONCATENATE_3: _concatenate(3),
    NodeKind.CONCATENATE_4: _concatenate(4),
    NodeKind.CONCATENATE_5: _concatenate(5),
    NodeKind.SCALED_DOT_PRODUCT_ATTENTION: NodeForm(
        ("query_id", "key_id", "value_id", "scale_id", "mask_id")
    ),
}
