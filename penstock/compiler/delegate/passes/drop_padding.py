"""Crop kernel taps that only see padding; split convolutions into bands that see less of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import (
    CONCATENATE,
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    SliceAttributes,
)

CONVOLUTIONS = (NodeKind.CONV_2D, NodeKind.DEPTHWISE_CONV_2D)
#: Multiplications in the time of copying one byte.
PRODUCTS_PER_BYTE = {DataType.FP32: 12, DataType.QINT8: 40}
#: … and of reading one of weights, which no cache holds from call to call. Of a small image little
#: else counts: 3 x 3 on 2 x 2 has 4 / 9 of the products in parts, with 16 / 9 of the weights.
PRODUCTS_PER_WEIGHT_BYTE = {DataType.FP32: 4, DataType.QINT8: 13}
#: A convolution in parts must become cheaper by this much.
WORTHWHILE = 0.8
#: Parts have weights of their own; all together may be so many times as large as before. (Without
#: a limit Inception v3 grows from 95 to 150 MB and gets slower, DeepLab from 210 to 269 MB and
#: gets 1 % faster.)
MOST_GROWTH = 3


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution."""

    size: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    def position(self, output: int, tap: int) -> int:
        return output * self.stride - self.before + tap * self.dilation

    def seen(self, output: int) -> tuple[int, int]:
        """The first tap inside the image, and the one after the last."""
        inside = [t for t in range(self.kernel) if 0 <= self.position(output, t) < self.size]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)


@dataclass(frozen=True)
class Run:
    """Outputs ``first`` to ``last`` (excluded), which see the taps ``low`` to ``high``."""

    first: int
    last: int
    low: int
    high: int

    @property
    def taps(self) -> int:
        return self.high - self.low


def crop(graph: XnnGraph) -> None:
    """Given a convolution whose outermost taps see nothing but padding, for any output → Result:
    the convolution without them. (3 x 3 with a dilation of 36 on 28 x 28 is 1 x 1.)"""
    index = Index(graph)
    for node in list(graph.nodes):
        if node.kind in CONVOLUTIONS and index.values[node.inputs[1]].data is not None:
            _crop(index, node)


def divide(graph: XnnGraph) -> None:
    """Given a CONV_2D of which many outputs see only some taps → Result: the parts of the output
    that see the same taps, each computed with those from the part of the input that they see, and
    concatenated. (3 x 3 with a dilation of 24 on 28 x 28: one tap in the middle, four in the
    corners.) Sizes must be fixed; the first dimension may vary."""
    index = Index(graph)
    slices: dict[tuple[int, ...], int] = {}
    for node in list(graph.nodes):
        if node.kind is NodeKind.CONV_2D and index.values[node.inputs[1]].data is not None:
            _divide(index, node, slices)
    index.finish()


def _axes(index: Index, node: Node) -> tuple[Axis, Axis]:
    conv = node.attributes
    assert isinstance(conv, Conv2dAttributes)
    source, output = index.values[node.inputs[0]], index.values[node.outputs[0]]
    top, right, bottom, left = conv.padding
    rows, columns = (
        Axis(
            source.shape[1 + i], output.shape[1 + i], conv.kernel[i], conv.stride[i],
            conv.dilation[i], before, after,
        )
        for i, (before, after) in enumerate(((top, bottom), (left, right)))
    )  # fmt: skip
    return rows, columns


# --- taps that see nothing -----------------------------------------------------------------------


def _crop(index: Index, node: Node) -> None:
    conv = node.attributes
    assert isinstance(conv, Conv2dAttributes)
    axes = _axes(index, node)
    kept = [_kept(axis) for axis in axes]
    if all(high - low == axis.kernel for axis, (low, high) in zip(axes, kept, strict=True)):
        return
    (top, bottom), (left, right) = (
        (a.before - a.dilation * low, a.after - a.dilation * (a.kernel - high))
        for a, (low, high) in zip(axes, kept, strict=True)
    )
    sizes = tuple(high - low for low, high in kept)
    node.attributes = replace(
        conv,
        padding=(top, right, bottom, left),
        kernel=(sizes[0], sizes[1]),
        dilation=(
            conv.dilation[0] if sizes[0] > 1 else 1, conv.dilation[1] if sizes[1] > 1 else 1,
        ),
    )  # fmt: skip
    weight = _selected(index, node, kept[0], kept[1])
    index.set_inputs(node, (node.inputs[0], weight, node.inputs[2]))


