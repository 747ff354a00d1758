"""fp32 convolution by Winograd's F(2x2, 3x3): each instruction set beside XNNPACK and float64."""

from __future__ import annotations

import ctypes
import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
from native_harness import ISAS as ALL_ISAS
from native_harness import THREADS, answer, guarded, native, numbers, product_graph, xnnpack

from penstock.graph.dtypes import DataType
from penstock.graph.graph import (
    FLAG_TENSORFLOW_SAME_PADDING,
    INVALID_VALUE_ID,
    Node,
    Value,
    XnnGraph,
)
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.engines.native import products
from penstock.runtime.engines.native.engine import NativeEngine, NativeExecutable
from penstock.runtime.engines.native.family import Step
from penstock.runtime.engines.native.library import open_library, shared_library
from penstock.runtime.engines.native.winograd import pays
from penstock.runtime.engines.planner import compile_graph
from penstock.runtime.engines.protocol import Executable
from penstock.runtime.engines.xnnpack.kernel_families import families

#: Those that have kernels in fp32.
ISAS = [isa for isa in ALL_ISAS if isa in ("scalar", "avx2", "avx512")]
SAME = (1, 1, 1, 1)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Winograd's way for every kernel of 3x3 with stride 1, paying or not."""
    monkeypatch.setattr(
        products,
        "winograd_pays",
        lambda a, read, written: (a.kernel, a.stride, a.groups) == ((3, 3), (1, 1), 1),
    )
    yield


def convolution(
    shape: tuple[int, int, int, int],
    outputs: int,
    padding: tuple[int, int, int, int] = SAME,
    dilation: tuple[int, int] = (1, 1),
    clamp: tuple[float, float] | None = None,
    seed: int = 0,
) -> tuple[XnnGraph, np.ndarray]:
    """A 3x3 convolution with random weights, scaled so that outputs are about 1, and its input."""
    inputs = shape[3]
    attributes = Conv2dAttributes(padding, (3, 3), (1, 1), dilation, 1, inputs, outputs)
    weights = numbers((outputs, 3, 3, inputs), seed) / np.float32(3 * math.sqrt(inputs))
    bias = numbers((outputs,), seed + 1) if seed % 3 else None
    graph = product_graph(shape, weights, bias, attributes, clamp)
    return graph, numbers(shape, seed + 2)


def drawn(seed: int) -> tuple[XnnGraph, np.ndarray]:
    draw = random.Random(seed)
    dilation = (draw.choice((1, 1, 1, 2, 3)), draw.choice((1, 1, 1, 2, 3)))
    padding = [draw.randint(0, 2) for _ in range(4)]
    height, width = (
        max(draw.randint(1, 13), 2 * d + 1 - before - behind, 1)
        for d, before, behind in zip(dilation, padding[0::3], (padding[2], padding[1]), strict=True)
    )
    shape = (draw.randint(1, 3), height, width, draw.choice((*range(1, 20), 33, 64, 130)))
    clamp = draw.choice((None, (0.0, math.inf), (-0.5, 0.75)))
    top, right, bottom, left = padding
    outputs = draw.choice((*range(1, 34), 64, 65))
    return convolution(shape, outputs, (top, right, bottom, left), dilation, clamp, seed)


def exact(graph: XnnGraph, x: np.ndarray) -> np.ndarray:
    """The answer in float64."""
    node, constants = graph.nodes[0], {v.id: v.data for v in graph.values if v.data is not None}
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    top, right, bottom, left = a.padding
    wide = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    height, width = (s - 2 * d for s, d in zip(wide.shape[1:3], a.dilation, strict=True))
    weights = np.asarray(constants[1]).astype(np.float64)
    total = np.zeros((x.shape[0], height, width, weights.shape[0]))
    for i in range(3):
        for j in range(3):
            y, z = i * a.dilation[0], j * a.dilation[1]
            total += wide[:, y : y + height, z : z + width] @ weights[:, i, j].T
    total += np.asarray(constants[2]) if 2 in constants else 0
    return np.asarray(total if node.clamp is None else np.clip(total, *node.clamp))


