"""One node on our own kernels, at every instruction set of this machine, beside XNNPACK; and memory
that ends the process when it is read or written outside."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import platform
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

import penstock
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerToken, Quantization
from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape, Value, XnnGraph
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.graph.shapes import infer
from penstock.runtime import blocks
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.native.library import open_library, shared_library
from penstock.runtime.engines.planner import choose
from penstock.runtime.engines.protocol import Engine
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

#: The instruction sets of this machine, by name.
ISAS = shared_library().detected.names
ARM = platform.machine() in ("aarch64", "arm64")
THREADS = {count: Threads(count) for count in (1, 2, 3, 5)}


@functools.cache
def native(isa: str) -> NativeEngine:
    """An engine that takes all it can, up to an instruction set."""
    library = shared_library()
    return NativeEngine(everything=True, library=open_library(library.path, isa))


@functools.cache
def xnnpack() -> XnnpackEngine:
    return XnnpackEngine()


def product_graph(
    x: tuple[int, ...],
    weights: np.ndarray,
    bias: np.ndarray | None,
    attributes: Conv2dAttributes | None = None,
    clamp: tuple[float, float] | None = None,
    flags: int = 0,
    *,
    transposed: bool = False,
) -> XnnGraph:
    """A graph of one product in fp32: fully-connected without attributes, a depthwise convolution
    where the filter's shape is that of one, else a convolution."""
    kind = NodeKind.CONV_TRANSPOSE_2D if transposed else NodeKind.CONV_2D
    kind = NodeKind.FULLY_CONNECTED if attributes is None else kind
    if attributes is not None and weights.shape[0] == 1 < attributes.groups and not transposed:
        kind = NodeKind.DEPTHWISE_CONV_2D
    fp32 = DataType.FP32
    values = [Value(0, fp32, x, external_id=0, is_input=True)]
    values.append(Value(1, fp32, weights.shape, data=weights))
    if bias is not None:
        values.append(Value(2, fp32, bias.shape, data=bias))
    inputs = (0, 1, INVALID_VALUE_ID if bias is None else 2)
    node = Node(kind, inputs, (3,), attributes, clamp, flags)
    shapes = {value.id: value.shape for value in values}
    infer([node], shapes)
    values.append(Value(3, fp32, shapes[3], external_id=1, is_output=True))
    return XnnGraph(values, [node], [0], [3])


def row_product_graph(
    shape: Shape,
    filter: tuple[DataType, Quantization, np.ndarray],
    bias: np.ndarray,
    draw: random.Random,
    clamp: tuple[float, float] | None,
) -> XnnGraph:
    """Quantizes an input of ``shape`` at run time and multiplies it by ``filter`` (type,
    quantization, data); one in five has no bias."""
    result = (*shape[:-1], len(bias))
    dtype, quantization, weights = filter
    values = [
        Value(0, DataType.FP32, shape, None, None, 0, True),
        Value(1, DataType.QDINT8, shape, PerToken(1)),
        Value(2, dtype, (len(bias), shape[-1]), quantization, weights),
        Value(3, DataType.FP32, bias.shape, None, bias),
        Value(4, DataType.FP32, result, None, None, 1, False, True),
    ]
    inputs = (1, 2, 3 if draw.random() < 0.8 else INVALID_VALUE_ID)
    nodes = [
        Node(NodeKind.CONVERT, (0,), (1,)),
        Node(NodeKind.FULLY_CONNECTED, inputs, (4,), None, clamp),
    ]
    return XnnGraph(values, nodes, [0], [4])


def answer(engine: Engine, graph: XnnGraph, x: np.ndarray, threads: int = 1) -> np.ndarray:
    """What a graph of one input and one output makes of ``x``."""
    executable = engine.compile(graph, threads=THREADS[threads])
    (shape,) = executable.reshape([x.shape])
    output = np.full(shape, np.nan, np.float32)
    executable.run([roomy(x)], [output])
    return output


def check_bits(graph: XnnGraph, x: np.ndarray) -> None:
    """A product of what is quantized at run time: every instruction set has XNNPACK's bits."""
    assert choose(graph, [native("scalar"), xnnpack()]) == [0, 0]
    expected = answer(xnnpack(), graph, x)
    if ARM:  # XNNPACK scales to fp32 in another order there
        scalar = answer(native("scalar"), graph, x)
        np.testing.assert_allclose(scalar, expected, rtol=1e-5, atol=1e-5 * np.abs(scalar).max())
        expected = scalar
    for isa in ISAS:
        for threads in (1, 2):
            found = answer(native(isa), graph, x, threads)
            np.testing.assert_array_equal(found, expected, err_msg=f"{isa}, {threads} threads")


def nodes_of(family: str, data: bytes, inputs: Sequence[np.ndarray]) -> int:
    """The nodes of a program that kernels of this family run, if ours take what they can."""
    measured = penstock.load(data, threads=1, engine="native", profile=True)
    measured(*inputs)
    nodes = [n for i in measured.profile().instructions for n in i.nodes]
    return sum(n.operators[0].startswith(f"{family} ") for n in nodes)


def roomy(x: np.ndarray) -> np.ndarray:
    """A copy of ``x`` before bytes that kernels may read (``blocks.OVERREAD``). The engine lets
    them read to the end of the last page of a caller's array; a sanitizer knows nothing of that."""
    copy = blocks.empty(x.nbytes).view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


@contextmanager
def guarded(arrays: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Copies of ``arrays``, each right before a page that cannot be touched."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    pages: list[tuple[Any, int]] = []
    copies = []
    for array in arrays:
        size = -(-array.nbytes // page) * page
        block = mmap.mmap(-1, size + page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(block))
        assert libc.mprotect(ctypes.c_void_p(start + size), page, 0) == 0
        pages.append((block, start + size))
        whole = np.frombuffer(block, np.uint8)
        copy = whole[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
        copy[...] = array
        copies.append(copy)
    try:
        yield copies
    finally:
        for _, end in pages:
            libc.mprotect(ctypes.c_void_p(end), page, mmap.PROT_READ | mmap.PROT_WRITE)


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Floats of which sums are not exact."""
    found = np.random.default_rng(seed).standard_normal(math.prod(shape), np.float32)
    return found.reshape(shape)


def check_nothing_outside_is_touched(isa: str, graph: XnnGraph, x: np.ndarray) -> None:
    """A product with rows quantized at run time: all that it reads and writes lies between
    protected pages."""
    filter = graph.values[2]
    quantization = filter.quantization
    assert isinstance(quantization, (PerChannel, Blockwise))
    data = [np.asarray(value.data) for value in graph.values if value.data is not None]
    scales = quantization.scales
    expected = answer(native("scalar"), graph, x)
    with guarded([x, scales, *data]) as (image, guarded_scales, *constants):
        filter.quantization = replace(quantization, scales=guarded_scales)
        for value, constant in zip(graph.values[2:], constants, strict=False):
            value.data = constant
        with guarded([np.full_like(expected, np.nan)]) as (output,):
            output[...] = answer(native(isa), graph, image)
            np.testing.assert_array_equal(output, expected)
