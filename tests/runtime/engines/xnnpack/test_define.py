"""Every node kind in float32 against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import GraphBuilder, one_node
from hypothesis import given, settings
from hypothesis import strategies as st
from xnn_graphs import run
from xnn_references import (
    BINARY,
    POSITIVE,
    UNARY,
    average_pooling,
    convolution,
    depthwise_convolution,
    max_pooling,
    resize_bilinear,
    softmax,
    transposed_convolution,
)

from penstock.graph.dtypes import DataType
from penstock.graph.graph import (
    FLAG_ALIGN_CORNERS,
    FLAG_KEEP_DIMS,
    FLAG_TRANSPOSE_B,
    FLAG_TRANSPOSE_WEIGHTS,
)
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
from penstock.runtime.engines.xnnpack.define import DEFINE

SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)
SEEDS = st.integers(0, 2**31)
FEW = settings(max_examples=12, deadline=None)


def random(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-3, 3, shape).astype(np.float32)


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 2e-5) -> None:
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


def test_every_kind_is_tested_here_or_is_not_in_the_runtime() -> None:
    assert set(NodeKind) - set(DEFINE) == {NodeKind.SCALED_DOT_PRODUCT_ATTENTION}


@pytest.mark.parametrize("kind", UNARY)
@FEW
@given(shape=SHAPES, seed=SEEDS)
def test_unary(kind: NodeKind, shape: tuple[int, ...], seed: int) -> None:
    x = random(seed, shape)
    if kind in POSITIVE:
        x = np.abs(x) + np.float32(0.01)
    (y,) = run(one_node(kind, [x], shape), x)
    close(y, UNARY[kind](x.astype(np.float64)))


@FEW
@given(shape=SHAPES, seed=SEEDS, low=st.floats(-2, 0), high=st.floats(0, 2))
def test_unary_with_parameters(shape: tuple[int, ...], seed: int, low: float, high: float) -> None:
    x = random(seed, shape)
    (y,) = run(one_node(NodeKind.CLAMP, [x], shape, clamp=(low, high)), x)
    close(y, np.clip(x, low, high))
    (y,) = run(one_node(NodeKind.ELU, [x], shape, attributes=EluAttributes(high)), x)
    close(y, np.where(x < 0, high * np.expm1(x), x))
    attributes = LeakyReluAttributes(low)
    (y,) = run(one_node(NodeKind.LEAKY_RELU, [x], shape, attributes=attributes), x)
    close(y, np.where(x < 0, low * x, x))


@pytest.mark.parametrize("kind", BINARY)
@FEW
@given(data=st.data(), shape=SHAPES, seed=SEEDS)
def test_binary_broadcasts(
    kind: NodeKind, data: st.DataObject, shape: tuple[int, ...], seed: int
) -> None:
    narrow = tuple(data.draw(st.sampled_from([1, size])) for size in shape)
    narrow = narrow[data.draw(st.integers(0, len(shape) - 1)) :]
    a, b = random(seed, shape), random(seed + 1, narrow)
    b[np.abs(b) < 0.1] = 1.0  # a divisor
    swap = kind != NodeKind.PRELU and data.draw(st.booleans())
    a, b = (b, a) if swap else (a, b)
    if kind == NodeKind.DIV and swap:
        b[np.abs(b) < 0.1] = 1.0
    clamp = data.draw(st.sampled_from([None, (-1.0, 1.0)]))
    clamp = clamp if kind in (NodeKind.ADD, NodeKind.SUBTRACT, NodeKind.MULTIPLY) else None
    (y,) = run(one_node(kind, [a, b], shape, clamp=clamp), a, b)
    expected = BINARY[kind](a.astype(np.float64), b.astype(np.float64))
    close(y, np.clip(expected, *clamp) if clamp else expected)


@FEW
@given(shape=SHAPES, seed=SEEDS)
def test_softmax(shape: tuple[int, ...], seed: int) -> None:
    x = random(seed, shape)
    close(run(one_node(NodeKind.SOFTMAX, [x], shape), x)[0], softmax(x.astype(np.float64)))


@FEW
@given(
    batch=SHAPES.filter(lambda s: len(s) < 4), inputs=st.integers(1, 40),
    outputs=st.integers(1, 40), transposed=st.booleans(), bias=st.booleans(),
    clamped=st.booleans(), seed=SEEDS,
)  # fmt: skip
def test_fully_connected(
    batch: tuple[int, ...],
    inputs: int,
    outputs: int,
    transposed: bool,
    bias: bool,
    clamped: bool,
    seed: int,
) -> None:
    x, w, c = random(seed, (*batch, inputs)), random(seed, (outputs, inputs)), random(3, (outputs,))
    b = GraphBuilder()
    ids = [b.input(x.shape), b.constant(np.ascontiguousarray(w.T) if transposed else w)]
    ids.append(b.constant(c) if bias else None)
    b.node(
        NodeKind.FULLY_CONNECTED, ids, [b.output((*batch, outputs))],
        flags=FLAG_TRANSPOSE_WEIGHTS if transposed else 0, clamp=(0.0, 6.0) if clamped else None,
    )  # fmt: skip
    expected = x.astype(np.float64) @ w.T + (c if bias else 0)
    close(run(b.graph, x)[0], np.clip(expected, 0, 6) if clamped else expected)


def test_fully_connected_with_computed_weights() -> None:
    x, w = random(1, (5, 7)), random(2, (4, 7))
    graph = one_node(NodeKind.FULLY_CONNECTED, [x, w], (5, 4))
    node = graph.nodes[0]
    node.inputs = (*node.inputs, 0xFFFFFFFF)
    close(run(graph, x, w)[0], x.astype(np.float64) @ w.T)


@FEW
@given(
    batch=st.sampled_from([((), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((2, 1), (1, 3)), ((4,), ())]),
    m=st.integers(1, 9), k=st.integers(1, 9), n=st.integers(1, 9), transposed=st.booleans(),
    constant=st.booleans(), seed=SEEDS,
)  # fmt: skip
def test_batch_matrix_multiply(
    batch: tuple[tuple[int, ...], tuple[int, ...]],
    m: int,
    k: int,
    n: int,
    transposed: bool,
    constant: bool,
    seed: int,
) -> None:
    a, c = random(seed, (*batch[0], m, k)), random(seed + 1, (*batch[1], k, n))
    stored = np.ascontiguousarray(np.swapaxes(c, -1, -2)) if transposed else c
    expected = a.astype(np.float64) @ c
    b = GraphBuilder()
    left = b.input(a.shape)
    right = b.constant(stored) if constant else b.input(stored.shape)
    b.node(
        NodeKind.BATCH_MATRIX_MULTIPLY, [left, right], [b.output(expected.shape)],
        flags=FLAG_TRANSPOSE_B if transposed else 0,
    )  # fmt: skip
    close(run(b.graph, a, *([] if constant else [stored]))[0], expected)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[tuple[int, ...], Conv2dAttributes]:
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    a = Conv2dAttributes(
        padding=draw(st.tuples(*[st.integers(0, 2)] * 4)),
        kernel=draw(pair),
        stride=draw(pair),
        dilation=draw(pair),
        groups=draw(st.integers(1, 3)),
        group_input_channels=draw(st.integers(1, 5)),
        group_output_channels=draw(st.integers(1, 5)),
    )
    size = draw(st.tuples(st.integers(7, 12), st.integers(7, 12)))
    return (draw(st.integers(1, 2)), *size), a


def _filtered(
    kind: NodeKind, x: np.ndarray, w: np.ndarray, c: np.ndarray, shape: tuple[int, ...], a: object
) -> np.ndarray:
    b = GraphBuilder()
    ids = [b.input(x.shape), b.constant(w), b.constant(c)]
    b.node(kind, ids, [b.output(shape)], attributes=a)
    return run(b.graph, x)[0]


@settings(max_examples=40, deadline=None)
@given(case=convolutions(), seed=SEEDS)
def test_convolution(case: tuple[tuple[int, ...], Conv2dAttributes], seed: int) -> None:
    image, a = case
    channels = a.groups * a.group_output_channels
    x = random(seed, (*image, a.groups * a.group_input_channels))
    w, c = random(seed, (channels, *a.kernel, a.group_input_channels)), random(1, (channels,))
    expected = convolution(x.astype(np.float64), w, a) + c
    close(_filtered(NodeKind.CONV_2D, x, w, c, expected.shape, a), expected)


@settings(max_examples=30, deadline=None)
@given(case=convolutions(), seed=SEEDS)
def test_depthwise_convolution(case: tuple[tuple[int, ...], Conv2dAttributes], seed: int) -> None:
    image, a = case
    a = Conv2dAttributes(
        a.padding, a.kernel, a.stride, a.dilation, a.groups * 3, 1, a.group_output_channels
    )
    channels = a.groups * a.group_output_channels
    x = random(seed, (*image, a.groups))
    w, c = random(seed, (1, *a.kernel, channels)), random(1, (channels,))
    expected = depthwise_convolution(x.astype(np.float64), w, a) + c
    close(_filtered(NodeKind.DEPTHWISE_CONV_2D, x, w, c, expected.shape, a), expected)


@settings(max_examples=30, deadline=None)
@given(case=convolutions(), adjust=st.booleans(), seed=SEEDS)
def test_transposed_convolution(
    case: tuple[tuple[int, ...], Conv2dAttributes], adjust: bool, seed: int
) -> None:
    image, a = case
    adjustment = tuple(s - 1 if adjust else 0 for s in a.stride)
    a = Conv2dAttributes(
        a.padding, a.kernel, a.stride, a.dilation, a.groups, a.group_input_channels,
        a.group_output_channels, (adjustment[0], adjustment[1]),
    )  # fmt: skip
    channels = a.groups * a.group_output_channels
    x = random(seed, (*image, a.groups * a.group_input_channels))
    w, c = random(seed, (channels, *a.kernel, a.group_input_channels)), random(1, (channels,))
    expected = transposed_convolution(x.astype(np.float64), w, a) + c
    close(_filtered(NodeKind.CONV_TRANSPOSE_2D, x, w, c, expected.shape, a), expected)


@st.composite
def pools(draw: st.DrawFn) -> tuple[tuple[int, ...], Pool2dAttributes]:
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(2, 4)))
    padding = tuple(draw(st.integers(0, kernel[i % 2] // 2)) for i in range(4))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return draw(st.tuples(*[st.integers(5, 9)] * 3)), Pool2dAttributes(padding, kernel, stride)


@settings(max_examples=25, deadline=None)
@given(case=pools(), channels=st.integers(1, 20), seed=SEEDS)
def test_pooling(case: tuple[tuple[int, ...], Pool2dAttributes], channels: int, seed: int) -> None:
    image, a = case
    x = random(seed, (*image, channels))
    for kind, reference in (
        (NodeKind.AVG_POOLING_2D, average_pooling),
        (NodeKind.MAX_POOLING_2D, max_pooling),
    ):
        expected = reference(x.astype(np.float64), a)
        close(run(one_node(kind, [x], expected.shape, attributes=a), x)[0], expected)


def test_max_pooling_with_dilation() -> None:
    a = Pool2dAttributes((1, 1, 1, 1), (2, 3), (2, 1), (2, 2))
    x = random(0, (1, 9, 8, 3))
    expected = max_pooling(x, a)
    close(run(one_node(NodeKind.MAX_POOLING_2D, [x], expected.shape, attributes=a), x)[0], expected)


def test_argmax_pooling_gives_values_and_their_places_in_the_window() -> None:
    x = random(5, (1, 7, 6, 2))
    b = GraphBuilder()
    image, value = b.input(x.shape), b.output((1, 3, 3, 2))
    index = b.output((1, 3, 3, 2), DataType.INT32)
    a = Pool2dAttributes((0, 0, 0, 0), (2, 2), (2, 2))
    b.node(NodeKind.ARG_MAX_POOLING_2D, [image], [value, index], attributes=a)
    values, indices = run(b.graph, x)
    # XNNPACK counts the places of a window down its columns.
    windows = x[:, :6].reshape(1, 3, 2, 3, 2, 2).transpose(0, 1, 3, 5, 4, 2).reshape(1, 3, 3, 2, 4)
    np.testing.assert_array_equal(values, windows.max(-1))
    np.testing.assert_array_equal(indices, windows.argmax(-1))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("shape", [(2, 7, 5, 12), (6, 5, 3), (2, 3, 4, 5, 6)])
def test_global_average_pooling(shape: tuple[int, ...], keep: bool) -> None:
    x, axes = random(1, shape), (len(shape) - 3, len(shape) - 2)
    expected = x.astype(np.float64).mean(axes, keepdims=keep)
    flags = FLAG_KEEP_DIMS if keep else 0
    graph = one_node(NodeKind.GLOBAL_AVG_POOLING_2D, [x], expected.shape, flags=flags)
    close(run(graph, x)[0], expected)


@FEW
@given(data=st.data(), shape=st.lists(st.integers(1, 4), min_size=1, max_size=6), seed=SEEDS)
def test_movement(data: st.DataObject, shape: list[int], seed: int) -> None:
    x = random(seed, tuple(shape))
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    _exact(NodeKind.STATIC_TRANSPOSE, x, x.transpose(perm), TransposeAttributes(perm))
    offsets = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    counts = tuple(
        data.draw(st.integers(1, size - o)) for size, o in zip(shape, offsets, strict=True)
    )
    window = tuple(slice(o, o + c) for o, c in zip(offsets, counts, strict=True))
    _exact(NodeKind.STATIC_SLICE, x, x[window], SliceAttributes(offsets, counts))
    pre = tuple(data.draw(st.integers(0, 2)) for _ in shape)
    padded = np.pad(x, list(zip(pre, pre[::-1], strict=True)), constant_values=1.5)
    _exact(NodeKind.STATIC_CONSTANT_PAD, x, padded, PadAttributes(pre, pre[::-1], 1.5))
    _exact(NodeKind.STATIC_RESHAPE, x, x.reshape(-1, shape[-1]), ReshapeAttributes((0, shape[-1])))
    _exact(NodeKind.STATIC_RESHAPE, x, x.ravel(), ReshapeAttributes((x.size,)))


def _exact(kind: NodeKind, x: np.ndarray, expected: np.ndarray, attributes: object) -> None:
    (y,) = run(one_node(kind, [x], expected.shape, attributes=attributes), x)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_concatenate(count: int, axis: int) -> None:
    shapes = []
    for i in range(count):
        shape = [3, 4, 5]
        shape[axis] = i + 1
        shapes.append(tuple(shape))
    arrays = [random(i, shape) for i, shape in enumerate(shapes)]
    kind = NodeKind[f"CONCATENATE_{count}"]
    expected = np.concatenate(arrays, axis)
    graph = one_node(kind, arrays, expected.shape, attributes=ConcatenateAttributes(axis))
    np.testing.assert_array_equal(run(graph, *arrays)[0], expected)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("size", [(8, 12), (5, 3), (9, 9), (1, 1)])
def test_resize(size: tuple[int, int], align: bool) -> None:
    x = random(7, (2, 4, 6, 5))
    flags, attributes = (FLAG_ALIGN_CORNERS if align else 0), ResizeAttributes(*size)
    kind = NodeKind.STATIC_RESIZE_BILINEAR_2D
    graph = one_node(kind, [x], (2, *size, 5), flags=flags, attributes=attributes)
    close(run(graph, x)[0], resize_bilinear(x.astype(np.float64), *size, align), 1e-4)
