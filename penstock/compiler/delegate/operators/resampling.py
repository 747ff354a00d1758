"""Resizing: nearest by repetition, linear by XNNPACK's node, others by weighted windows; and
what moves pixels between space and channels.

A separable resize is a sum of neighbours along each axis. Of which, and how much of each, comes
from PyTorch itself: it is asked about lines that are one here and there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import ends, gather, resizing, spread
from penstock.compiler.delegate.lowering.axis_windows import Windows, probed
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators import windowed
from penstock.compiler.delegate.operators.constraints import FLOATS
from penstock.compiler.delegate.operators.registry import Shared, operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.layout import CHANNELS_LAST
from penstock.graph.graph import FLAG_ALIGN_CORNERS
from penstock.graph.kinds import NodeKind, ResizeAttributes

aten = torch.ops.aten


def _sizes(b: GraphBuilder, node: Node) -> tuple[Tensor, list[int], list[int]]:
    """The input, its spatial sizes and those of the result."""
    x = b.tensor(node.args[0])
    target = layout.shape_of(node.meta["val"])
    old, new = x.shape[2:], target[2:]
    if not layout.is_static((*old, *new)):
        raise LoweringError("it resizes a dynamic size")
    return x, list(old), list(new)


def _scales(node: Node, axes: int) -> list[float | None]:
    """The user's scale factor for each axis, if there is one."""
    named = arguments(node)
    if "scale_factors" in named:
        factors = named["scale_factors"]
        return [None] * axes if factors is None else [float(factor) for factor in factors]
    if "scales" in named:
        return [named["scales"]]
    names = [name for name in ("scales_d", "scales_h", "scales_w") if name in named]
    return [named[name] for name in names] or [None] * axes


# --- nearest -----------------------------------------------------------------------------------

NEAREST = (
    aten.upsample_nearest1d.vec, aten.upsample_nearest1d.default,
    aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default,
    aten.upsample_nearest3d.vec, aten.upsample_nearest3d.default,
    aten._upsample_nearest_exact1d.vec, aten._upsample_nearest_exact1d.default,
    aten._upsample_nearest_exact2d.vec, aten._upsample_nearest_exact2d.default,
    aten._upsample_nearest_exact3d.vec, aten._upsample_nearest_exact3d.default,
)  # fmt: skip


@operator(
    "upsample_nearest", *NEAREST, constraints=FLOATS, quantization=Shared(),
    notes="whole factors by joining a tensor with itself, others by slices; dynamic sizes by whole "
    "factors only, where an infinity makes up to 31 other channels of its pixel NaN",
)  # fmt: skip
def lower_nearest(b: GraphBuilder, node: Node) -> Tensor:
    """Which index goes where, the operator itself says, asked about a picture of indices."""
    if _is_dynamic(b, node):
        return _dynamic_nearest(b, node)
    x, old, _ = _sizes(b, node)
    if any(isinstance(source, Node) for source in node.all_input_nodes[1:]):
        raise LoweringError("its size is computed at run time")
    # The last axis first: what is copied stays small the longest.
    for axis in range(len(old) - 1, -1, -1):
        view = [1] * (len(old) + 2)
        view[axis + 2] = old[axis]
        places = torch.arange(old[axis], dtype=torch.float32).view(view).expand(1, 1, *old)
        result = node.target(places.contiguous(), *node.args[1:], **node.kwargs)  # type: ignore[operator]
        indices = result.movedim(axis + 2, 0).flatten(1)[:, 0].long().numpy()
        x = gather.take(b, x, axis + 2, indices)
    return x


def _is_dynamic(b: GraphBuilder, node: Node) -> bool:
    x = b.tensor(node.args[0])
    return not layout.is_static((*x.shape[2:], *layout.shape_of(node.meta["val"])[2:]))


def _dynamic_nearest(b: GraphBuilder, node: Node) -> Tensor:
    x = b.tensor(node.args[0])
    old, new = x.shape[2:], layout.shape_of(node.meta["val"])[2:]
    steps = resizing.whole_steps(old, new)
    if steps is not None and "exact" not in str(node.target):
        for axis, step in enumerate(steps):
            if step > 1:
                whole = ends.without_last(b, x, axis + 2, step - 1)
                x = ends.every(b, whole, axis + 2, step)
        return x
    factors = resizing.whole_factors(old, new)
    if factors is None:
        raise resizing.refuse(old, new)
    for size, factor in zip(old, factors, strict=True):
        # PyTorch multiplies by a rounded reciprocal.
        line = torch.arange(b.dynamic.upper(size), dtype=torch.float32).view(1, 1, -1)
        scaled = aten.upsample_nearest1d.vec(line, None, [float(factor)])
        if not torch.equal(scaled, line.repeat_interleave(factor, 2)):
            raise resizing.refuse(old, new)
    return resizing.repeated(b, x, factors)


