"""fp32 convolution and fully-connected: each instruction set beside XNNPACK, and their tails."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
from native_harness import ISAS, THREADS, answer, guarded, native, numbers, product_graph, xnnpack

from penstock.graph.graph import FLAG_TENSORFLOW_SAME_PADDING, FLAG_TRANSPOSE_WEIGHTS, XnnGraph
from penstock.graph.kinds import Conv2dAttributes
from penstock.runtime.engines.native.costs import depthwise_gain, product_gain


@dataclass(frozen=True)
class Convolution:
    """A random one, perhaps depthwise or of few outputs; ``seed`` draws the numbers too."""

    seed: int
    depthwise: bool = False
    few: bool = False

    def graph(self) -> tuple[XnnGraph, np.ndarray]:
        draw = random.Random(self.seed)
        groups = draw.choice((1, 1, 1, 2, 3, 7))
        inputs, outputs = draw.randint(1, 40), draw.randint(1, 70)
        if self.depthwise:
            groups, inputs, outputs = draw.choice((2, 5, 8, 16, 24, 39, 64)), 1, 1
        if self.few:
            groups, inputs, outputs = 1, draw.randint(6, 70), draw.randint(1, 5)
        kernel = (draw.randint(1, 8), draw.choice((1, 2, 3, 3, 4, 5, 5, 6, 7)))
        stride = (draw.randint(1, 3), draw.randint(1, 3))
        dilation = (draw.choice((1, 1, 2, 5)), draw.choice((1, 1, 2, 5)))
        same = draw.random() < 0.2
        bound = max((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
        padding = [0] * 4 if same else [draw.randint(0, bound + 1) for _ in range(4)]
        height, width = (
            max(draw.randint(1, 17), (k - 1) * d + 1 - before - behind, 1)
            for k, d, before, behind in zip(
                kernel, dilation, padding[0::3], (padding[2], padding[1]), strict=True
            )
        )
        attributes = Conv2dAttributes(
            (padding[0], padding[1], padding[2], padding[3]),
            kernel, stride, dilation, groups, inputs, outputs,
        )  # fmt: skip
        shape = (draw.randint(1, 3), height, width, groups * inputs)
        filter = (1, *kernel, groups) if self.depthwise else (groups * outputs, *kernel, inputs)
        weights = numbers(filter, self.seed + 1)
        bias = numbers((groups * outputs,), self.seed + 2) if draw.random() < 0.8 else None
        clamp = draw.choice((None, (0.0, math.inf), (-0.5, 0.75)))
        flags = FLAG_TENSORFLOW_SAME_PADDING if same else 0
        graph = product_graph(shape, weights, bias, attributes, clamp, flags)
        return graph, numbers(shape, self.seed + 3)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert not np.isnan(found).any()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_convolutions(isa: str) -> None:
    for seed in range(0, 400, 4):
        graph, x = Convolution(seed).graph()
        expected = answer(xnnpack(), graph, x)
        for threads in (1, 2):
            assert_close(answer(native(isa), graph, x, threads), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_few_outputs(isa: str) -> None:
    """Vectors of input channels, whose tails and taps in the padding are nothing."""
    for seed in range(0, 400, 4):
        graph, x = Convolution(seed, few=True).graph()
        expected = answer(xnnpack(), graph, x)
        for threads in (1, 2):
            assert_close(answer(native(isa), graph, x, threads), expected)


@pytest.mark.skipif("avx512" not in ISAS, reason="of few outputs gains are those of AVX-512")
@pytest.mark.parametrize(
    ("outputs", "kernel", "ours"), [(3, 9, True), (1, 3, True), (4, 3, True), (2, 1, False)]
)
def test_few_outputs_gain(outputs: int, kernel: int, ours: bool) -> None:
    a = Conv2dAttributes((kernel // 2,) * 4, (kernel, kernel), (1, 1), (1, 1), 1, 32, outputs)
    weights = np.zeros((outputs, kernel, kernel, 32), np.float32)
    graph = product_graph((1, 64, 64, 32), weights, None, a)
    gain = product_gain(
        graph.nodes[0], {value.id: value for value in graph.values}, native("avx512").library
    )
    assert gain is not None and (gain > 50) == ours


@pytest.mark.parametrize("isa", ISAS)
def test_depthwise(isa: str) -> None:
    for seed in range(0, 600, 4):
        graph, x = Convolution(seed, depthwise=True).graph()
        expected = answer(xnnpack(), graph, x)
        for threads in (1, 2):
            assert_close(answer(native(isa), graph, x, threads), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)])
def test_every_width_of_a_row(isa: str, size: int, stride: int) -> None:
    """Each number of pixels in a tile and each tail of channels, with borders on all sides."""
    for width in range(size, size + 17):
        channels = (width - size) * 2 + 1
        edge = size // 2
        attributes = Conv2dAttributes(
            (edge, edge, edge, edge), (size, size), (stride, stride), (1, 1), channels, 1, 1
        )
        weights = numbers((1, size, size, channels), width)
        x = numbers((2, size, width, channels), width + 1)
        graph = product_graph(x.shape, weights, numbers((channels,), 3), attributes, (-2.0, 3.0))
        assert_close(answer(native(isa), graph, x), answer(xnnpack(), graph, x))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [((1, 1), 1, 1), ((1, 9), 1, 1), ((7, 3), 2, 3), ((2, 2), 2, 1), ((5, 5), 1, 6)],
)
def test_runs_of_pixels(isa: str, kernel: tuple[int, int], stride: int, dilation: int) -> None:
    """Of filters without code of their own: each number of pixels that have the same taps, each
    tail of channels."""
    reach = [(size - 1) * dilation for size in kernel]
    top, left = (size // 2 for size in reach)
    for width in range(2, 36):
        attributes = Conv2dAttributes(
            (top, left, top, left), kernel, (stride, stride), (dilation, dilation), width, 1, 1
        )
        weights = numbers((1, *kernel, width), width)
        x = numbers((2, 3, width, width), width + 1)
        graph = product_graph(x.shape, weights, numbers((width,), 3), attributes, (-2.0, 3.0))
        assert_close(answer(native(isa), graph, x), answer(xnnpack(), graph, x))


@pytest.mark.skipif(not {"avx512", "avxvnni"} <= {*ISAS}, reason="this machine has not both")
@pytest.mark.parametrize(("outputs", "ours"), [(48, True), (64, False), (720, True), (16, False)])
def test_tiles_of_16_columns_are_slow_where_products_are_wide(outputs: int, ours: bool) -> None:
    graph = product_graph((196, 120), np.zeros((outputs, 120), np.float32), None)
    values = {value.id: value for value in graph.values}
    gain = product_gain(graph.nodes[0], values, native(ISAS[-1]).library)
    assert gain is not None and (gain > 0) == ours


@pytest.mark.skipif("avx2" not in ISAS, reason="this machine has no AVX2")
def test_taps_that_xnnpack_fills_up_gain_more() -> None:
    """Its kernels are of 9 and of 25 taps."""

    def gain(*kernel: int) -> float:
        attributes = Conv2dAttributes((0, 0, 0, 0), kernel, (1, 1), (1, 1), 32, 1, 1)  # type: ignore[arg-type]
        graph = product_graph((1, 20, 20, 32), numbers((1, *kernel, 32), 1), None, attributes)
        values = {value.id: value for value in graph.values}
        found = depthwise_gain(graph.nodes[0], values, native("avx2").library)
        assert found is not None
        return found

    assert gain(2, 5) > gain(5, 5) > gain(3, 3)


def test_one_tap_gains_nothing() -> None:
    """It waits for memory, whoever multiplies: alone it is not worth a cut."""
    attributes = Conv2dAttributes((0, 0, 0, 0), (1, 1), (1, 1), (1, 1), 40, 1, 1)
    graph = product_graph((1, 56, 56, 40), numbers((1, 1, 1, 40), 1), None, attributes)
    values = {value.id: value for value in graph.values}
    gain = depthwise_gain(graph.nodes[0], values, native(ISAS[-1]).library)
    assert gain is None or gain <= 0


@pytest.mark.parametrize("isa", ISAS)
def test_every_tail(isa: str) -> None:
    """Each number of rows and of columns of a tile, and some depths."""
    for rows in range(1, 30):
        for columns in (*range(1, 35), 63, 64, 65):
            depth = (rows * 7 + columns) % 19 + 1
            weights = numbers((columns, depth), columns)
            graph = product_graph((rows, depth), weights, None, clamp=(-1.0, 1.0))
            x = numbers((rows, depth), rows)
            expected = np.clip(x.astype(np.float64) @ weights.T.astype(np.float64), -1, 1)
            assert_close(answer(native(isa), graph, x), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_depths_beyond_the_caches(isa: str) -> None:
    """Panels that are cut along their depth: within the channels of a tap, and between taps."""
    for shape, attributes, outputs in (
        ((3, 40000), None, 5),
        ((1, 5, 5, 3000), Conv2dAttributes((1, 1, 1, 1), (3, 3), (1, 1), (1, 1), 1, 3000, 9), 9),
        ((1, 9, 60, 2), Conv2dAttributes((0, 3, 2, 1), (5, 41), (1, 1), (1, 1), 1, 2, 17), 17),
        ((1, 12, 12, 3), Conv2dAttributes((9, 9, 9, 9), (12, 12), (1, 1), (1, 1), 1, 3, 33), 33),
    ):
        kernel = () if attributes is None else attributes.kernel
        weights = numbers((outputs, *kernel, shape[-1]), 1)
        graph = product_graph(shape, weights, numbers((outputs,), 2), attributes, (-30.0, 40.0))
        x = numbers(shape, 3)
        expected = answer(xnnpack(), graph, x)
        for threads in (1, 2):
            np.testing.assert_allclose(
                answer(native(isa), graph, x, threads), expected, atol=2e-3, rtol=1e-4
            )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("outputs", "inputs"), [(1003, 1205), (32, 40001)])
def test_weights_beyond_the_caches(isa: str, outputs: int, inputs: int) -> None:
    """They are packed past the caches, tails of both sides too."""
    weights, bias, x = (
        numbers((outputs, inputs), 1),
        numbers((outputs,), 2),
        numbers((7, inputs), 3),
    )
    expected = x.astype(np.float64) @ weights.T.astype(np.float64) + bias
    found = answer(native(isa), product_graph(x.shape, weights, bias), x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * inputs)


@pytest.mark.skipif("avx512" not in ISAS, reason="this machine has no AVX-512")
@pytest.mark.parametrize(
    ("outputs", "rows", "ours"), [(3072, 197, True), (768, 197, False), (3072, 1, False)]
)
def test_large_weights_of_many_rows_are_ours(outputs: int, rows: int, ours: bool) -> None:
    graph = product_graph((rows, 768), np.zeros((outputs, 768), np.float32), None)
    (node,), values = graph.nodes, {value.id: value for value in graph.values}
    gain = product_gain(node, values, native("avx512").library)
    assert gain is not None and (gain > 0) == ours


@pytest.mark.parametrize("isa", ISAS)
def test_transposed_weights(isa: str) -> None:
    weights, bias, x = numbers((13, 37), 1), numbers((37,), 2), numbers((2, 5, 13), 3)
    graph = product_graph(x.shape, weights, bias, flags=FLAG_TRANSPOSE_WEIGHTS)
    assert_close(answer(native(isa), graph, x), x @ weights + bias)


@pytest.mark.parametrize("isa", ISAS)
def test_special_numbers(isa: str) -> None:
    """NaN passes through an output range, as it does in XNNPACK; denormals count as zeros."""
    weights, x = numbers((20, 3), 1), numbers((9, 3), 2)
    x[2, 1], x[3, 0], x[4, 2] = np.nan, np.inf, -np.inf
    x[5] = 1e-42
    graph = product_graph(x.shape, weights, None, clamp=(0.0, 6.0))
    expected = answer(xnnpack(), graph, x)
    np.testing.assert_allclose(answer(native(isa), graph, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for seed in range(1000, 1080):
        graph, x = Convolution(seed, depthwise=seed % 3 == 0, few=seed % 3 == 1).graph()
        data = [value.data for value in graph.values if value.data is not None]
        with guarded([x, *(np.asarray(array) for array in data)]) as (image, *constants):
            for value, constant in zip(graph.values[1:], constants, strict=False):
                value.data = constant
            expected = answer(native("scalar"), graph, x)
            executable = native(isa).compile(graph, threads=THREADS[1])
            executable.reshape([x.shape])
            with guarded([np.full_like(expected, np.nan)]) as (output,):
                executable.run([image], [output])
                assert_close(output, expected)


def test_sizes_that_change() -> None:
    """One executable at many sizes, also where nothing is left, beside a fresh one."""
    attributes = Conv2dAttributes((1, 1, 1, 1), (3, 3), (2, 1), (1, 1), 1, 5, 6)
    weights = numbers((6, 3, 3, 5), 1)
    graph = product_graph((3, 20, 20, 5), weights, None, attributes)
    executable = native(ISAS[-1]).compile(graph, threads=THREADS[1])
    for shape in ((3, 20, 20, 5), (1, 1, 1, 5), (0, 4, 4, 5), (2, 7, 19, 5), (1, 2, 3, 5)):
        x = numbers(shape, 4)
        (found,) = executable.reshape([shape])
        output = np.full(found, np.nan, np.float32)
        executable.run([x], [output])
        assert_close(output, answer(xnnpack(), graph, x))
