"""Clones share packed weights and nothing that a run writes to; pools lend them."""

from __future__ import annotations

import asyncio
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.errors import InputError
from penstock.runtime.engines import weight_blocks
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine
from penstock.runtime.pool import Pool
from penstock.runtime.program import ENGINES, LoadedProgram, load

STOCK = Path(__file__).parents[1] / "formats" / "stock"
FILES = [
    "image_fp32", "image_q8", "image_q8_inline", "rows_dynamic_q8", "rows_inline", "partly",
    "nested",
]  # fmt: skip


def inputs(program: LoadedProgram, seed: int = 0) -> list[np.ndarray]:
    noise = np.random.default_rng(seed)
    return [
        noise.standard_normal(spec.shape).astype(spec.dtype) for spec in program.method().inputs
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FILES)
def test_clones_give_the_same_bits(name: str, engine: str) -> None:
    program = load(STOCK / f"{name}.pte", threads=1, engine=engine)
    given = inputs(program)
    expected = [array.copy() for array in program.method().run(given)]
    clone, again = program.clone(), program.clone().clone(threads=2)
    for one in (clone, again, program):
        for found, value in zip(one.method().run(given), expected, strict=True):
            np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["image_fp32", "image_q8", "rows_dynamic_q8", "rows_inline"])
def test_nothing_is_packed_twice(name: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = load(STOCK / f"{name}.pte", threads=1, engine=engine)
    program.method().run(inputs(program))
    blocks: list[int] = []
    large = weight_blocks.large
    monkeypatch.setattr(weight_blocks, "large", lambda size: blocks.append(size) or large(size))
    for kind in (XnnpackEngine, NativeEngine):
        monkeypatch.setattr(kind, "compile", None)
    clone = program.clone()
    clone.method().run(inputs(clone))
    assert not blocks


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["image_fp32", "image_q8", "rows_dynamic_q8"])
def test_many_callers(name: str, engine: str) -> None:
    program = load(STOCK / f"{name}.pte", threads=1, engine=engine)
    given = [inputs(program, seed) for seed in range(8)]
    expected = [program(*one)[0].copy() for one in given]
    pool = Pool(program, 3)
    wrong: list[int] = []

    def call(number: int) -> None:
        for _ in range(30):
            if not np.array_equal(pool(*given[number])[0], expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(pool.acall(*one) for one in given))

    for found, value in zip(asyncio.run(all_at_once()), expected, strict=True):
        np.testing.assert_array_equal(found[0], value)


def test_state_is_each_clones_own() -> None:
    program = load(STOCK / "mutable.pte", threads=1)
    given = inputs(program)
    first = [array.copy() for array in program.method().run(given)]
    second = [array.copy() for array in program.method().run(given)]
    assert not np.array_equal(first[0], second[0])
    clone = program.clone()
    for expected in (first, second):
        np.testing.assert_array_equal(clone.method().run(given)[0], expected[0])
    pool = Pool(program, 2)
    with pool.lent() as lent:
        for expected in (first, second):
            np.testing.assert_array_equal(lent.method().run(given)[0], expected[0])


def test_a_clone_outlives_its_original() -> None:
    program = load((STOCK / "image_fp32.pte").read_bytes(), threads=1)
    given = inputs(program)
    expected = program(*given)[0].copy()
    clone = program.clone()
    del program
    np.testing.assert_array_equal(clone(*given)[0], expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clone))(*given)[0], expected)


class Plain:
    """An engine that cannot make siblings, nor its executables clones."""

    def __init__(self, pause: float = 0.0) -> None:
        self.real = XnnpackEngine()
        self.compiled = 0
        self.pause = pause

    def reason_against(self, graph: Any, node: Any) -> None:
        return None

    def compile(self, graph: Any, *, threads: Any) -> Any:
        self.compiled += 1
        real = self.real.compile(graph, threads=threads)

        class Executable:
            reshape, profile = real.reshape, real.profile

            @staticmethod
            def run(*args: Any) -> Any:
                time.sleep(self.pause)
                return real.run(*args)

        return Executable()


