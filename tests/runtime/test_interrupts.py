"""Ctrl-C at every place of a call where Python looks for signals: the next call is right."""

from __future__ import annotations

import dis
import gc
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from penstock.runtime import method
from penstock.runtime.engines.xnnpack.turn import Turn
from penstock.runtime.program import load
from penstock.runtime.specs import TensorSpec

#: whose state outlasts a call
STATEFUL = tuple(
    str(Path(method.__file__).parent / name) for name in ("engines", "method.py", "bound_delegate")
)
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