# --- linear, cubic, antialiased ----------------------------------------------------------------

#: An error of a place here is at most 3e-5.
LONGEST_ROUNDED = 512

_Axis = Callable[[torch.Tensor, int, "float | None", bool], torch.Tensor]


def _linear_axis(unit: torch.Tensor, size: int, scale: float | None, align: bool) -> torch.Tensor:
    line: torch.Tensor = aten.upsample_linear1d.default(unit, [size], align, scale)
    return line


def _planar(function: Any) -> _Axis:
    """Along the last axis of a picture of height 1 by a two-dimensional operator."""

    def apply(unit: torch.Tensor, size: int, scale: float | None, align: bool) -> torch.Tensor:
        plane: torch.Tensor = function(unit.unsqueeze(2), [1, size], align, None, scale)
        return plane.squeeze(2)

    return apply


SMOOTH: dict[Any, _Axis] = {
    aten.upsample_linear1d.vec: _linear_axis,
    aten.upsample_linear1d.default: _linear_axis,
    aten.upsample_bilinear2d.vec: _linear_axis,
    aten.upsample_bilinear2d.default: _linear_axis,
    aten.upsample_trilinear3d.vec: _linear_axis,
    aten.upsample_trilinear3d.default: _linear_axis,
    aten.upsample_bicubic2d.vec: _planar(aten.upsample_bicubic2d.default),
    aten.upsample_bicubic2d.default: _planar(aten.upsample_bicubic2d.default),
    aten._upsample_bilinear2d_aa.vec: _planar(aten._upsample_bilinear2d_aa.default),
    aten._upsample_bilinear2d_aa.default: _planar(aten._upsample_bilinear2d_aa.default),
    aten._upsample_bicubic2d_aa.vec: _planar(aten._upsample_bicubic2d_aa.default),
    aten._upsample_bicubic2d_aa.default: _planar(aten._upsample_bicubic2d_aa.default),
}
BILINEAR = (aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default)
LINEAR = (
    aten.upsample_linear1d.vec, aten.upsample_linear1d.default,
    aten.upsample_trilinear3d.vec, aten.upsample_trilinear3d.default,
)  # fmt: skip


@operator(
    "upsample_bilinear", *BILINEAR, constraints=FLOATS, quantization=Shared(blends=True),
    notes="XNNPACK's own; by windows where a scale factor does not give whole sizes; dynamic sizes "
    "by whole factors like nearest, then smoothed, others by products with matrices made at run "
    "time, where an infinity makes its row and column NaN",
)  # fmt: skip
def lower_bilinear(b: GraphBuilder, node: Node) -> Tensor:
    align = bool(arguments(node)["align_corners"])
    if _is_dynamic(b, node):
        target = layout.shape_of(node.meta["val"])
        return resizing.linear(b, b.tensor(node.args[0]), target[2:], _scales(node, 2), align)
    x, old, new = _sizes(b, node)
    if not align and not _whole(old, new, _scales(node, 2)):
        return by_windows(b, node)
    return _resized_pictures(b, x, new, align)


def _resized_pictures(b: GraphBuilder, x: Tensor, new: Sequence[int], align: bool) -> Tensor:
    """[N, C, H, W] by XNNPACK's own node."""
    images = b.place(b.dense(x), CHANNELS_LAST)
    held = b.value_of(images)
    shape = (*x.shape[:2], *new)
    output = b.result(shape, CHANNELS_LAST, held.dtype, held.quantization)
    flags = FLAG_ALIGN_CORNERS if align else 0
    attributes = ResizeAttributes(new[0], new[1])
    kind = NodeKind.STATIC_RESIZE_BILINEAR_2D
    return b.add_node(kind, [images], output, attributes, flags=flags)


def _whole(old: Sequence[int], new: Sequence[int], scales: Sequence[float | None]) -> bool:
    """Whether the scale factors are those of the sizes; else PyTorch samples by the factors."""
    return all(
        scale is None or scale == after / before
        for before, after, scale in zip(old, new, scales, strict=True)
    )


def _rounds(old: int, new: int) -> bool:
    """Whether places along the axis are so far from their start, and the step between them so
    crooked, that XNNPACK rounds them to others than PyTorch does."""
    return new > LONGEST_ROUNDED and (old * 1024) % new != 0


