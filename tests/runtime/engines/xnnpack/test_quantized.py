"""8-bit nodes against NumPy: the exact integer where rounding leaves no choice, else one step."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import GraphBuilder, one_node
from hypothesis import given, settings
from hypothesis import strategies as st
from xnn_graphs import dequantize, quantize, run
from xnn_references import (
    BINARY,
    UNARY,
    convolution,
    depthwise_convolution,
    max_pooling,
    transposed_convolution,
)

from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import FLAG_KEEP_DIMS
from penstock.graph.kinds import (
    ConcatenateAttributes,
    Conv2dAttributes,
    EluAttributes,
    LeakyReluAttributes,
    NodeKind,
    PadAttributes,
    Pool2dAttributes,
    ResizeAttributes,
    TransposeAttributes,
)

SIGNED, UNSIGNED = PerTensor(0.0517, -3), PerTensor(0.0413, 110)
TYPES = [(np.int8, SIGNED), (np.uint8, UNSIGNED)]
POOL = Pool2dAttributes((0,) * 4, (2, 2), (2, 2))
FEW = settings(max_examples=10, deadline=None)
SEEDS = st.integers(0, 2**31)


def random(seed: int, shape: tuple[int, ...], dtype: type = np.int8) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape, dtype)


def within_one_step(actual: np.ndarray, real: np.ndarray, q: PerTensor, share: float = 0.1) -> None:
    """At most ``share`` of the elements may be off, and by no more than one."""
    expected = quantize(real, q, actual.dtype)
    assert actual.shape == expected.shape
    difference = np.abs(actual.astype(int) - expected.astype(int))
    assert difference.max(initial=0) <= 1
    assert (difference > 0).mean() < share


@pytest.mark.parametrize(("dtype", "q"), TYPES)
@pytest.mark.parametrize(
    "kind",
    [k for k in UNARY if k not in (NodeKind.COPY, NodeKind.LOG, NodeKind.SQUARE_ROOT,
                                   NodeKind.RECIPROCAL_SQUARE_ROOT)],
)  # fmt: skip
def test_unary(kind: NodeKind, dtype: type, q: PerTensor) -> None:
    x = random(1, (3, 50), dtype)
    out = PerTensor(0.0613, q.zero_point)
    (y,) = run(one_node(kind, [x], x.shape, [q, out]), x)
    within_one_step(y, UNARY[kind](dequantize(x, q)), out)


@pytest.mark.parametrize(("dtype", "q"), TYPES)
def test_unary_with_parameters(dtype: type, q: PerTensor) -> None:
    x, out = random(1, (3, 50), dtype), PerTensor(0.0613, q.zero_point)
    real = dequantize(x, q)
    (y,) = run(one_node(NodeKind.CLAMP, [x], x.shape, [q, q], clamp=(-1.0, 1.5)), x)
    within_one_step(y, np.clip(real, -1.0, 1.5), q)
    attributes = EluAttributes(0.5)
    (y,) = run(one_node(NodeKind.ELU, [x], x.shape, [q, out], attributes=attributes), x)
    within_one_step(y, np.where(real < 0, 0.5 * np.expm1(real), real), out)
    (y,) = run(
        one_node(NodeKind.LEAKY_RELU, [x], x.shape, [q, out], attributes=LeakyReluAttributes(0.2)),
        x,
    )
    within_one_step(y, np.where(real < 0, 0.2 * real, real), out, 0.3)  # 8-bit multipliers


@pytest.mark.parametrize(("dtype", "q"), TYPES)
@pytest.mark.parametrize("kind", [NodeKind.ADD, NodeKind.SUBTRACT, NodeKind.MULTIPLY,
                                  NodeKind.MAXIMUM, NodeKind.MINIMUM])  # fmt: skip
@FEW
@given(seed=SEEDS, shape=st.sampled_from([(3, 40), (40,), (3, 1)]))
def test_binary(
    kind: NodeKind, dtype: type, q: PerTensor, seed: int, shape: tuple[int, ...]
) -> None:
    a, b = random(seed, (3, 40), dtype), random(seed + 1, shape, dtype)
    p, out = PerTensor(0.03, 7), PerTensor(0.2037, q.zero_point)
    (y,) = run(one_node(kind, [a, b], (3, 40), [q, p, out]), a, b)
    within_one_step(y, BINARY[kind](dequantize(a, q), dequantize(b, p)), out)


@pytest.mark.parametrize(("dtype", "q"), TYPES)
def test_convert_there_and_back(dtype: type, q: PerTensor) -> None:
    b = GraphBuilder()
    kind = DataType.QINT8 if dtype == np.int8 else DataType.QUINT8
    real, stored, back = b.input((4, 33)), b.output((4, 33), kind, q), b.output((4, 33))
    b.node(NodeKind.CONVERT, [real], [stored])
    b.node(NodeKind.CONVERT, [stored], [back])
    x = np.random.default_rng(0).uniform(-9, 9, (4, 33)).astype(np.float32)
    y, z = run(b.graph, x)
    within_one_step(y, x, q)
    np.testing.assert_allclose(z, dequantize(y, q), rtol=1e-6)


def filtered(
    kind: NodeKind, x: np.ndarray, w: np.ndarray, bias: np.ndarray, reference: np.ndarray,
    q: PerTensor, scales: np.ndarray, axis: int, out: PerTensor, attributes: object = None,
) -> None:  # fmt: skip
    """Run a filter with a scale for each channel; compare with the real-valued ``reference``."""
    b = GraphBuilder()
    ids = [b.input(x.shape, DataType.QINT8, q)]
    ids.append(b.constant(w, DataType.QCINT8, PerChannel(scales, axis)))
    bias_scales = (scales * np.float32(q.scale)).astype(np.float32)
    ids.append(b.constant(bias, DataType.QCINT32, PerChannel(bias_scales, 0)))
    y = b.output(reference.shape, DataType.QINT8, out)
    b.node(kind, ids, [y], attributes=attributes)
    real = reference + bias * bias_scales.astype(np.float64)
    within_one_step(run(b.graph, x)[0], real, out)


def weights(seed: int, shape: tuple[int, ...], axis: int) -> tuple[np.ndarray, ...]:
    """Quantized weights, their scales, their real values, a bias."""
    channels = shape[axis]
    rng = np.random.default_rng(seed)
    w = rng.integers(-127, 128, shape, np.int8)
    scales = rng.uniform(0.005, 0.02, channels).astype(np.float32)
    along = scales.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    bias = rng.integers(-3000, 3000, channels, np.int32)
    return w, scales, w * along.astype(np.float64), bias


@settings(max_examples=25, deadline=None)
@given(
    seed=SEEDS, groups=st.integers(1, 3), inputs=st.integers(1, 9), outputs=st.integers(1, 9),
    stride=st.integers(1, 2), kernel=st.integers(1, 3), zero_point=st.integers(-128, 127),
)  # fmt: skip
def test_convolutions(
    seed: int, groups: int, inputs: int, outputs: int, stride: int, kernel: int, zero_point: int
) -> None:
    q, out = PerTensor(0.05, zero_point), PerTensor(0.2037, -5)
    pad = (kernel // 2,) * 4
    a = Conv2dAttributes(pad, (kernel, kernel), (stride, stride), (1, 1), groups, inputs, outputs)
    x = random(seed, (1, 7, 6, groups * inputs))
    w, scales, real, bias = weights(seed, (groups * outputs, kernel, kernel, inputs), 0)
    real_x = dequantize(x, q)
    for kind, reference in (
        (NodeKind.CONV_2D, convolution),
        (NodeKind.CONV_TRANSPOSE_2D, transposed_convolution),
    ):
        filtered(kind, x, w, bias, reference(real_x, real, a), q, scales, 0, out, a)
    channels = groups * inputs
    a = Conv2dAttributes(pad, (kernel, kernel), (stride, stride), (1, 1), channels, 1, 1)
    w, scales, real, bias = weights(seed, (1, kernel, kernel, channels), 3)
    expected = depthwise_convolution(real_x, real, a)
    filtered(NodeKind.DEPTHWISE_CONV_2D, x, w, bias, expected, q, scales, 3, out, a)


@FEW
@given(seed=SEEDS, inputs=st.integers(1, 70), outputs=st.integers(1, 40))
def test_fully_connected(seed: int, inputs: int, outputs: int) -> None:
    x = random(seed, (5, inputs))
    w, scales, real, bias = weights(seed, (outputs, inputs), 0)
    expected = dequantize(x, SIGNED) @ real.T
    out = PerTensor(0.3, 4)
    filtered(NodeKind.FULLY_CONNECTED, x, w, bias, expected, SIGNED, scales, 0, out)


def dynamic(
    x: np.ndarray, weight: tuple[np.ndarray, DataType, object], bias: np.ndarray, outputs: int
) -> np.ndarray:
    """x -> dynamically quantized -> fully connected; float32 out."""
    array, dtype, quantization = weight
    b = GraphBuilder()
    real = b.input(x.shape)
    stored = b.value(x.shape, DataType.QDINT8, PerToken(1))
    shape = (outputs, x.shape[-1])
    w = b.value(shape, dtype, quantization, array)  # type: ignore[arg-type]
    y = b.output((*x.shape[:-1], outputs))
    b.node(NodeKind.CONVERT, [real], [stored])
    b.node(NodeKind.FULLY_CONNECTED, [stored, w, b.constant(bias)], [y])
    return run(b.graph, x)[0]


def per_row(x: np.ndarray) -> np.ndarray:
    """The rows as they are after quantization to 8 bits, each over its own range and zero."""
    low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    scale = (high - low) / 255
    zero = np.rint(-128 - low / scale)
    return (np.clip(np.rint(x / scale) + zero, -128, 127) - zero) * scale


@FEW
@given(seed=SEEDS, rows=st.integers(1, 9), inputs=st.integers(1, 70), outputs=st.integers(1, 40))
def test_dynamically_quantized_fully_connected(
    seed: int, rows: int, inputs: int, outputs: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, rows, inputs)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    w, scales, real, _ = weights(seed, (outputs, inputs), 0)
    y = dynamic(x, (w, DataType.QCINT8, PerChannel(scales, 0)), bias, outputs)
    expected = per_row(x.astype(np.float64)) @ real.T + bias
    np.testing.assert_allclose(y, expected, atol=0.01 * np.abs(real).sum(1).max())


@pytest.mark.parametrize("inputs", [32, 96])
def test_four_bit_weights(inputs: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, inputs)).astype(np.float32)
    bias = rng.standard_normal(10).astype(np.float32)
    q = rng.integers(0, 16, (10, inputs), np.uint8)
    packed = (q[:, ::2] | q[:, 1::2] << 4).astype(np.uint8)
    scales = rng.uniform(0.05, 0.1, 10).astype(np.float32)
    y = dynamic(x, (packed, DataType.QCINT4, PerChannel(scales, 0)), bias, 10)
    rows = per_row(x.astype(np.float64))
    expected = rows @ ((q.astype(float) - 8) * scales[:, None]).T + bias
    np.testing.assert_allclose(y, expected, atol=0.1)
    blocks = rng.uniform(0.05, 0.1, (10, inputs // 32)).astype(np.float32).view(np.uint32) >> 16
    raw = blocks.astype(np.uint16)
    y = dynamic(x, (packed, DataType.QBINT4, Blockwise(raw.ravel(), 0, 32)), bias, 10)
    real = (raw.astype(np.uint32) << 16).view(np.float32).repeat(32, 1)
    expected = rows @ ((q.astype(float) - 8) * real).T + bias
    np.testing.assert_allclose(y, expected, atol=0.1)


def test_dynamically_quantized_convolution() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 6, 8)).astype(np.float32)
    w, scales, real, _ = weights(1, (5, 3, 3, 8), 0)
    bias = rng.standard_normal(5).astype(np.float32)
    a = Conv2dAttributes((1, 1, 1, 1), (3, 3), (1, 1), (1, 1), 1, 8, 5)
    b = GraphBuilder()
    image, stored = b.input(x.shape), b.value(x.shape, DataType.QDINT8, PerToken(3))
    filter = b.constant(w, DataType.QCINT8, PerChannel(scales, 0))
    y = b.output((2, 6, 6, 5))
    b.node(NodeKind.CONVERT, [image], [stored])
    b.node(NodeKind.CONV_2D, [stored, filter, b.constant(bias)], [y], attributes=a)
    rows = per_row(x.reshape(2, -1).astype(np.float64)).reshape(x.shape)
    np.testing.assert_allclose(run(b.graph, x)[0], convolution(rows, real, a) + bias, atol=0.05)


@pytest.mark.parametrize(("dtype", "q"), TYPES)
def test_movement_keeps_integers(dtype: type, q: PerTensor) -> None:
    x = random(3, (2, 6, 4, 5), dtype)
    perm = (0, 3, 1, 2)
    for kind, expected, attributes in (
        (NodeKind.STATIC_TRANSPOSE, x.transpose(perm), TransposeAttributes(perm)),
        (NodeKind.COPY, x, None),
        (
            NodeKind.STATIC_CONSTANT_PAD,
            np.pad(x, 1, constant_values=quantize(np.array(0.5), q, dtype)),
            PadAttributes((1,) * 4, (1,) * 4, 0.5),
        ),
        (
            NodeKind.MAX_POOLING_2D,
            max_pooling(x.astype(float), pool := Pool2dAttributes((0,) * 4, (2, 2), (2, 2))).astype(
                dtype
            ),
            pool,
        ),
    ):
        (y,) = run(one_node(kind, [x], expected.shape, [q, q], attributes=attributes), x)
        np.testing.assert_array_equal(y, expected)
    kind, attributes = NodeKind.CONCATENATE_2, ConcatenateAttributes(1)
    graph = one_node(kind, [x, x], (2, 12, 4, 5), [q, q, q], attributes=attributes)
    np.testing.assert_array_equal(run(graph, x, x)[0], np.concatenate([x, x], 1))
    graph = one_node(NodeKind.STATIC_RESIZE_BILINEAR_2D, [x], x.shape, [q, q],
                     attributes=ResizeAttributes(6, 4))  # fmt: skip
    np.testing.assert_array_equal(run(graph, x)[0], x)


@pytest.mark.parametrize(("dtype", "q"), TYPES)
def test_global_average_pooling(dtype: type, q: PerTensor) -> None:
    x, out = random(3, (2, 7, 7, 9), dtype), PerTensor(0.02, q.zero_point)
    graph = one_node(
        NodeKind.GLOBAL_AVG_POOLING_2D, [x], (2, 1, 1, 9), [q, out], flags=FLAG_KEEP_DIMS
    )
    within_one_step(run(graph, x)[0], dequantize(x, q).mean((1, 2), keepdims=True), out)


def test_batch_matrix_multiply() -> None:
    a, c, out = random(1, (3, 4, 6)), random(2, (3, 6, 5)), PerTensor(0.5, 3)
    p, r = SIGNED, PerTensor(0.03, 0)
    graph = one_node(NodeKind.BATCH_MATRIX_MULTIPLY, [a, c], (3, 4, 5), [p, r, out])
    within_one_step(run(graph, a, c)[0], dequantize(a, p) @ dequantize(c, r), out)
