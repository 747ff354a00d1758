"""Each thing that must hold in an XNNPACK graph, broken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from penstock.errors import InvalidProgramError
from penstock.graph.checks import check_graph
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    PadAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)

FP32 = DataType.FP32


def zeros(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


def make() -> XnnGraph:
    """An image through a convolution, a linear layer, and one node of each other sort."""
    convolution = Conv2dAttributes((1, 1, 1, 1), (3, 3), (1, 1), (1, 1), 1, 2, 4)
    return XnnGraph(
        [
            Value(0, FP32, (1, 5, 5, 2), external_id=0, is_input=True),
            Value(1, FP32, (4, 3, 3, 2), data=zeros(4, 3, 3, 2)),
            Value(2, FP32, (4,), data=zeros(4)),
            Value(3, FP32, (1, 5, 5, 4)),
            Value(4, FP32, (6, 4), data=zeros(6, 4)),
            Value(5, FP32, (1, 5, 5, 6)),
            Value(6, FP32, (1, 6, 5, 5)),
            Value(7, FP32, (1, 5, 5, 6), external_id=1, is_output=True),
            Value(8, DataType.QINT8, (1, 5, 5, 6), PerTensor(0.5, 3)),
            Value(9, DataType.QCINT8, (3, 2), PerChannel(np.ones(3, np.float32), 0), bytes(6)),
            Value(10, DataType.QDINT8, (3, 2), PerToken(1)),
            Value(11, DataType.QBINT4, (2, 4), Blockwise(np.ones(4, np.uint16), 0, 2), bytes(4)),
        ],
        [
            Node(NodeKind.CONV_2D, (0, 1, 2), (3,), convolution, (0.0, 6.0)),
            Node(NodeKind.FULLY_CONNECTED, (3, 4, INVALID_VALUE_ID), (5,)),
            Node(NodeKind.STATIC_TRANSPOSE, (5,), (6,), TransposeAttributes((0, 3, 1, 2))),
            Node(NodeKind.MULTIPLY, (5, 5), (7,)),
        ],
        [0],
        [7],
    )


def test_the_graph_is_right() -> None:
    check_graph(make())


def set_value(index: int, **fields: Any) -> Callable[[XnnGraph], None]:
    def change(graph: XnnGraph) -> None:
        graph.values[index] = replace(graph.values[index], **fields)

    return change


def set_node(index: int, **fields: Any) -> Callable[[XnnGraph], None]:
    def change(graph: XnnGraph) -> None:
        graph.nodes[index] = replace(graph.nodes[index], **fields)

    return change


def attribute(index: int, **fields: Any) -> Callable[[XnnGraph], None]:
    def change(graph: XnnGraph) -> None:
        node = graph.nodes[index]
        changed: Any = replace(node.attributes, **fields)  # type: ignore[type-var]
        graph.nodes[index] = replace(node, attributes=changed)

    return change


def other(kind: NodeKind, attributes: Any) -> Callable[[XnnGraph], None]:
    """The transpose replaced by another node with one input."""
    return set_node(2, kind=kind, attributes=attributes)


def scales(values: Any, axis: int = 0) -> PerChannel:
    return PerChannel(np.array(values, np.float32), axis)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value(1, id=0), "two values .* id 0"),
        (set_value(3, shape=(1,) * 7), "up to 6 dimensions"),
        (set_value(3, shape=(1, -1)), "has the shape"),
        (set_value(3, shape=(1 << 32,)), "has the shape"),
        (set_value(3, quantization=PerTensor(1.0, 0)), "is FP32 and has PerTensor"),
        (set_value(8, quantization=None), "is QINT8 and has NoneType"),
        (set_value(8, quantization=PerToken(1)), "is QINT8 and has PerToken"),
        (set_value(8, quantization=PerTensor(0.0, 0)), "the scale 0.0"),
        (set_value(8, quantization=PerTensor(float("nan"), 0)), "the scale nan"),
        (set_value(8, quantization=PerTensor(float("inf"), 0)), "the scale inf"),
        (set_value(8, quantization=PerTensor(1.0, 128)), "zero point 128"),
        (set_value(8, dtype=DataType.QUINT8, quantization=PerTensor(1.0, -1)), "zero point -1"),
        (set_value(9, quantization=scales([1, 1])), "needs 3 scales and has 2"),
        (set_value(9, quantization=scales([1, 0, 1])), "not positive"),
        (set_value(9, quantization=scales([1, np.inf, 1])), "not positive"),
        (set_value(9, quantization=PerChannel(np.ones(3), 0)), "not positive numbers of the right"),
        (set_value(9, quantization=scales([1, 1, 1], 2)), "along dimension 2"),
        (set_value(9, quantization=scales([1, 1, 1], -1)), "along dimension -1"),
        (set_value(10, quantization=PerToken(3)), "nonbatch_dims=3"),
        (set_value(10, data=bytes(6)), "has 6 bytes of data"),
        (set_value(11, quantization=Blockwise(np.ones(4, np.uint16), 0, 3)), "blocks of 3"),
        (set_value(11, quantization=Blockwise(np.ones(4, np.uint16), 0, 0)), "blocks of 0"),
        (set_value(11, quantization=Blockwise(np.ones(3, np.uint16), 0, 2)), "needs 4 scales"),
        (set_value(1, data=zeros(4, 3, 3, 1)), "has 144 bytes of data"),
        (set_value(1, is_output=True, external_id=2), "constant and external"),
        (set_value(0, is_output=True), "an input and an output"),
        (set_value(7, external_id=0), "external ids"),
        (set_value(7, external_id=4096), "external ids"),
        (set_value(7, external_id=None), "external ids"),
        (lambda graph: graph.inputs.append(3), "lists the inputs"),
        (lambda graph: graph.outputs.clear(), "lists the outputs"),
        (lambda graph: graph.nodes.pop(), "no node .* computes its output 7"),
        (lambda graph: graph.nodes.reverse(), "uses value 5, which nothing before it makes"),
        (set_node(3, inputs=(5, 99)), "uses value 99"),
        (set_node(3, inputs=(5, INVALID_VALUE_ID)), "uses value 4294967295"),
        (set_node(3, inputs=(5,)), "has 1 inputs"),
        (set_node(3, outputs=(99,)), "writes value 99"),
        (set_node(3, outputs=(0,)), "writes value 0"),
        (set_node(3, outputs=(2,)), "writes value 2"),
        (set_node(3, outputs=(5,)), "writes value 5"),
        (set_node(3, clamp=(float("nan"), 1.0)), "bounded"),
        (set_node(0, attributes=None), "has the attributes None"),
        (set_node(3, attributes=TransposeAttributes((0,))), "has the attributes"),
        (attribute(0, groups=0), "has the attributes"),
        (attribute(0, stride=(1, 0)), "has the attributes"),
        (attribute(0, group_input_channels=0), "has the attributes"),
        (attribute(0, kernel=(3, 4)), r"needs a filter of shape \(4, 3, 4, 2\)"),
        (attribute(0, group_output_channels=5), "needs a filter of shape"),
        (set_value(0, shape=(1, 5, 5, 3)), r"1 x 2 input channels"),
        (set_value(0, shape=(5, 5, 2)), r"1 x 2 input channels"),
        (set_value(2, shape=(3,), data=zeros(3)), "needs a bias of 4 elements"),
        (set_value(4, shape=(24,), data=zeros(24)), "has a filter of shape"),
        (set_node(1, inputs=(0, 4, INVALID_VALUE_ID)), "multiplies"),
        (set_value(3, shape=()), "multiplies"),
        (attribute(2, perm=(0, 1, 2)), "permutes 4 dimensions"),
        (attribute(2, perm=(0, 1, 2, 2)), "permutes 4 dimensions"),
        (attribute(2, perm=(0, 1, 2, 4)), "permutes 4 dimensions"),
        (other(NodeKind.STATIC_RESHAPE, ReshapeAttributes((0, 0))), "reshapes"),
        (other(NodeKind.STATIC_RESHAPE, ReshapeAttributes((1,) * 7)), "reshapes"),
        (other(NodeKind.STATIC_SLICE, SliceAttributes((0,), (1,))), "slices"),
        (
            set_node(
                2,
                kind=NodeKind.STATIC_SLICE,
                inputs=(0,),
                attributes=SliceAttributes((0, 0, 0, 1), (1, 5, 5, 4)),
            ),
            "slices",
        ),
        (other(NodeKind.STATIC_CONSTANT_PAD, PadAttributes((1,), (1,), 0.0)), "pads"),
        (
            lambda graph: graph.nodes.__setitem__(
                2, Node(NodeKind.CONCATENATE_2, (5, 5), (6,), ConcatenateAttributes(4))
            ),
            "concatenates",
        ),
        (
            lambda graph: graph.nodes.__setitem__(
                2, Node(NodeKind.CONCATENATE_2, (5, 2), (6,), ConcatenateAttributes(0))
            ),
            "concatenates",
        ),
    ],
)
def test_what_is_broken_is_said(change: Callable[[XnnGraph], Any], message: str) -> None:
    graph = copy.deepcopy(make())
    change(graph)
    with pytest.raises(InvalidProgramError, match=message):
        check_graph(graph)


def test_sizes_that_xnnpack_computes_may_be_stated_wrong() -> None:
    """The stock compiler states those before a change of layout."""
    graph = make()
    set_value(3, shape=(1, 4, 5, 5))(graph)
    check_graph(graph)
