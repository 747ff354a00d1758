"""Shapes of a graph's values, by the rules of XNNPACK's operators.

XNNPACK computes shapes too, but trusts more than it checks: a window larger than its input, or a
filter that is smaller than the attributes say, reads beyond a buffer. So every shape goes through
here before XNNPACK sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TypeAlias

from penstock.graph.graph import (
    FLAG_KEEP_DIMS,
    FLAG_TENSORFLOW_SAME_PADDING,
    FLAG_TRANSPOSE_B,
    FLAG_TRANSPOSE_WEIGHTS,
    MAX_TENSOR_DIMS,
    Node,
    Shape,
    XnnGraph,
)
from penstock.graph.kinds import (
    CONCATENATE,
    KINDS,
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    PadAttributes,
    Pool2dAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    Traits,
    TransposeAttributes,
)

#: No dimension may exceed this: beyond it XNNPACK's 32-bit arithmetic is not to be trusted.
MAX_DIMENSION = (1 << 31) - 1

ShapeRule: TypeAlias = Callable[[Node, "Sequence[Shape]"], "tuple[Shape, ...]"]


class ShapeError(ValueError):
    """A node cannot take its inputs' shapes; the message says why."""


def infer(nodes: Sequence[Node], shapes: dict[int, Shape]) -> None:
    """Add the shapes of all nodes' outputs to ``shapes``, which has the inputs' and constants'.

    Raises:
        ShapeError: a node cannot take the shapes of its inputs. The message names the node.
    """
    for index, node in enumerate(nodes):
        # An absent bias is the last of the inputs and has no shape.
        inputs = [shapes[i] for i in node.inputs if i in shapes]
        try:
            outputs = SHAPE_RULES[node.kind](node, inputs)
            for shape in outputs:
                _check_dimensions(shape)
        except ShapeError as error:
            raise ShapeError(f"node {index} ({node.kind.name}): {error}") from None
        shapes.update(zip(node.outputs, outputs, strict=True))


def bounds(graph: XnnGraph) -> dict[int, Shape]:
    """The shapes of all values of ``graph`` at the declared shapes of its inputs, which are upper
    bounds. (A file may state others for values that nodes make.)

    Raises ShapeError as :func:`infer` does.
    """
    shapes = {v.id: v.shape for v in graph.values if v.data is not None or v.is_input}
    infer(graph.nodes, shapes)
    return {v.id: shapes.get(v.id, v.shape) for v in graph.values}


def _check_dimensions(shape: Shape) -> None:
    if len(shape) > MAX_TENSOR_DIMS:
        raise ShapeError(f"{len(shape)} dimensions, XNNPACK has {MAX_TENSOR_DIMS} at most")
    if shape and (min(shape) < 0 or max(shape) > MAX_DIMENSION):
        raise ShapeError(f"output would have shape {list(shape)}")


