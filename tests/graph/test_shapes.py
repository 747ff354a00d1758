"""Shape inference against NumPy and PyTorch, and what a node cannot take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from penstock.graph.graph import (
    FLAG_KEEP_DIMS,
    FLAG_TENSORFLOW_SAME_PADDING,
    FLAG_TRANSPOSE_B,
    Node,
    Shape,
)
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    NodeKind,
    PadAttributes,
    Pool2dAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)
from penstock.graph.shapes import ShapeError, broadcast, infer

SIZES = st.integers(1, 4)


def inferred(kind: NodeKind, inputs: Sequence[Shape], **rest: Any) -> Shape:
    node = Node(kind, tuple(range(len(inputs))), (99,), **rest)
    shapes = dict(enumerate(inputs))
    infer([node], shapes)
    return shapes[99]


def refused(kind: NodeKind, *inputs: Shape, match: str, **rest: Any) -> None:
    with pytest.raises(ShapeError, match=rf"node 0 \({kind.name}\): .*{match}"):
        inferred(kind, inputs, **rest)


@given(st.lists(SIZES, max_size=4), st.lists(SIZES, max_size=4))
def test_broadcasting_is_numpys(a: list[int], b: list[int]) -> None:
    try:
        expected = np.broadcast_shapes(tuple(a), tuple(b))
    except ValueError:
        with pytest.raises(ShapeError, match="do not go together"):
            broadcast(tuple(a), tuple(b))
    else:
        assert broadcast(tuple(a), tuple(b)) == expected


@given(st.data())
def test_windows_are_pytorchs(data: st.DataObject) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return (data.draw(st.integers(low, high)), data.draw(st.integers(low, high)))

    size, kernel, stride, dilation, (y, x) = (
        pair(1, 9),
        pair(1, 3),
        pair(1, 3),
        pair(1, 3),
        pair(0, 2),
    )
    a = Conv2dAttributes((y, x, y, x), kernel, stride, dilation, 1, 2, 3)
    image, weight = torch.zeros(2, 2, *size), torch.zeros(3, 2, *kernel)
    try:
        expected = F.conv2d(image, weight, None, stride, (y, x), dilation)
    except RuntimeError:
        refused(
            NodeKind.CONV_2D, (2, *size, 2), (3, *kernel, 2), match="exceeds the padded input",
            attributes=a,
        )  # fmt: skip
        return
    found = inferred(NodeKind.CONV_2D, [(2, *size, 2), (3, *kernel, 2)], attributes=a)
    assert found == tuple(expected.permute(0, 2, 3, 1).shape)


@given(st.data())
def test_transposed_windows_are_pytorchs(data: st.DataObject) -> None:
    size, kernel, stride, padding = (data.draw(st.integers(1, 4)) for _ in range(4))
    padding = min(padding - 1, (kernel - 1) // 2)
    extra = data.draw(st.integers(0, stride - 1))
    a = Conv2dAttributes(
        (padding,) * 4, (kernel, kernel), (stride, stride), (1, 1), 1, 2, 3, (extra, extra)
    )
    expected = F.conv_transpose2d(
        torch.zeros(1, 2, size, size),
        torch.zeros(2, 3, kernel, kernel),
        None,
        stride,
        padding,
        extra,
    )
    found = inferred(
        NodeKind.CONV_TRANSPOSE_2D, [(1, size, size, 2), (3, kernel, kernel, 2)], attributes=a
    )
    assert found == tuple(expected.permute(0, 2, 3, 1).shape)


def test_same_padding_counts_strides() -> None:
    a = Pool2dAttributes((0, 0, 0, 0), (3, 3), (2, 3))
    flags = FLAG_TENSORFLOW_SAME_PADDING
    assert inferred(NodeKind.MAX_POOLING_2D, [(1, 7, 7, 2)], attributes=a, flags=flags) == (
        1,
        4,
        3,
        2,
    )


@given(st.lists(SIZES, min_size=1, max_size=5), st.randoms())
def test_movement_is_numpys(shape: list[int], random: Any) -> None:
    array = np.zeros(shape)
    perm = random.sample(range(len(shape)), len(shape))
    found = inferred(
        NodeKind.STATIC_TRANSPOSE, [tuple(shape)], attributes=TransposeAttributes(tuple(perm))
    )
    assert found == array.transpose(perm).shape
    bounds = [sorted(random.sample(range(size + 1), 2)) for size in shape]
    slices = tuple(slice(low, high) for low, high in bounds)
    attributes = SliceAttributes(
        tuple(low for low, _ in bounds), tuple(high - low for low, high in bounds)
    )
    assert (
        inferred(NodeKind.STATIC_SLICE, [tuple(shape)], attributes=attributes)
        == array[slices].shape
    )
    pads = [(random.randrange(3), random.randrange(3)) for _ in shape]
    padded = PadAttributes(tuple(a for a, _ in pads), tuple(b for _, b in pads), 0.0)
    found = inferred(NodeKind.STATIC_CONSTANT_PAD, [tuple(shape)], attributes=padded)
    assert found == np.pad(array, pads).shape
    axis = random.randrange(-len(shape), len(shape))
    joined = inferred(
        NodeKind.CONCATENATE_3, [tuple(shape)] * 3, attributes=ConcatenateAttributes(axis)
    )
    assert joined == np.concatenate([array] * 3, axis).shape


def test_products() -> None:
    assert inferred(NodeKind.FULLY_CONNECTED, [(2, 5, 3), (4, 3), (4,)]) == (2, 5, 4)
    assert inferred(NodeKind.BATCH_MATRIX_MULTIPLY, [(2, 1, 4, 3), (5, 3, 6)]) == (2, 5, 4, 6)
    turned = inferred(
        NodeKind.BATCH_MATRIX_MULTIPLY, [(2, 1, 4, 3), (5, 6, 3)], flags=FLAG_TRANSPOSE_B
    )
    assert turned == (2, 5, 4, 6)


@pytest.mark.parametrize(("flags", "expected"), [(0, (2, 5)), (FLAG_KEEP_DIMS, (2, 1, 1, 5))])
def test_means(flags: int, expected: Shape) -> None:
    assert inferred(NodeKind.GLOBAL_AVG_POOLING_2D, [(2, 3, 4, 5)], flags=flags) == expected


@pytest.mark.parametrize(
    ("shape", "new", "expected"),
    [((2, 6), (3, 4), (3, 4)), ((2, 6), (0, 4), (3, 4)), ((2, 6), (2, 0, 2), (2, 3, 2))],
)
def test_reshapes(shape: Shape, new: Shape, expected: Shape) -> None:
    found = inferred(NodeKind.STATIC_RESHAPE, [shape], attributes=ReshapeAttributes(new))
    assert found == expected


@pytest.mark.parametrize(
    "check",
    [
        lambda: refused(NodeKind.ADD, (2, 3), (2, 4), match="do not go together"),
        lambda: refused(NodeKind.SOFTMAX, (), match="input is a scalar"),
        lambda: refused(NodeKind.FULLY_CONNECTED, (2, 3), (4, 5), match="filter takes 5"),
        lambda: refused(NodeKind.FULLY_CONNECTED, (2, 3), (4, 3), (3,), match="bias has shape"),
        lambda: refused(NodeKind.BATCH_MATRIX_MULTIPLY, (2, 3), (4, 3), match="inner dimensions"),
        lambda: refused(NodeKind.BATCH_MATRIX_MULTIPLY, (3,), (3, 3), match="are not matrices"),
        lambda: refused(
            NodeKind.STATIC_RESHAPE, (2, 3), match="cannot become",
            attributes=ReshapeAttributes((0, 4)),
        ),
        lambda: refused(
            NodeKind.STATIC_RESHAPE, (2, 3), match="cannot become",
            attributes=ReshapeAttributes((0, 0)),
        ),
        lambda: refused(
            NodeKind.STATIC_TRANSPOSE, (2, 3), match="does not permute",
            attributes=TransposeAttributes((0, 0)),
        ),
        lambda: refused(
            NodeKind.CONCATENATE_2, (2, 3), (2, 4), match="differ beside axis 0",
            attributes=ConcatenateAttributes(0),
        ),
        lambda: refused(NodeKind.ADD, (1 << 31, 1), (1, 1), match="would have shape"),
        lambda: refused(
            NodeKind.STATIC_RESHAPE, (2,) * 7, match="7 dimensions, XNNPACK has 6",
            attributes=ReshapeAttributes((2,) * 7),
        ),
    ],
)  # fmt: skip
def test_what_a_node_cannot_take(check: Callable[[], None]) -> None:
    check()
