"""Ctrl-C at every place of a call where Python looks for signals: the next call is right."""

from __future__ import annotations

import contextlib
import dis
import gc
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from method_harness import make

from penstock.formats.program import JumpFalseCall
from penstock.runtime import method
from penstock.runtime.engines.xnnpack.turn import Turn
from penstock.runtime.kernels.registry import kernel
from penstock.runtime.pool import Pool, _Loan
from penstock.runtime.program import load
from penstock.runtime.specs import TensorSpec

#: whose state outlasts a call
STATEFUL = tuple(
    str(Path(method.__file__).parent / name)
    for name in ("engines", "method.py", "bound_delegate", "pool.py")
) + (contextlib.__file__,)
STOCK = Path(__file__).parents[1] / "formats" / "stock"


def looks_for_signals(frame: FrameType, before: dict[FrameType, int]) -> bool:
    """Whether the interpreter, about to run the next instruction of ``frame``, has just looked for
    signals: when a function begins, after a call, and where a loop goes back."""
    last = before.get(frame)
    before[frame] = frame.f_lasti
    if last is None:
        return True
    name = dis.opname[frame.f_code.co_code[last]]
    return name.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))


def interrupted(call: Callable[[], Any], place: int) -> bool:
    """Whether ``call`` had so many places that it got an interrupt at the one of this number."""
    before: dict[FrameType, int] = {}
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(STATEFUL):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and looks_for_signals(frame, before):
            count += 1
            if count == place + 1:
                handler = signal.getsignal(signal.SIGINT)  # ours, where interrupts are held
                assert callable(handler)
                handler(signal.SIGINT, frame)
        return trace

    collecting = gc.isenabled()
    gc.disable()  # an exception in a finalizer is dropped
    sys._getframe().f_trace_opcodes = True  # else Python 3.12 traces none of them
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
        before.clear()  # frames hold what a generator would let go
        if collecting:
            gc.enable()
    return False


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What ``call`` gives; fails where it takes for ever."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "the call does not end"
    return found[0]


@pytest.fixture(autouse=True)
def handler() -> Any:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tracer is at work")
@pytest.mark.parametrize("engine", ["auto", "xnnpack", "native"])
@pytest.mark.parametrize("name", ["image_fp32", "rows_dynamic_q8"])
def test_the_next_call_is_right(name: str, engine: str) -> None:
    def run(rows: int) -> Any:
        return program(*(np.ones((rows, *shape[1:]), np.float32) for shape in shapes))[0]

    program = load(STOCK / f"{name}.pte", threads=1, engine=engine)
    shapes = [s.shape for s in program.method().inputs if isinstance(s, TensorSpec)]
    sizes = (2, 1) if "dynamic" in name else (1, 1)
    expected = [np.array(run(rows)) for rows in sizes]
    place = 0
    while interrupted(lambda: run(sizes[0]), place):
        for rows, wanted in zip(sizes, expected, strict=True):
            np.testing.assert_array_equal(within(60, lambda: run(rows)), wanted)  # noqa: B023
        place += 1
    assert place > 20


def test_runtimes_are_deleted_all_the_same() -> None:
    """Once, be it at the next turn."""

    class Xnn:
        def __init__(self) -> None:
            self.deleted: list[int] = []

        def xnn_delete_runtime(self, runtime: int) -> None:
            self.deleted.append(runtime)

    place, going = 0, True
    while going:
        xnn: Any = Xnn()
        turn = Turn(xnn)
        with turn.lock:
            turn.delete(1)
            assert not xnn.deleted
        going = interrupted(lambda: turn.delete(2), place)  # noqa: B023
        assert not turn.lock.locked()
        known = [runtime for runtime, _ in turn.garbage] + xnn.deleted
        turn.clean()
        assert sorted(xnn.deleted) == sorted(known) and 1 in known
        place += 1
    assert place > 5


class _Program:
    """Stands for one that computes nothing, so that all places are the pool's."""

    def clone(self, **options: Any) -> _Program:
        return self if not options else _Program()

    def __call__(self, value: int) -> int:
        return value + 1


def _pool() -> Pool:
    program: Any = _Program()
    return Pool(program, 1)


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tracer is at work")
def test_a_call_of_a_pool_loses_no_clone() -> None:
    """Not even until the exception is handled."""
    place, going = 0, True

    def call() -> None:
        try:
            pool(1)
        except KeyboardInterrupt:
            free.append(list(pool._clones._free))
            raise

    while going:
        pool, free = _pool(), list[Any]()
        whole = list(pool._clones._free)
        going = interrupted(call, place)
        assert free == [whole] * going
        assert within(60, lambda: pool(2)) == 3  # noqa: B023
        place += 1
    assert place > 5


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tracer is at work")
def test_a_block_with_a_clone_loses_none() -> None:
    place, going = 0, True

    def block() -> None:
        with pool.lent() as clone:
            clone(1)

    while going:
        pool = _pool()
        whole = list(pool._clones._free)
        going = interrupted(block, place)
        assert pool._clones._free == whole
        place += 1
    assert place > 10


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tracer is at work")
def test_a_caller_that_waits_is_not_forgotten() -> None:
    """Who gives a clone back is interrupted anywhere, and so is who gave up waiting."""
    place, going = 0, True
    while going:
        pool = _pool()
        (clone,) = pool._clones._free
        clones, first, second = pool._clones, _Loan(), _Loan()
        clones.take(first)
        second.turn = threading.Lock()
        second.turn.acquire()
        clones._waiting.append(second)

        def give() -> None:
            try:
                clones.give(first)  # noqa: B023
            except BaseException:
                clones.give(first)  # noqa: B023
                raise

        going = interrupted(give, place)
        assert second.clone is clone and not second.turn.locked() and not clones._waiting
        clones.give(second)
        clones.give(second)
        assert clones._free == [clone]
        place += 1
    assert place > 2


class Limit(Exception):
    """As time limits of task queues are: no BaseException, as Ctrl-C is."""


class Handler:
    def __call__(self, number: int, frame: FrameType | None) -> None:
        raise Limit

    def method(self, number: int, frame: FrameType | None) -> None:
        raise Limit


@kernel("test::alarm", outs=0)
def _alarm(value: Any) -> Any:
    signal.raise_signal(signal.SIGALRM)
    return value


@pytest.mark.parametrize("jumps", [False, True])
@pytest.mark.parametrize(
    "handler",
    [Handler(), Handler().method, partial(Handler().method)],
    ids=["object", "method", "partial"],
)
def test_what_a_handler_raises_arrives(handler: Any, jumps: bool) -> None:
    code = [("test::alarm", 0, 0), *([JumpFalseCall(0, 2)] if jumps else [])]
    method = make([False], [], [0], code).method()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for call in (lambda: method.run([]), method):
            with pytest.raises(Limit):
                call()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        assert method.run([]) == [False]
    finally:
        signal.signal(signal.SIGALRM, before)