def _same(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    return (shapes[0],)


def _vector(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    if not shapes[0]:
        raise ShapeError("input is a scalar")
    return (shapes[0],)


def _broadcast(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    return (broadcast(shapes[0], shapes[1]),)


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of an elementwise operation on ``a`` and ``b``, as NumPy has it."""
    if a == b:
        return a
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    for x, y in zip(left, right, strict=True):
        if x != y and x != 1 and y != 1:
            raise ShapeError(f"shapes {list(a)} and {list(b)} do not go together")
    return tuple(y if x == 1 else x for x, y in zip(left, right, strict=True))


def _fully_connected(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    data, weights = shapes[0], shapes[1]
    if len(weights) != 2 or not data:
        raise ShapeError(f"input {list(data)} and filter {list(weights)} do not go together")
    channels, width = weights[::-1] if node.flags & FLAG_TRANSPOSE_WEIGHTS else weights
    if data[-1] != width:
        raise ShapeError(f"input has {data[-1]} channels, filter takes {width}")
    _check_bias(shapes, channels)
    return ((*data[:-1], channels),)


def _check_bias(shapes: Sequence[Shape], channels: int) -> None:
    if len(shapes) > 2 and shapes[2] != (channels,):
        raise ShapeError(f"bias has shape {list(shapes[2])}, not [{channels}]")


def _batch_matrix_multiply(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    a, b = shapes[0], shapes[1]
    if len(a) < 2 or len(b) < 2:
        raise ShapeError(f"inputs {list(a)} and {list(b)} are not matrices")
    depth, columns = b[-2:][::-1] if node.flags & FLAG_TRANSPOSE_B else b[-2:]
    if a[-1] != depth:
        raise ShapeError(f"inner dimensions {a[-1]} and {depth} differ")
    return ((*broadcast(a[:-2], b[:-2]), a[-2], columns),)


def _image(shape: Shape) -> Shape:
    if len(shape) != 4:
        raise ShapeError(f"input has shape {list(shape)}, not 4 dimensions")
    return shape


def _windows(
    node: Node,
    attributes: Conv2dAttributes | Pool2dAttributes,
    image: Shape,
) -> tuple[int, int]:
    """How many windows fit into an image's height and width."""
    top, right, bottom, left = attributes.padding
    counts = []
    for size, padding, behind, kernel, stride, dilation in zip(
        image[1:3], (top + bottom, left + right), (bottom, right),
        attributes.kernel, attributes.stride, attributes.dilation, strict=True,
    ):  # fmt: skip
        if node.flags & FLAG_TENSORFLOW_SAME_PADDING:
            counts.append(-(-size // stride))
            continue
        extent = (kernel - 1) * dilation + 1
        # Of nothing there is nothing; nor of fewer indices than are to be left out at the end,
        # which is pooling of pairs whose second element lies in the padding.
        cut = kernel == 2 and dilation > size and padding == behind > 0
        if size + padding < extent and (size == 0 or cut):
            counts.append(0)
            continue
        if size + padding < extent:
            raise ShapeError(f"a window of {extent} exceeds the padded input of {size + padding}")
        counts.append((size + padding - extent) // stride + 1)
    return counts[0], counts[1]


def _convolution(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    image, channels, a = _filtered(node, shapes)
    return ((image[0], *_windows(node, a, image), channels),)


def _transposed_convolution(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    image, channels, a = _filtered(node, shapes)
    top, right, bottom, left = a.padding
    height, width = (
        stride * (size - 1) + adjustment + (kernel - 1) * dilation + 1 - padding
        for size, padding, adjustment, kernel, stride, dilation in zip(
            image[1:3], (top + bottom, left + right),
            a.adjustment, a.kernel, a.stride, a.dilation, strict=True,
        )
    )  # fmt: skip
    return ((image[0], height, width, channels),)


def _filtered(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, int, Conv2dAttributes]:
    """The image, the number of output channels, and the attributes of a sound convolution."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    image, weights = _image(shapes[0]), shapes[1]
    if node.kind == NodeKind.DEPTHWISE_CONV_2D:
        taken, channels = a.groups, a.groups * (a.group_output_channels // a.group_input_channels)
        expected = (1, *a.kernel, channels)
    else:
        taken, channels = a.groups * a.group_input_channels, a.groups * a.group_output_channels
        expected = (channels, *a.kernel, a.group_input_channels)
    if weights != expected:
        raise ShapeError(f"filter has shape {list(weights)}, attributes say {list(expected)}")
    if image[3] != taken:
        raise ShapeError(f"input has {image[3]} channels, filter takes {taken}")
    _check_bias(shapes, channels)
    return image, channels, a


def _pooling(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    assert isinstance(node.attributes, Pool2dAttributes)
    image = _image(shapes[0])
    return ((image[0], *_windows(node, node.attributes, image), image[3]),)


def _argmax_pooling(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    """Windows lie side by side; a rest at the edge has none."""
    a = node.attributes
    assert isinstance(a, Pool2dAttributes)
    image = _image(shapes[0])
    top, right, bottom, left = a.padding
    padded = (image[1] + top + bottom, image[2] + left + right)
    if padded[0] < a.kernel[0] or padded[1] < a.kernel[1]:
        raise ShapeError(f"a window of {list(a.kernel)} exceeds the padded input {list(padded)}")
    shape = (image[0], padded[0] // a.kernel[0], padded[1] // a.kernel[1], image[3])
    return (shape, shape)


def _global_average_pooling(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    shape = shapes[0]
    if len(shape) < 3:
        raise ShapeError(f"input has shape {list(shape)}, not 3 dimensions or more")
    middle = (1, 1) if node.flags & FLAG_KEEP_DIMS else ()
    return ((*shape[:-3], *middle, shape[-1]),)


def _transpose(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    a = node.attributes
    assert isinstance(a, TransposeAttributes)
    if sorted(a.perm) != list(range(len(shapes[0]))):
        raise ShapeError(f"{list(a.perm)} does not permute {len(shapes[0])} dimensions")
    return (tuple(shapes[0][i] for i in a.perm),)


def _reshape(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    a = node.attributes
    assert isinstance(a, ReshapeAttributes)
    elements, known = prod(shapes[0]), prod(size for size in a.new_shape if size)
    zeros = a.new_shape.count(0)
    if not elements and not zeros:  # Whoever runs it says whether it can make this of nothing.
        return (tuple(a.new_shape),)
    if zeros > 1 or elements % known or (not zeros and elements != known):
        raise ShapeError(f"shape {list(shapes[0])} cannot become {list(a.new_shape)}")
    return (tuple(size or elements // known for size in a.new_shape),)


def _slice(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    """Offset 0 with size 0 stands for the whole dimension; what exceeds it is cut off. With
    FLAG_KEEP_DIMS a dimension of which there is nothing has one element all the same."""
    a = node.attributes
    assert isinstance(a, SliceAttributes)
    least = 1 if node.flags & FLAG_KEEP_DIMS else 0
    if not len(a.offsets) == len(a.sizes) == len(shapes[0]):
        raise ShapeError(f"{len(a.sizes)} sizes for {len(shapes[0])} dimensions")
    return (
        tuple(
            (max(min(offset + count, size) - offset, least) if offset + count else size)
            for size, offset, count in zip(shapes[0], a.offsets, a.sizes, strict=True)
        ),
    )


def _pad(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    a = node.attributes
    assert isinstance(a, PadAttributes)
    if not len(a.pre) == len(a.post) == len(shapes[0]):
        raise ShapeError(f"{len(a.pre)} and {len(a.post)} paddings for {len(shapes[0])} dimensions")
    padded = zip(a.pre, shapes[0], a.post, strict=True)
    return (tuple(pre + size + post for pre, size, post in padded),)


def _resize(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    a = node.attributes
    assert isinstance(a, ResizeAttributes)
    image = _image(shapes[0])
    return ((image[0], a.height, a.width, image[3]),)


def _concatenate(node: Node, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    a = node.attributes
    assert isinstance(a, ConcatenateAttributes)
    first = shapes[0]
    if not -len(first) <= a.axis < len(first):
        raise ShapeError(f"axis {a.axis} of {len(first)} dimensions")
    axis = a.axis % len(first)
    rest = (first[:axis], first[axis + 1 :])
    if any((shape[:axis], shape[axis + 1 :]) != rest for shape in shapes):
        raise ShapeError(f"shapes {[list(s) for s in shapes]} differ beside axis {a.axis}")
    return ((*rest[0], sum(shape[axis] for shape in shapes), *rest[1]),)


def _elementwise(traits: Traits) -> ShapeRule:
    return _same if traits.inputs == 1 else _broadcast


SHAPE_RULES: Mapping[NodeKind, ShapeRule] = {
    **{kind: _elementwise(traits) for kind, traits in KINDS.items() if traits.elementwise},
    NodeKind.CONVERT: _same,
    **dict.fromkeys(CONCATENATE.values(), _concatenate),
    NodeKind.SOFTMAX: _vector,
    NodeKind.FULLY_CONNECTED: _fully_connected,
    NodeKind.BATCH_MATRIX_MULTIPLY: _batch_matrix_multiply,
    NodeKind.CONV_2D: _convolution,
    NodeKind.DEPTHWISE_CONV_2D: _convolution,
    NodeKind.CONV_TRANSPOSE_2D: _transposed_convolution,
    NodeKind.AVG_POOLING_2D: _pooling,
    NodeKind.MAX_POOLING_2D: _pooling,
    NodeKind.ARG_MAX_POOLING_2D: _argmax_pooling,
    NodeKind.GLOBAL_AVG_POOLING_2D: _global_average_pooling,
    NodeKind.STATIC_TRANSPOSE: _transpose,
    NodeKind.STATIC_RESHAPE: _reshape,
    NodeKind.STATIC_SLICE: _slice,
    NodeKind.STATIC_CONSTANT_PAD: _pad,
    NodeKind.STATIC_RESIZE_BILINEAR_2D: _resize,
}