@operator(
    "upsample_linear", *LINEAR, constraints=FLOATS,
    notes="linear and trilinear: XNNPACK's bilinear node, axis by axis; by windows where a scale "
    "factor does not give whole sizes",
)  # fmt: skip
def lower_linear(b: GraphBuilder, node: Node) -> Tensor:
    """One axis is the height of a picture of width 1, whose channels are all that is behind the
    axis in memory."""
    align = bool(arguments(node)["align_corners"])
    target = layout.shape_of(node.meta["val"])
    if len(target) == 3 and _is_dynamic(b, node):
        return resizing.linear(b, b.tensor(node.args[0]), target[2:], _scales(node, 1), align)
    x, old, new = _sizes(b, node)
    whole = align or _whole(old, new, _scales(node, len(old)))
    if not whole or any(map(_rounds, old, new)):
        return by_windows(b, node)
    for axis, (before, after) in enumerate(zip(old, new, strict=True)):
        if before == after:
            continue
        dim = axis + 2
        order = (0, *range(2, x.rank), 1)
        arranged = b.permute(b.place(b.dense(x), order), order)  # [N, spatial …, C]
        front, behind = arranged.shape[: dim - 1], arranged.shape[dim:]
        flat = b.reshape(arranged, (layout.product(front), before, 1, layout.product(behind)))
        resized = _resized_pictures(b, b.permute(flat, (0, 3, 1, 2)), (after, 1), align)
        rows = b.reshape(b.permute(resized, (0, 2, 3, 1)), (*front, after, *behind))
        x = b.permute(rows, layout.inverse(order))
    return x


@operator(
    "upsample", *(target for target in SMOOTH if target not in (*BILINEAR, *LINEAR)),
    constraints=FLOATS,
    notes="bicubic and antialiased: a depthwise convolution along each axis for every kind of "
    "window, or sums of shifted copies",
)  # fmt: skip
def lower_smooth(b: GraphBuilder, node: Node) -> Tensor:
    return by_windows(b, node)


def by_windows(b: GraphBuilder, node: Node) -> Tensor:
    x, old, new = _sizes(b, node)
    align = bool(arguments(node)["align_corners"])
    scales = _scales(node, len(old))
    for axis in range(len(old)):
        function = SMOOTH[node.target]
        windows = axis_windows(function, old[axis], new[axis], scales[axis], align)
        x = windowed.weighted(b, x, axis + 2, windows)
    return x


def axis_windows(function: _Axis, old: int, new: int, scale: float | None, align: bool) -> Windows:
    """What each new value along an axis is the weighted sum of, asked of PyTorch itself."""
    step = old / new if scale is None else 1 / scale
    if align:  # between the centres of the first and the last value, whatever the scale factor is
        step = (old - 1) / max(new - 1, 1)
    reach = 3 + math.ceil(2 * max(1.0, step))
    with torch.no_grad():
        return probed(lambda lines: function(lines, new, scale, align), old, new, reach)


# --- between space and channels ----------------------------------------------------------------


@operator("pixel_shuffle", aten.pixel_shuffle.default, constraints=FLOATS, quantization=Shared())
def lower_pixel_shuffle(b: GraphBuilder, node: Node) -> Tensor:
    x, factor = b.tensor(node.args[0]), int(arguments(node)["upscale_factor"])
    lead, (channels, height, width) = x.shape[:-3], x.shape[-3:]
    if x.rank == 4 and layout.several_dynamic(x.shape):
        return spread.from_channels(b, x, (factor, factor))
    split = b.reshape(x, (*lead, channels // factor**2, factor, factor, height, width))
    n = len(lead)
    moved = b.permute(split, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return b.reshape(moved, layout.shape_of(node.meta["val"]))


@operator(
    "pixel_unshuffle", aten.pixel_unshuffle.default, constraints=FLOATS, quantization=Shared()
)
def lower_pixel_unshuffle(b: GraphBuilder, node: Node) -> Tensor:
    x, factor = b.tensor(node.args[0]), int(arguments(node)["downscale_factor"])
    lead, (channels, height, width) = x.shape[:-3], x.shape[-3:]
    split = b.reshape(x, (*lead, channels, height // factor, factor, width // factor, factor))
    n = len(lead)
    moved = b.permute(split, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return b.reshape(moved, layout.shape_of(node.meta["val"]))


@operator(
    "channel_shuffle", aten.channel_shuffle.default, aten.native_channel_shuffle.default,
    constraints=FLOATS, quantization=Shared(),
)  # fmt: skip
def lower_channel_shuffle(b: GraphBuilder, node: Node) -> Tensor:
    x, groups = b.tensor(node.args[0]), int(arguments(node)["groups"])
    split = b.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    return b.reshape(b.permute(split, [0, 2, 1, *range(3, split.rank)]), x.shape)