def _kept(axis: Axis) -> tuple[int, int]:
    """The taps without the outermost ones that no output sees, as far as padding stays positive."""
    used = [
        any(0 <= axis.position(y, tap) < axis.size for y in range(axis.outputs))
        for tap in range(axis.kernel)
    ]
    low, high = 0, axis.kernel
    while high - low > 1 and not used[low] and axis.before >= axis.dilation * (low + 1):
        low += 1
    while (
        high - low > 1
        and not used[high - 1]
        and axis.after >= axis.dilation * (axis.kernel - high + 1)
    ):
        high -= 1
    return low, high


def _selected(index: Index, node: Node, rows: tuple[int, int], columns: tuple[int, int]) -> int:
    weight = index.values[node.inputs[1]]
    taps = np.asarray(weight.data)[:, rows[0] : rows[1], columns[0] : columns[1]]
    taps = np.ascontiguousarray(taps)
    return index.new_value(replace(weight, shape=taps.shape, data=taps))


# --- parts that see the same taps ----------------------------------------------------------------


def _divide(index: Index, node: Node, slices: dict[tuple[int, ...], int]) -> None:
    conv = node.attributes
    assert isinstance(conv, Conv2dAttributes)
    source, output = index.values[node.inputs[0]], index.values[node.outputs[0]]
    if source.dtype not in PRODUCTS_PER_BYTE or not any(conv.padding):
        return
    axes = _axes(index, node)
    whole = tuple([Run(0, axis.outputs, 0, axis.kernel)] for axis in axes)
    split = tuple(_runs(axis) for axis in axes)
    options = [(rows, columns) for rows in (whole[0], split[0]) for columns in (whole[1], split[1])]
    options = [o for o in options if all(1 <= len(runs) <= 5 for runs in o)]
    most = MOST_GROWTH * conv.kernel[0] * conv.kernel[1]
    options = [o for o in options if _taps(o[0]) * _taps(o[1]) <= most]
    costs = [_cost(conv, axes, rows, columns, source) for rows, columns in options]
    best = min(range(len(options)), key=costs.__getitem__)
    before = _cost(conv, axes, whole[0], whole[1], source)
    if costs[best] > WORTHWHILE * before:
        return
    bands = []
    for rows in options[best][0]:
        parts = [
            _part(index, node, conv, axes, rows, columns, slices) for columns in options[best][1]
        ]
        bands.append(_joined(index, node, parts, 2))
    joined = _joined(index, node, bands, 1)
    last = index.producer[joined]
    index.set_output(last, output.id)
    index.remove(node)


def _runs(axis: Axis) -> list[Run]:
    """The outputs in runs that see the same taps; one with all where some see none at all."""
    runs: list[Run] = []
    for output in range(axis.outputs):
        low, high = axis.seen(output)
        if low == high:
            return [Run(0, axis.outputs, 0, axis.kernel)]
        if runs and (runs[-1].low, runs[-1].high) == (low, high):
            runs[-1] = replace(runs[-1], last=output + 1)
        else:
            runs.append(Run(output, output + 1, low, high))
    return runs


def _is_whole(axis: Axis, run: Run) -> bool:
    """Whether ``run`` is the whole axis with all taps. (A single run may lack some.)"""
    return run.last - run.first == axis.outputs and (run.low, run.high) == (0, axis.kernel)


def _taps(runs: Sequence[Run]) -> int:
    return sum(run.taps for run in runs)


