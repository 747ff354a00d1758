"""Memory of executables: constants, the ends of pages, inputs that lie anywhere."""

from __future__ import annotations

import gc
import mmap
import sys

import numpy as np
import pytest
from graph_builder import GraphBuilder
from xnn_graphs import attend, attention, convolutions, random, run

from penstock.graph.kinds import NodeKind
from penstock.runtime.blocks import address
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack import buffers
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine


def test_constants_need_not_outlive_compilation_where_they_are_packed() -> None:
    graph, x = convolutions(2, 8), random(0, (1, 8, 8, 16))
    expected = run(graph, x)[0]
    executable = XnnpackEngine().compile(graph, threads=Threads(1))
    for value in graph.values:
        if value.data is not None:
            np.asarray(value.data)[...] = np.nan
    y = np.empty_like(expected)
    executable.run([x], [y])
    np.testing.assert_array_equal(y, expected)
    assert executable._constants == []


def test_constants_that_are_read_at_each_run_are_kept() -> None:
    b = GraphBuilder()
    x, y = b.input((2, 300)), b.output((2, 300))
    c = b.constant(np.full((300,), 2.0, np.float32))
    b.node(NodeKind.MULTIPLY, [x, c], [y])
    executable = XnnpackEngine().compile(b.graph, threads=Threads(1))
    b.graph.values[c].data = None
    gc.collect()
    held = [np.full((300,), -1.0, np.float32) for _ in range(50)]  # takes over freed memory
    out = np.empty((2, 300), np.float32)
    executable.run([np.ones((2, 300), np.float32)], [out])
    assert held and (out == 2.0).all()


def at_end_of_page(array: np.ndarray) -> np.ndarray:
    """A copy whose last byte is the last of a page that no readable page follows."""
    pages = -(-array.nbytes // mmap.PAGESIZE)
    area = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    whole = np.frombuffer(area, np.uint8)
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    last = address(whole) + pages * mmap.PAGESIZE
    assert libc.mprotect(ctypes.c_void_p(last), mmap.PAGESIZE, 0) == 0
    end = pages * mmap.PAGESIZE
    view = whole[end - array.nbytes : end].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
def test_nothing_is_read_beyond_the_end_of_a_page() -> None:
    for count in (1, 3, 17, 1000, 1021):
        x = random(count, (1, count))
        b = GraphBuilder()
        i, o, p = b.input(x.shape), b.output(x.shape), b.output(x.shape)
        c = b.constant(at_end_of_page(x))
        b.node(NodeKind.SIGMOID, [i], [o])
        b.node(NodeKind.ADD, [o, c], [p])  # reads an output again
        outputs = [at_end_of_page(np.zeros_like(x)), at_end_of_page(np.zeros_like(x))]
        executable = XnnpackEngine().compile(b.graph, threads=Threads(1))
        for _ in range(2):
            executable.run([at_end_of_page(x)], outputs)
            np.testing.assert_allclose(outputs[0], 1 / (1 + np.exp(-x)), rtol=1e-5)
            np.testing.assert_allclose(outputs[1], 1 / (1 + np.exp(-x)) + x, rtol=1e-5, atol=1e-6)


def test_inputs_may_be_read_only_or_misaligned() -> None:
    x = random(0, (5, 16))
    raw = np.zeros(x.nbytes + 1, np.uint8)
    shifted = raw[1:].view(np.float32).reshape(x.shape)
    shifted[...] = x
    frozen = np.frombuffer(x.tobytes(), np.float32).reshape(x.shape)
    executable = XnnpackEngine().compile(attention(), threads=Threads(1))
    for array in (shifted, frozen):
        y = np.empty((5, 2, 8), np.float32)
        executable.run([array], [y])
        np.testing.assert_allclose(y, attend(x), atol=1e-5)


def test_readable_past_end() -> None:
    page = mmap.PAGESIZE
    assert buffers.readable_past_end(page, 10)
    assert buffers.readable_past_end(page, page - 16)
    assert not buffers.readable_past_end(page, page - 15)
    assert not buffers.readable_past_end(page, page)
    assert buffers.readable_past_end(page, page + 1)
