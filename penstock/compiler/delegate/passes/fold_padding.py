"""Fold padding by zeros into the convolutions that read it."""

from __future__ import annotations

from dataclasses import replace

from penstock.graph.graph import Node, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import (
    Conv2dAttributes,
    NodeKind,
    PadAttributes,
    TransposeAttributes,
)

CONVOLUTIONS = (NodeKind.CONV_2D, NodeKind.DEPTHWISE_CONV_2D)


def apply(graph: XnnGraph) -> None:
    """Given ``conv(pad(x))`` or ``conv(transpose(pad(x)))``, the padding zeros in height and width
    → Result: ``conv(x)`` or ``conv(transpose(x))`` with that padding, on the sides that have it.
    (Networks from TensorFlow pad more behind than before, which ATen's convolutions cannot say. The
    padding of EfficientNet-Lite0 is a tenth of its time.)"""
    index = Index(graph)
    moved: dict[int, int] = {}
    for node in list(graph.nodes):
        if node.kind in CONVOLUTIONS:
            _fold(index, node, moved)


def _fold(index: Index, node: Node, moved: dict[int, int]) -> None:
    """``moved`` holds transposes of what was padded, by those of the padded."""
    conv, source = node.attributes, node.inputs[0]
    assert isinstance(conv, Conv2dAttributes)
    transpose = index.made_by(source, NodeKind.STATIC_TRANSPOSE)
    pad = index.made_by(
        source if transpose is None else transpose.inputs[0], NodeKind.STATIC_CONSTANT_PAD
    )
    if pad is None or not _same_values(index, pad):
        return
    added = pad.attributes
    assert isinstance(added, PadAttributes)
    pre, post = added.pre, added.post
    if transpose is not None:
        order = transpose.attributes
        assert isinstance(order, TransposeAttributes)
        pre = tuple(pre[axis] for axis in order.perm)
        post = tuple(post[axis] for axis in order.perm)
    if added.value != 0 or pre[0] or pre[3] or post[0] or post[3]:
        return
    unpadded = pad.inputs[0]
    if transpose is not None:
        if source not in moved:
            shape = index.values[source].shape
            smaller = tuple(
                size - before - after for size, before, after in zip(shape, pre, post, strict=True)
            )
            moved[source] = index.add(
                NodeKind.STATIC_TRANSPOSE, (unpadded,), smaller, transpose.attributes,
                like=transpose, of=unpadded,
            )  # fmt: skip
        unpadded = moved[source]
    top, right, bottom, left = conv.padding
    node.attributes = replace(
        conv, padding=(top + pre[1], right + post[2], bottom + post[1], left + pre[2])
    )
    index.set_inputs(node, (unpadded, *node.inputs[1:]))


def _same_values(index: Index, pad: Node) -> bool:
    """Whether ``pad`` leaves the type and the scale as they are."""
    source, output = index.values[pad.inputs[0]], index.values[pad.outputs[0]]
    return (source.dtype, source.quantization) == (output.dtype, output.quantization)