def test_engines_without_clones_compile_again() -> None:
    engine = Plain()
    program = load(STOCK / "image_fp32.pte", threads=1, engine=engine)
    given = inputs(program)
    np.testing.assert_array_equal(program.clone()(*given)[0], program(*given)[0])
    assert engine.compiled == 2 * len(program.method().delegates)


def test_a_cancelled_task_leaves_the_pool_whole() -> None:
    program = load(STOCK / "image_fp32.pte", threads=1)
    given = inputs(program)
    pool = Pool(program, 1)

    async def cancelled() -> None:
        with pool.lent():
            task = asyncio.create_task(pool.acall(*given))
            waiting = asyncio.create_task(pool.acall(*given))
            await asyncio.sleep(0.05)
            task.cancel()
            waiting.cancel()
            for one in (task, waiting):
                with pytest.raises(asyncio.CancelledError):
                    await one
        await pool.acall(*given)

    asyncio.run(cancelled())
    np.testing.assert_array_equal(pool(*given)[0], program(*given)[0])


def test_cancelled_while_it_computes() -> None:
    """The task leaves at once, and the clone is lent again when it is done."""
    program = load(STOCK / "image_fp32.pte", threads=1, engine=Plain(pause=0.2))
    given = inputs(program)
    pool = Pool(program, 1)
    expected = pool(*given)[0].copy()

    async def cancelled() -> float:
        start = time.perf_counter()
        for _ in range(2):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(pool.acall(*given), 0.01)
        left = time.perf_counter() - start
        np.testing.assert_array_equal((await pool.acall(*given))[0], expected)
        return left

    assert asyncio.run(cancelled()) < 0.15
    np.testing.assert_array_equal(pool(*given)[0], expected)


def test_the_loop_goes_on() -> None:
    program = load(STOCK / "image_fp32.pte", threads=1)
    given = inputs(program)
    pool = Pool(program, 1)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.perf_counter())
            await asyncio.sleep(0.001)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        with pool.lent():  # the call has to wait for its turn
            call = asyncio.create_task(pool.acall(*given))
            await asyncio.sleep(0.1)
        await call
        ticking.cancel()

    asyncio.run(main())
    assert len(ticks) > 5


def test_an_error_gives_the_clone_back() -> None:
    program = load(STOCK / "image_fp32.pte", threads=1)
    pool = penstock.Pool(program, 1)
    for _ in range(3):
        with pytest.raises(InputError):
            pool(np.zeros(3, np.float32))
    pool(*inputs(program))


def test_turns_are_taken_in_order() -> None:
    """Who gives a clone back and wants it again waits behind those who were there before."""
    program = load(STOCK / "image_fp32.pte", threads=1)
    pool, order = Pool(program, 1), list[int]()

    def call(number: int) -> None:
        with pool.lent():
            order.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    with pool.lent():
        for number, thread in enumerate(threads):
            thread.start()
            while len(pool._clones._waiting) <= number:
                time.sleep(0.001)
    call(9)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 9]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_an_interrupt_while_waiting_loses_no_clone() -> None:
    program = load(STOCK / "image_fp32.pte", threads=1)
    pool = Pool(program, 1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pool.lent():
            timer = threading.Timer(
                0.1, signal.pthread_kill, [threading.get_ident(), signal.SIGINT]
            )
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                pool(*inputs(program))
            timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    pool(*inputs(program))


@pytest.mark.parametrize("size", [0, -1, 2.5, True, 1 << 20])
def test_sizes(size: Any) -> None:
    with pytest.raises(InputError, match="size of a pool"):
        Pool(load(STOCK / "image_fp32.pte"), size)


def test_pools_pickle_as_their_program() -> None:
    pool = Pool(load(STOCK / "image_fp32.pte"), np.int64(3), threads=2)  # type: ignore[arg-type]
    again = pickle.loads(pickle.dumps(pool))
    assert again.size == 3 and again._threads == 2
    given = inputs(pool._program)
    np.testing.assert_array_equal(again(*given)[0], pool(*given)[0])


def test_what_is_no_program() -> None:
    with pytest.raises(InputError, match="of a program that penstock.load gives, not a str"):
        Pool("model.pte")  # type: ignore[arg-type]
