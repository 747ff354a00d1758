"""int8 products with static quantization: each instruction set has XNNPACK's bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_cases import Product, answer, convolution
from native_harness import ARM, ISAS, THREADS, guarded, native, roomy, xnnpack

from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.engines.native.engine import NativeEngine


def check(graph: XnnGraph, x: np.ndarray) -> None:
    assert native("scalar").reason_against(graph, graph.nodes[0]) is None
    node, weights = graph.nodes[0], graph.values[1].data
    assert isinstance(weights, np.ndarray)
    # XNNPACK adds two products in 16 bits there; nodes with such weights go to our kernels.
    sums_of_two = ARM and ("dotprod" not in ISAS or node.kind is NodeKind.DEPTHWISE_CONV_2D)
    if sums_of_two and (weights == -128).any():
        assert NativeEngine().reason_against(graph, node) is None
        expected = answer(native("scalar"), graph, x)
    else:
        expected = answer(xnnpack(), graph, x)
    for isa in ISAS:
        for threads in (1, 2):
            found = answer(native(isa), graph, x, threads)
            np.testing.assert_array_equal(found, expected, err_msg=f"{isa}, {threads} threads")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_convolutions(seed: int) -> None:
    check(*convolution(seed).graph())


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_depthwise(seed: int) -> None:
    check(*convolution(seed, depthwise=True).graph())


@pytest.mark.parametrize("isa", ISAS)
def test_every_tail(isa: str) -> None:
    """Each number of rows and of columns of a tile, and some depths."""
    for rows in range(1, 27):
        for columns in (*range(1, 35), 47, 63, 64, 65):
            depth = (rows * 7 + columns) % 19 + 1
            graph, x = Product((rows, depth), columns, None, rows * 100 + columns).graph()
            expected = answer(native("scalar"), graph, x)
            np.testing.assert_array_equal(answer(native(isa), graph, x), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_work_shared_out(isa: str, threads: int) -> None:
    """Among several threads: rows, lines of an image and images that they do not divide."""
    for rows in (*range(45, 110, 4), 196, 289, 785):
        graph, x = Product((rows, 9), 40, None, rows).graph()
        expected = answer(native("scalar"), graph, x)
        np.testing.assert_array_equal(answer(native(isa), graph, x, threads), expected)
    for seed in range(40):
        images, lines, columns = seed % 4 + 1, 5 + 3 * seed % 53, 3 + 7 * seed % 31
        stride = seed % 3 + 1
        depth = 8 << seed % 2
        attributes = Conv2dAttributes((1,) * 4, (3, 3), (stride,) * 2, (1, 1), 1, depth, 33)
        graph, x = Product((images, lines, columns, depth), 33, attributes, seed).graph()
        expected = answer(native("scalar"), graph, x)
        np.testing.assert_array_equal(answer(native(isa), graph, x, threads), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_every_number_of_channels(isa: str) -> None:
    """Of depthwise convolutions, with kernels that have code of their own and others."""
    for channels in (*range(1, 36), 47, 48, 63, 64, 65, 97, 129):
        for size, stride in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (4, 1)):
            window = ((size, size), (stride, stride), (1, 1))
            attributes = Conv2dAttributes((2, 1, 0, 2), *window, channels, 1, 1)
            product = Product((1, 8, 9, channels), channels, attributes, channels, 0, True)
            graph, x = product.graph()
            expected = answer(native("scalar"), graph, x)
            np.testing.assert_array_equal(answer(native(isa), graph, x), expected)


def test_rows_of_taps() -> None:
    """Of depthwise convolutions: they are interleaved as columns are."""
    for taps in range(1, 17):
        for stride, dilation in ((1, 1), (2, 1), (1, 3), (3, 2)):
            edge = (taps - 1) * dilation // 2
            window = ((1, taps), (1, stride), (1, dilation))
            channels = taps * 7
            attributes = Conv2dAttributes((1, edge, 0, edge), *window, channels, 1, 1)
            shape = (2, 3, 41, channels)
            check(*Product(shape, channels, attributes, taps, 0, True).graph())


@pytest.mark.parametrize("kernel", [(7, 49), (1, 1024), (32, 32), (21, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (1, 7), (2, 3)])
def test_many_taps(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    """Of depthwise convolutions: windows of volumes have their slices side by side."""
    lines, columns = (size // 2 for size in kernel)
    padding = (lines, columns, lines, columns)
    attributes = Conv2dAttributes(padding, kernel, stride, (1, 1), 19, 1, 1)
    check(*Product((2, 9, 70, 19), 19, attributes, kernel[1], 0, True).graph())


def test_large() -> None:
    """What is cut into stripes, chunks and parts of the output channels."""
    for shape, outputs, window in (
        ((2, 40, 40, 64), 80, ((3, 3), (1, 1), (1, 1))),
        ((1, 60, 50, 3), 24, ((7, 7), (2, 2), (1, 1))),
        ((1, 7, 7, 320), 600, ((3, 3), (1, 1), (1, 1))),
        ((1, 30, 30, 32), 40, ((3, 3), (1, 1), (2, 2))),
        ((1, 33, 31, 200), 48, ((1, 1), (1, 1), (1, 1))),
        ((3, 33, 31, 64), 90, ((1, 1), (2, 2), (1, 1))),
        ((1, 20, 20, 64), 33, ((1, 7), (1, 1), (1, 1))),
        # The lines of the input that one of the output reaches over do not fit the cache.
        ((1, 21, 22, 2048), 5, ((3, 3), (1, 1), (10, 11))),
        ((2, 23, 20, 1536), 4, ((3, 2), (2, 1), (9, 3))),
    ):
        padding = tuple(k // 2 * window[2][0] for k in (*window[0], *window[0]))
        padding = (padding[0], padding[1], padding[0], padding[1])
        attributes = Conv2dAttributes(padding, *window, 1, shape[-1], outputs)
        check(*Product(shape, outputs, attributes, outputs).graph())
    for rows, depth, outputs in ((1, 1280, 1000), (300, 700, 300), (50, 20000, 4)):
        check(*Product((rows, depth), outputs, None, rows).graph())


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_is_touched(isa: str) -> None:
    for seed in range(2000, 2080):
        graph, x = convolution(seed, depthwise=seed % 2 == 0).graph()
        data = [value.data for value in graph.values if value.data is not None]
        expected = answer(native("scalar"), graph, x)
        with guarded([x, *(np.asarray(array) for array in data)]) as (image, *constants):
            for value, constant in zip(graph.values[1:], constants, strict=False):
                value.data = constant
            executable = native(isa).compile(graph, threads=THREADS[1])
            executable.reshape([x.shape])
            with guarded([np.full_like(expected, 77)]) as (output,):
                executable.run([image], [output])
                np.testing.assert_array_equal(output, expected)


def test_sizes_that_change() -> None:
    """One executable at many sizes, beside fresh ones of XNNPACK's."""
    attributes = Conv2dAttributes((1, 1, 1, 1), (3, 3), (1, 1), (1, 1), 1, 16, 20)
    graph, _ = Product((3, 20, 20, 16), 20, attributes, 5).graph()
    for isa in ISAS:
        executable = native(isa).compile(graph, threads=THREADS[2])
        for shape in ((3, 20, 20, 16), (1, 1, 1, 16), (0, 4, 4, 16), (2, 7, 19, 16), (1, 2, 3, 16)):
            x = np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8)
            (found,) = executable.reshape([shape])
            output = np.full(found, 77, np.int8)
            executable.run([roomy(x)], [output])
            np.testing.assert_array_equal(output, answer(xnnpack(), graph, x))
