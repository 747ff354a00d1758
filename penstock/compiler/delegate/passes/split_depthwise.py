"""Split large depthwise convolutions into sums of ones that XNNPACK has kernels for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import Conv2dAttributes, NodeKind

#: XNNPACK has depthwise kernels of up to so many taps. Anything larger runs as a convolution with
#: one channel for each group, several times slower.
MOST_TAPS = 25
#: More parts than this are not worth their additions.
MOST_PARTS = 64


@dataclass(frozen=True)
class Comb:
    """Every ``step``-th tap of one axis of a kernel, from ``first`` on; ``count`` of them."""

    first: int
    step: int
    count: int

    @property
    def last(self) -> int:
        return self.first + self.step * (self.count - 1)


def apply(graph: XnnGraph) -> None:
    """Given a floating-point DEPTHWISE_CONV_2D with more than 25 taps → Result: the sum of
    depthwise convolutions of up to 25, each with the taps of every n-th row and every m-th column.

    Such a comb of taps is a dilated kernel. It needs no other input than the whole kernel, only
    less padding, provided that it reaches as far into the image as the padding reaches out.
    """
    index = Index(graph)
    for node in list(graph.nodes):
        if node.kind is NodeKind.DEPTHWISE_CONV_2D:
            _split(index, node)
    index.finish()


def _split(index: Index, node: Node) -> None:
    conv = node.attributes
    assert isinstance(conv, Conv2dAttributes)
    weight = index.values[node.inputs[1]]
    output = index.values[node.outputs[0]]
    if conv.kernel[0] * conv.kernel[1] <= MOST_TAPS or weight.data is None:
        return
    if any(v.dtype is not DataType.FP32 for v in (index.values[node.inputs[0]], weight, output)):
        return
    parts = _parts(conv)
    if parts is None:
        return
    bias, total = node.inputs[2], None
    for rows, columns in parts:
        part = _part(index, node, conv, rows, columns, bias)
        bias = INVALID_VALUE_ID
        if total is None:
            total = part
            continue
        total = index.add(NodeKind.ADD, (total, part), output.shape, like=node)
    assert total is not None
    last = index.producer[total]
    last.clamp = node.clamp
    index.set_output(last, output.id)
    index.remove(node)


def _part(
    index: Index, node: Node, conv: Conv2dAttributes, rows: Comb, columns: Comb, bias: int
) -> int:
    """A depthwise convolution with the taps of ``rows`` and ``columns``; its output."""
    whole = np.asarray(index.values[node.inputs[1]].data)
    taps = np.ascontiguousarray(
        whole[:, rows.first : rows.last + 1 : rows.step, columns.first :: columns.step]
    )
    weight = index.new_value(Value(0, DataType.FP32, taps.shape, None, taps))
    top, right, bottom, left = conv.padding
    down, across = conv.dilation
    attributes = replace(
        conv,
        padding=(
            top - down * rows.first,
            right - across * (conv.kernel[1] - 1 - columns.last),
            bottom - down * (conv.kernel[0] - 1 - rows.last),
            left - across * columns.first,
        ),
        kernel=(rows.count, columns.count),
        dilation=(down * rows.step, across * columns.step),
    )
    output = index.values[node.outputs[0]]
    part = index.add_copy(node, (node.inputs[0], weight, bias), output.shape, attributes)
    index.producer[part].clamp = None
    return part


def _parts(conv: Conv2dAttributes) -> list[tuple[Comb, Comb]] | None:
    """The kernel in as few parts as possible."""
    (height, width), (down, across) = conv.kernel, conv.dilation
    top, right, bottom, left = conv.padding
    found: tuple[int, list[Comb], list[Comb]] | None = None
    for row_step in range(1, height + 1):
        rows = _combs(height, row_step, top // down, bottom // down)
        for column_step in range(1, width + 1):
            columns = _combs(width, column_step, left // across, right // across)
            if rows is None or columns is None or rows[0].count * columns[0].count > MOST_TAPS:
                continue
            count = len(rows) * len(columns)
            if count <= MOST_PARTS and (found is None or count < found[0]):
                found = (count, rows, columns)
    if found is None:
        return None
    return [(rows, columns) for rows in found[1] for columns in found[2]]


def _combs(size: int, step: int, before: int, after: int) -> list[Comb] | None:
    """``size`` taps as combs, the largest first; None where one would need negative padding
    (``before`` and ``after`` are the padding in taps)."""
    combs = [Comb(first, step, (size - first + step - 1) // step) for first in range(step)]
    fits = all(comb.first <= before and size - 1 - comb.last <= after for comb in combs)
    return combs if fits else None