def _padding(axis: Axis, run: Run) -> tuple[int, int]:
    """What ``run`` needs of the padding: all where it is the whole axis, else nothing."""
    return (axis.before, axis.after) if _is_whole(axis, run) else (0, 0)


def _span(axis: Axis, run: Run) -> tuple[int, int]:
    """The part of the input that ``run`` sees, as start and size."""
    if _is_whole(axis, run):
        return 0, axis.size
    start = axis.position(run.first, run.low)
    return start, axis.position(run.last - 1, run.high - 1) + 1 - start


def _cost(
    conv: Conv2dAttributes,
    axes: tuple[Axis, Axis],
    rows: Sequence[Run],
    columns: Sequence[Run],
    source: Value,
) -> float:
    """Multiplications, and the copies and the weights as so many."""
    channels = conv.groups * conv.group_input_channels
    outputs = conv.groups * conv.group_output_channels
    products, copied, weights = 0, 0, 0
    for row in rows:
        for column in columns:
            area = (row.last - row.first) * (column.last - column.first)
            taps = row.taps * column.taps * conv.group_input_channels * outputs
            products += area * taps
            weights += taps
            spans = [_span(axis, run) for axis, run in zip(axes, (row, column), strict=True)]
            if any(span != (0, axis.size) for span, axis in zip(spans, axes, strict=True)):
                copied += spans[0][1] * spans[1][1] * channels
            if len(rows) + len(columns) > 2:
                copied += area * outputs
    width = 4 if source.dtype is DataType.FP32 else 1
    each = products + copied * width * PRODUCTS_PER_BYTE[source.dtype]
    return source.shape[0] * each + weights * width * PRODUCTS_PER_WEIGHT_BYTE[source.dtype]


def _part(
    index: Index,
    node: Node,
    conv: Conv2dAttributes,
    axes: tuple[Axis, Axis],
    rows: Run,
    columns: Run,
    slices: dict[tuple[int, ...], int],
) -> int:
    (top, bottom), (left, right) = (
        _padding(axis, run) for axis, run in zip(axes, (rows, columns), strict=True)
    )
    spans = [_span(axis, run) for axis, run in zip(axes, (rows, columns), strict=True)]
    attributes = replace(
        conv,
        padding=(top, right, bottom, left),
        kernel=(rows.taps, columns.taps),
        dilation=(
            conv.dilation[0] if rows.taps > 1 else 1, conv.dilation[1] if columns.taps > 1 else 1,
        ),
    )  # fmt: skip
    weight = _selected(index, node, (rows.low, rows.high), (columns.low, columns.high))
    inputs = (_slice(index, node, spans[0], spans[1], slices), weight, node.inputs[2])
    output = index.values[node.outputs[0]]
    shape = (
        output.shape[0], rows.last - rows.first, columns.last - columns.first, output.shape[3]
    )  # fmt: skip
    return index.add_copy(node, inputs, shape, attributes)


def _slice(
    index: Index,
    node: Node,
    rows: tuple[int, int],
    columns: tuple[int, int],
    slices: dict[tuple[int, ...], int],
) -> int:
    source = index.values[node.inputs[0]]
    if (rows[1], columns[1]) == source.shape[1:3]:
        return source.id
    key = (source.id, *rows, *columns)
    if key not in slices:
        shape = (source.shape[0], rows[1], columns[1], source.shape[3])
        cut = SliceAttributes((0, rows[0], columns[0], 0), (0, rows[1], columns[1], 0))
        slices[key] = index.add(
            NodeKind.STATIC_SLICE, (source.id,), shape, cut, like=node, of=source.id
        )
    return slices[key]


def _joined(index: Index, node: Node, parts: Sequence[int], axis: int) -> int:
    if len(parts) == 1:
        return parts[0]
    first = index.values[parts[0]]
    shape = list(first.shape)
    shape[axis] = sum(index.values[part].shape[axis] for part in parts)
    return index.add(
        CONCATENATE[len(parts)], tuple(parts), tuple(shape), ConcatenateAttributes(axis),
        like=node, of=first.id,
    )  # fmt: skip
