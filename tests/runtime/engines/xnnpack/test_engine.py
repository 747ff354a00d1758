"""Executables: shapes, threads, memory, what they refuse."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from children import environment
from graph_builder import GraphBuilder, one_node
from xnn_graphs import attend, attention, convolutions, random, run

from penstock.errors import BackendUnavailableError, InputError
from penstock.graph.graph import FLAG_KEEP_DIMS
from penstock.graph.kinds import (
    ConcatenateAttributes,
    NodeKind,
    PadAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)
from penstock.runtime.engines.protocol import Engine, Executable
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine
from penstock.runtime.engines.xnnpack.executable import XnnpackExecutable

ROOT = Path(__file__).parents[4]


def test_the_protocols_are_met() -> None:
    engine: Engine = XnnpackEngine()
    executable: Executable = engine.compile(attention(), threads=Threads(1))
    assert executable.reshape([(3, 16)]) == ((3, 2, 8),)


def test_one_executable_runs_at_many_shapes() -> None:
    executable = XnnpackEngine().compile(attention(), threads=Threads(2))
    for length in (16, 3, 1, 16, 7):
        x = random(length, (length, 16))
        assert executable.reshape([x.shape]) == ((length, 2, 8),)
        y = np.empty((length, 2, 8), np.float32)
        executable.run([x], [y])
        np.testing.assert_allclose(y, attend(x), atol=1e-5)


@pytest.mark.parametrize("shape", [(17, 16), (16, 17), (0, 17), (16,), (1, 16, 1)])
def test_a_shape_that_does_not_fit_is_refused_and_does_no_harm(shape: tuple[int, ...]) -> None:
    executable = XnnpackEngine().compile(attention(), threads=Threads(1))
    with pytest.raises(InputError, match="shape"):
        executable.reshape([shape])
    x, y = random(0, (5, 16)), np.empty((5, 2, 8), np.float32)
    executable.reshape([x.shape])
    executable.run([x], [y])
    np.testing.assert_allclose(y, attend(x), atol=1e-5)


def test_no_elements_in_none_out() -> None:
    executable = XnnpackEngine().compile(attention(), threads=Threads(1))
    for length in (0, 5, 0):
        x, y = random(0, (length, 16)), np.empty((length, 2, 8), np.float32)
        assert executable.reshape([x.shape]) == (y.shape,)
        executable.run([x], [y])
        np.testing.assert_allclose(y, attend(x) if length else y, atol=1e-5)


def test_what_is_made_of_nothing_is_computed_with() -> None:
    b = GraphBuilder()
    x, y = b.input((4, 3)), b.input((2, 3))
    mean, both, product = b.value((1, 1, 3)), b.output((6, 3)), b.output((3, 3))
    padded = b.output((5, 3))
    b.node(NodeKind.CONCATENATE_2, [x, y], [both], attributes=ConcatenateAttributes(0))
    b.node(NodeKind.STATIC_CONSTANT_PAD, [x], [padded],
           attributes=PadAttributes((1, 0), (0, 0), 2.5))  # fmt: skip
    turned = b.value((3, 4))
    b.node(NodeKind.STATIC_TRANSPOSE, [x], [turned], attributes=TransposeAttributes((1, 0)))
    b.node(NodeKind.BATCH_MATRIX_MULTIPLY, [turned, x], [product])
    rows = b.value((4, 1, 3))
    b.node(NodeKind.STATIC_RESHAPE, [x], [rows], attributes=ReshapeAttributes((0, 1, 3)))
    b.node(NodeKind.GLOBAL_AVG_POOLING_2D, [rows], [mean], flags=FLAG_KEEP_DIMS)
    b.node(NodeKind.ADD, [mean, y], [b.output((1, 2, 3))])
    none, some = np.empty((0, 3), np.float32), random(0, (2, 3))
    executable = XnnpackEngine().compile(b.graph, threads=Threads(1))
    outputs = [np.empty(s, np.float32) for s in executable.reshape([none.shape, some.shape])]
    executable.run([none, some], outputs)
    np.testing.assert_array_equal(outputs[0], some)
    np.testing.assert_array_equal(outputs[1], np.zeros((3, 3)))
    np.testing.assert_array_equal(outputs[2], np.full((1, 3), 2.5))
    assert outputs[3].shape == (1, 2, 3)
    assert np.isnan(outputs[3]).all()


def test_a_shape_within_its_bound_that_a_node_cannot_take_is_refused() -> None:
    x = random(0, (4, 6))
    graph = one_node(NodeKind.STATIC_RESHAPE, [x], (12, 2), attributes=ReshapeAttributes((0, 8)))
    executable = XnnpackEngine().compile(graph, threads=Threads(1))
    with pytest.raises(InputError, match=r"node 0 \(STATIC_RESHAPE\).*\[3, 6\]"):
        executable.reshape([(3, 6)])


def test_arrays_that_do_not_fit_are_refused() -> None:
    executable = XnnpackEngine().compile(attention(), threads=Threads(1))
    x, y = random(0, (5, 16)), np.empty((5, 2, 8), np.float32)
    executable.reshape([x.shape])
    for inputs, outputs, message in (
        ([x.astype(np.float64)], [y], "input 0 of the graph is float64"),
        ([x], [y.astype(np.int8)], "output 0 of the graph is int8"),
        ([random(0, (4, 16))], [y], r"input 0.*\[4, 16\].*it takes.*\[5, 16\]"),
        ([random(0, (16, 5)).T], [y], "input 0.*not contiguous"),
        ([x], [np.empty((5, 2, 9), np.float32)], "output 0"),
        ([x, x], [y], "2 inputs and 1 outputs given"),
        ([x], [], "1 inputs and 0 outputs given"),
    ):
        with pytest.raises(InputError, match=message):
            executable.run(inputs, outputs)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_threads_do_not_change_the_answer(count: int) -> None:
    graph, x = convolutions(), random(0, (1, 24, 24, 16))
    np.testing.assert_array_equal(run(graph, x, threads=count)[0], run(graph, x)[0])


@pytest.mark.parametrize("count", [0, -1, 100_000])
def test_a_senseless_number_of_threads_is_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"number of threads is {count}"):
        XnnpackEngine().compile(attention(), threads=Threads(count))


def test_executables_of_one_engine_share_their_workspace_in_any_order() -> None:
    """The second one's larger workspace moves the first one's intermediate values."""
    engine = XnnpackEngine()
    small, large = convolutions(3, 8), convolutions(3, 64)
    a = engine.compile(small, threads=Threads(1))
    x, y = random(0, (1, 8, 8, 16)), np.empty((1, 8, 8, 16), np.float32)
    a.run([x], [y])
    first = y.copy()
    b = engine.compile(large, threads=Threads(1))
    b.run([random(1, (1, 64, 64, 16))], [np.empty((1, 64, 64, 16), np.float32)])
    a.run([x], [y])
    np.testing.assert_array_equal(y, first)
    del b
    gc.collect()
    a.run([x], [y])
    np.testing.assert_array_equal(y, first)


@pytest.mark.parametrize("shared", [True, False], ids=["one engine", "engines of their own"])
def test_executables_can_be_used_from_several_threads(shared: bool) -> None:
    engines = [XnnpackEngine()] * 6 if shared else [XnnpackEngine() for _ in range(6)]
    wrong: list[int] = []

    def work(seed: int) -> None:
        executable = engines[seed].compile(attention(), threads=Threads(1 + seed % 2))
        for length in range(1, 17):
            engines[seed].compile(attention(3), threads=Threads(1))  # garbage at once
            x, y = random(seed, (length, 16)), np.empty((length, 2, 8), np.float32)
            executable.reshape([x.shape])
            executable.run([x], [y])
            if not np.allclose(y, attend(x), atol=1e-5):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_profile_has_the_time_of_each_node() -> None:
    graph, x = convolutions(4, 32), random(0, (1, 32, 32, 16))
    y = np.empty((1, 32, 32, 16), np.float32)
    executable = XnnpackEngine(profile=True).compile(graph, threads=Threads(1))
    assert executable.profile() == []
    executable.run([x], [y])
    nodes = executable.profile()
    assert len(nodes) == 4
    assert all("Convolution" in node.name for node in nodes)
    assert sum(node.microseconds for node in nodes) > 0
    silent = XnnpackEngine().compile(graph, threads=Threads(1))
    silent.run([x], [y])
    assert silent.profile() == []


def test_runtimes_are_released() -> None:
    """A thousand runtimes of 1 MB each would show."""
    b = GraphBuilder()
    x, w = b.input((1, 512)), b.constant(random(0, (512, 512)))
    b.node(NodeKind.FULLY_CONNECTED, [x, w, None], [b.output((1, 512))])
    engine = XnnpackEngine()
    before = _resident()
    for _ in range(300):
        engine.compile(b.graph, threads=Threads(1)).reshape([(1, 512)])
    gc.collect()
    assert _resident() - before < 100e6


def _resident() -> int:
    path = Path("/proc/self/statm")
    if not path.exists():
        pytest.skip("needs /proc")
    return int(path.read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_a_fork_threads_are_missed_with_a_clear_error() -> None:
    graph, x = attention(), random(0, (4, 16))
    y = np.empty((4, 2, 8), np.float32)
    executable = XnnpackEngine().compile(graph, threads=Threads(2))
    executable.run([x], [y])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            executable.run([x], [y])
        except BackendUnavailableError:
            again = XnnpackEngine().compile(graph, threads=Threads(2))
            again.run([x], [y])
            code = 0 if np.allclose(y, attend(x), atol=1e-5) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_interpreter_ends_in_peace() -> None:
    code = (
        "from test_engine import *\n"
        "kept = XnnpackEngine().compile(attention(), threads=Threads(3))\n"
        "kept.run([random(0, (4, 16))], [np.empty((4, 2, 8), np.float32)])\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def overhead(executable: XnnpackExecutable, inputs: list[np.ndarray], y: np.ndarray) -> float:
    """Seconds a call beyond XNNPACK's own, at best, with another input array each time."""

    def best(function: object, *arguments: object) -> float:
        times = []
        for _ in range(15):
            start = time.perf_counter()
            for _ in range(100):
                function(*arguments)  # type: ignore[operator]
            times.append((time.perf_counter() - start) / 100)
        return min(times)

    def call() -> None:
        for x in inputs:
            executable.reshape([x.shape])
            executable.run([x], [y])

    call()
    raw = best(executable._xnn.xnn_invoke_runtime, executable._runtime)
    return best(call) / len(inputs) - raw


def test_the_overhead_of_a_call_is_small() -> None:
    executable = XnnpackEngine().compile(convolutions(1, 4), threads=Threads(1))
    inputs = [random(i, (1, 4, 4, 16)) for i in range(2)]
    assert overhead(executable, inputs, np.empty((1, 4, 4, 16), np.float32)) < 30e-6


def test_slices_beyond_a_smaller_input_are_cut_as_xnnpack_cuts_them() -> None:
    x = random(0, (6, 4))
    graph = one_node(NodeKind.STATIC_SLICE, [x], (3, 4), attributes=SliceAttributes((2, 0), (3, 0)))
    executable = XnnpackEngine().compile(graph, threads=Threads(1))
    for rows in (6, 5, 4, 3, 2, 1, 0, 6):
        part = np.ascontiguousarray(x[:rows])
        (shape,) = executable.reshape([part.shape])
        y = np.empty(shape, np.float32)
        executable.run([part], [y])
        np.testing.assert_array_equal(y, part[2:5])
