"""How much work a node of a delegate is: arithmetic operations, and bytes read and written.

Operations are those that the mathematics asks for, whatever an engine does instead (Winograd's
products are fewer): a multiply-add is two, a function of one element (an exponential too) one, and
moving is none. Biases and output ranges come with the products and are not counted. Padding is, as
PyTorch's ``FlopCounterMode`` counts it. Bytes are those of the inputs, once, weights among them,
and of the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape, Value
from penstock.graph.kinds import KINDS, Conv2dAttributes, NodeKind, Pool2dAttributes

#: Of a softmax, for an element: maximum, difference, exponential, sum, quotient.
SOFTMAX = 5
#: Of a bilinear interpolation, for an element: four corners, a multiply-add each.
BILINEAR = 8

#: Operations of a node with inputs and outputs of these shapes.
Rule: TypeAlias = Callable[[Node, "Sequence[Shape]", "Sequence[Shape]"], int]


@dataclass(frozen=True)
class Work:
    """Operations, and bytes read and written; ``int8`` where the operations are integers'."""

    operations: int = 0
    bytes: int = 0
    int8: bool = False


def _fully_connected(node: Node, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 2 * prod(outputs[0]) * inputs[0][-1]


def _batch_matrix_multiply(node: Node, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 2 * prod(outputs[0]) * inputs[0][-1]


def _convolution(node: Node, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    return 2 * prod(outputs[0]) * prod(a.kernel) * a.group_input_channels


def _depthwise(node: Node, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    return 2 * prod(outputs[0]) * prod(a.kernel)


def _transposed(node: Node, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    return 2 * prod(inputs[0]) * prod(a.kernel) * a.group_output_channels


def _pooling(node: Node, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    a = node.attributes
    assert isinstance(a, Pool2dAttributes)
    return prod(outputs[0]) * prod(a.kernel)


def _attention(node: Node, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Scores, their softmax, and the sums of values."""
    query, key, value = inputs[:3]
    scores = prod(query[:-1]) * key[-2]
    return scores * (2 * query[-1] + SOFTMAX + 2 * value[-1])


def _of_input(node: Node, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return prod(inputs[0])


def _nothing(node: Node, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return 0


def _each(count: int) -> Rule:
    return lambda node, inputs, outputs: count * prod(outputs[0])


OPERATIONS: Mapping[NodeKind, Rule] = {
    **{kind: _each(1) for kind, traits in KINDS.items() if traits.elementwise},
    **{kind: _nothing for kind, traits in KINDS.items() if traits.selects or traits.joins},
    NodeKind.CONVERT: _each(1),
    NodeKind.SOFTMAX: _each(SOFTMAX),
    NodeKind.FULLY_CONNECTED: _fully_connected,
    NodeKind.BATCH_MATRIX_MULTIPLY: _batch_matrix_multiply,
    NodeKind.CONV_2D: _convolution,
    NodeKind.DEPTHWISE_CONV_2D: _depthwise,
    NodeKind.CONV_TRANSPOSE_2D: _transposed,
    NodeKind.AVG_POOLING_2D: _pooling,
    NodeKind.MAX_POOLING_2D: _pooling,
    NodeKind.ARG_MAX_POOLING_2D: _pooling,
    NodeKind.GLOBAL_AVG_POOLING_2D: _of_input,
    NodeKind.SCALED_DOT_PRODUCT_ATTENTION: _attention,
    NodeKind.STATIC_CONSTANT_PAD: _nothing,
    NodeKind.STATIC_RESIZE_BILINEAR_2D: _each(BILINEAR),
}
#: Types whose products are sums of integers.
_INTEGERS = {DataType.QINT8, DataType.QUINT8, DataType.QDINT8, DataType.QPINT8}


def work_of(
    nodes: Sequence[Node],
    shapes: Mapping[int, Shape],
    values: Mapping[int, Value],
    read_later: Collection[int],
) -> Work:
    """The work of ``nodes`` that an engine runs as one: what they hand to each other is neither
    written nor read, but for the values in ``read_later``, which others want. ``shapes`` has those
    of all values of the graph, ``values`` their types."""
    made = {i for node in nodes for i in node.outputs}
    read = {i: n for n in nodes for i in n.inputs if i not in made and i != INVALID_VALUE_ID}
    operations = 0
    moved = 0
    for node in nodes:
        inputs = [shapes[i] for i in node.inputs if i != INVALID_VALUE_ID]
        outputs = [shapes[i] for i in node.outputs]
        operations += OPERATIONS[node.kind](node, inputs, outputs)
        wanted = read_later if len(nodes) > 1 else made
        moved += sum(_bytes(shapes[i], values[i].dtype) for i in node.outputs if i in wanted)
    for i, node in read.items():
        size = _bytes(shapes[i], values[i].dtype)
        if node.kind is NodeKind.STATIC_SLICE:  # reads what it takes
            size = min(size, sum(_bytes(shapes[o], values[o].dtype) for o in node.outputs))
        moved += size
    return Work(operations, moved, any(values[n.inputs[0]].dtype in _INTEGERS for n in nodes))


def _bytes(shape: Shape, dtype: DataType) -> int:
    # What is quantized at run time is int8, in whatever order an engine packs it.
    bits = dtype.traits.bits or (32 if dtype is DataType.PFP32 else 8)
    return prod(shape) * bits // 8
