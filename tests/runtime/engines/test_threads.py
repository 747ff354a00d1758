"""Threads of a program: one pool for all its engines, made when needed, ended with it."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from graph_builder import GraphBuilder

import penstock
from penstock.errors import InputError
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.threads import MAX_THREADS, Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

STOCK = Path(__file__).parents[2] / "formats" / "stock"
TASKS = Path("/proc/self/task")
needs_tasks = pytest.mark.skipif(not TASKS.exists(), reason="needs /proc")


def running() -> int:
    """The threads of this process."""
    gc.collect()
    return len(list(TASKS.iterdir()))


def image() -> list[np.ndarray]:
    with np.load(STOCK / "image_fp32.npz") as file:
        return [file["forward|0|in0"]]


def product() -> XnnGraph:
    b = GraphBuilder()
    x, w = b.input((64, 32)), b.constant(np.ones((32, 32), np.float32))
    b.node(NodeKind.FULLY_CONNECTED, [x, w, None], [b.output((64, 32))])
    return b.graph


@pytest.mark.parametrize("count", [0, -1, MAX_THREADS + 1, True, 1.0, "2"])
def test_a_senseless_count_is_refused(count: object) -> None:
    with pytest.raises(InputError, match=f"number of threads is {count!r}; give one from 1 to"):
        Threads(count)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"number of threads is {count!r}"):
        penstock.load(STOCK / "image_fp32.pte", threads=count)  # type: ignore[arg-type]


def test_the_default_is_the_cpus_that_the_process_may_use() -> None:
    assert 1 <= Threads().count <= (os.cpu_count() or 1)


@needs_tasks
def test_engines_share_the_pool_which_is_made_when_needed() -> None:
    before = running()
    assert Threads(1).pool() is None
    threads = Threads(4)
    assert running() == before
    kept = [XnnpackEngine().compile(product(), threads=threads) for _ in range(3)]
    assert threads.pool() is not None and threads.pool() is threads.pool()
    assert running() == before + 3
    del threads
    assert running() == before + 3  # in use
    kept.clear()
    assert running() == before


@needs_tasks
def test_a_program_ends_its_threads() -> None:
    before, inputs = running(), image()
    answers = []
    for count in (1, 2, 5, 3, 2):
        program = penstock.load(STOCK / "image_fp32.pte", threads=count)
        method = program.method()
        answers.append(method.run(inputs)[0])
        assert running() == before + count - 1
        del program
        answers.append(method.run(inputs)[0])  # a method is enough to keep them
        del method
        assert running() == before
    for answer in answers:
        np.testing.assert_array_equal(answer, answers[0])


def test_programs_run_beside_each_other() -> None:
    inputs = image()
    expected = penstock.load(STOCK / "image_fp32.pte", threads=1).method().run(inputs)[0]
    wrong: list[int] = []
    shared = penstock.load(STOCK / "image_fp32.pte", threads=2)

    def work(number: int) -> None:
        for _ in range(5):
            own = penstock.load(STOCK / "image_fp32.pte", threads=2)
            for program in (own, shared):
                if not np.array_equal(program.method().run(inputs)[0], expected):
                    wrong.append(number)

    callers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_native_code_can_use_the_pool() -> None:
    threads = Threads(3)
    pool = threads.pool()
    assert pool is not None
    task = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
    parallelize = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, task, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
    )(pool.parallelize_1d)
    done: list[int] = []
    parallelize(pool.handle, task(lambda context, i: done.append(i)), None, 100, 0)
    assert sorted(done) == list(range(100))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_makes_its_own_pool_and_leaves_its_parents_alone() -> None:
    threads = Threads(2)
    x, y = np.ones((64, 32), np.float32), np.empty((64, 32), np.float32)
    kept = XnnpackEngine().compile(product(), threads=threads)
    kept.run([x], [y])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            again = XnnpackEngine().compile(product(), threads=threads)
            y[:] = 0
            again.run([x], [y])
            code = 0 if (y == 32).all() else 2
            del kept, again, threads
            gc.collect()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    y[:] = 0
    kept.run([x], [y])
    assert (y == 32).all()