def compiled(isa: str, graph: XnnGraph, threads: int = 1) -> tuple[NativeExecutable, Step]:
    """A graph of one node and the call of that node, for which the first has the memory."""
    executable = native(isa).compile(graph, threads=THREADS[threads])
    executable.reshape([graph.values[0].shape])
    ((_, step),) = executable._steps()
    return executable, step


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.usefixtures("always")
def test_sizes_channels_padding_and_dilation(isa: str) -> None:
    for seed in range(150):
        graph, x = drawn(seed)
        expected = exact(graph, x)
        for threads in (1, 2):
            few = expected.shape[3] <= 4  # has kernels of its own where there are inputs enough
            assert compiled(isa, graph, threads)[1].scratch or few
            found = answer(native(isa), graph, x, threads)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.usefixtures("always")
def test_chunks_and_blocks_of_channels(isa: str) -> None:
    """More tiles than a chunk has, more input channels than a block of weights; on two threads
    that share the tiles, and that share the output channels."""
    for shape, outputs in (((1, 41, 37, 9), 40), ((2, 9, 8, 300), 80), ((1, 3, 3, 520), 129)):
        graph, x = convolution(shape, outputs)
        expected = exact(graph, x)
        for threads in (1, 2):
            found = answer(native(isa), graph, x, threads)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_as_accurate_as_by_definition(isa: str) -> None:
    """Sums are shorter by a factor of 9, which makes up for the transforms."""
    for size, channels in ((14, 64), (8, 256)):
        graph, x = convolution((1, size, size, channels), channels, seed=1)
        x = np.maximum(x, 0)
        expected = exact(graph, x)

        def error(found: np.ndarray, expected: np.ndarray = expected) -> tuple[float, float]:
            off = np.abs(found - expected) / np.sqrt(np.square(expected).mean())
            return float(np.sqrt(np.square(off).mean())), float(off.max())

        assert compiled(isa, graph)[1].scratch
        ours, direct = error(answer(native(isa), graph, x)), error(answer(xnnpack(), graph, x))
        assert ours[0] < 1.5 * direct[0] and ours[0] < 1e-6
        assert ours[1] < 1e-5


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan, 3e38])
def test_special_numbers(isa: str, special: float) -> None:
    """Infinities, NaN and sums that overflow in the transforms alone are where XNNPACK has them."""
    for clamp in (None, (0.0, 6.0)):
        graph, x = convolution((2, 9, 7, 5), 35, clamp=clamp, seed=4)
        x[0, 4, 2:4, 1] = x[0, 5, 2:4, 1] = x[1, 0, 6, 2] = x[1, 8, 0, 0] = special
        # No sum of nine products of 3e38 overflows; those of the transforms do.
        graph.values[1].data = np.asarray(graph.values[1].data) / 32
        expected, found = answer(xnnpack(), graph, x), answer(native(isa), graph, x)
        assert clamp or np.isfinite(expected).all() == np.isfinite(special)
        far = np.abs(expected) < 100
        np.testing.assert_allclose(found[far], expected[far], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found[~far], expected[~far], rtol=1e-4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.usefixtures("always")
def test_nothing_outside_is_touched(isa: str) -> None:
    """Input, weights, output and scratch memory, each before a page that cannot be touched."""
    functions = native(isa).library.functions
    for seed in range(500, 540):
        graph, x = drawn(seed)
        expected = exact(graph, x)
        if seed % 5 == 0:
            x[0, 0, 0, 0], expected = np.inf, np.array(0)  # the way of what is not finite too
        kept, step = compiled(isa, graph, 1 + seed % 2)
        task = step.task
        size = functions.pk_f32_igemm_packed_size(ctypes.byref(task.shape))
        packed = np.frombuffer((ctypes.c_char * size).from_address(task.packed), np.uint8)
        scratch = np.full(step.scratch, 0xFF, np.uint8)
        output = np.full(graph.values[-1].shape, np.nan, np.float32)
        with guarded([x, packed, scratch, output]) as copies:
            addresses = [copy.ctypes.data for copy in copies]
            task.input, task.packed, task.scratch, task.output = addresses
            functions.pk_f32_igemm_run(ctypes.addressof(task), None)
            del kept
            if expected.ndim:
                np.testing.assert_allclose(copies[3], expected, rtol=1e-5, atol=1e-5)


def test_sizes_that_change() -> None:
    """One executable at sizes that go Winograd's way and at others."""
    graph, _ = convolution((3, 20, 20, 48), 40)
    executable = native(ISAS[-1]).compile(graph, threads=THREADS[2])
    ways = set()
    for shape in ((3, 20, 20, 48), (1, 1, 1, 48), (0, 4, 4, 48), (2, 7, 19, 48), (1, 2, 3, 48)):
        x = numbers(shape, 4)
        (found,) = executable.reshape([shape])
        output = np.full(found, np.nan, np.float32)
        executable.run([x], [output])
        ways |= {bool(step.scratch) for _, step in executable._steps()}
        np.testing.assert_allclose(output, exact(graph, x), rtol=1e-5, atol=1e-5)
    assert ways == {True, False}


def test_same_padding() -> None:
    """Padding that the node leaves to the runtime."""
    graph, x = convolution((1, 11, 14, 24), 24, (0, 0, 0, 0))
    graph.nodes[0].flags |= FLAG_TENSORFLOW_SAME_PADDING
    graph.values[-1].shape = (1, 11, 14, 24)
    for isa in ISAS:
        assert compiled(isa, graph)[1].scratch
        found = answer(native(isa), graph, x)
        np.testing.assert_allclose(found, answer(xnnpack(), graph, x), rtol=1e-5, atol=1e-5)


def test_where_it_pays() -> None:
    """The layers of a ResNet, but not those of few channels or tiny images."""

    def paying(size: int, inputs: int, outputs: int, dilation: int = 1, batch: int = 1) -> bool:
        a = Conv2dAttributes(
            (dilation,) * 4, (3, 3), (1, 1), (dilation, dilation), 1, inputs, outputs
        )
        return pays(a, (batch, size, size, inputs), (batch, size, size, outputs))

    assert all(paying(*layer) for layer in ((56, 64, 64), (14, 256, 256), (7, 512, 512)))
    assert paying(28, 512, 512, dilation=4)
    assert not paying(112, 3, 64)
    assert not paying(28, 2048, 256, dilation=12)
    assert not paying(3, 512, 512) and not paying(1, 64, 64)


def test_the_self_test_has_one() -> None:
    graph = families().graph
    values = {value.id: value for value in graph.values}
    convolutions = [node for node in graph.nodes if node.kind is NodeKind.CONV_2D]
    fp32 = [node for node in convolutions if values[node.inputs[0]].dtype is DataType.FP32]
    assert any(
        pays(node.attributes, values[node.inputs[0]].shape, values[node.outputs[0]].shape)
        for node in fp32
    )


@pytest.mark.parametrize("isa", ISAS)
def test_vectors_take_it_from_xnnpack(isa: str) -> None:
    library = shared_library()
    engine = NativeEngine(library=open_library(library.path, isa))
    graph, _ = convolution((1, 28, 28, 64), 64)
    assert (engine.reason_against(graph, graph.nodes[0]) is None) == (isa != "scalar")


def block(size: int) -> XnnGraph:
    """A 1x1 convolution before one of ``size`` x ``size``, and the sum of both."""
    fp32, shape = DataType.FP32, (1, 28, 28, 32)
    values = [Value(0, fp32, shape, external_id=0, is_input=True)]
    nodes = []
    for i, side in enumerate((1, size)):
        filter = numbers((32, side, side, 32), i)
        values.append(Value(10 + i, fp32, filter.shape, data=filter))
        values.append(Value(1 + i, fp32, shape))
        a = Conv2dAttributes((side // 2,) * 4, (side, side), (1, 1), (1, 1), 1, 32, 32)
        nodes.append(Node(NodeKind.CONV_2D, (i, 10 + i, INVALID_VALUE_ID), (1 + i,), a))
    values.append(Value(3, fp32, shape, external_id=1, is_output=True))
    return XnnGraph(values, [*nodes, Node(NodeKind.ADD, (1, 2), (3,))], [0], [3])


@pytest.mark.skipif("avx512" not in ISAS, reason="only there XNNPACK is as fast with the others")
def test_others_join_it() -> None:
    """Where most of the work goes Winograd's way, what is around it is not left to XNNPACK."""
    engine = NativeEngine(library=open_library(shared_library().path, "avx512"))
    for size, taken in ((3, True), (1, False)):
        graph = block(size)
        assert [engine.reason_against(graph, n) is None for n in graph.nodes] == [taken] * 3
        x = numbers((1, 28, 28, 32), 5)
        found = [
            answered(compile_graph(graph, (first, xnnpack()), threads=THREADS[1]), x)
            for first in (engine, xnnpack())
        ]
        np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-4)


def answered(executable: Executable, x: np.ndarray) -> np.ndarray:
    (shape,) = executable.reshape([x.shape])
    output = np.full(shape, np.nan, np.float32)
    executable.run([x], [output])
    return output
