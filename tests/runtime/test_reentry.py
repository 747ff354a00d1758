"""A program that is called in the middle of a call of it, by the same thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from test_interrupts import STATEFUL, looks_for_signals

from penstock.errors import InputError
from penstock.runtime.program import LoadedProgram, load
from penstock.runtime.specs import TensorSpec

STOCK = Path(__file__).parents[1] / "formats" / "stock"
#: By the short way, in several steps, replayed, and with no delegate at all.
FILES = ["image_fp32", "rows_inline", "partly", "add_q8_undelegated"]


@contextmanager
def called_at(place: int, inner: Callable[[], None]) -> Iterator[list[int]]:
    """Has ``inner`` called, as a signal handler is, at one place where Python looks for signals."""
    import sys

    before: dict[FrameType, int] = {}
    count = [0]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(STATEFUL):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and looks_for_signals(frame, before):
            count[0] += 1
            if count[0] == place + 1:
                sys.settrace(None)
                inner()
        return trace

    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(None)


def inputs_of(program: LoadedProgram, seed: int) -> list[Any]:
    random = np.random.default_rng(seed)
    return [
        random.uniform(-3, 3, spec.shape).astype(spec.dtype)
        for spec in program.method().inputs
        if isinstance(spec, TensorSpec)
    ]


@pytest.mark.parametrize("name", FILES)
def test_a_handler_never_spoils_the_call_that_it_interrupts(name: str) -> None:
    program = load(STOCK / f"{name}.pte", threads=1)
    outer, inner = inputs_of(program, 1), inputs_of(program, 2)
    expected = [[np.array(x) for x in program.method().run(inputs)] for inputs in (outer, inner)]
    program.method().run(outer)
    refused = answered = place = 0

    def handler() -> None:
        nonlocal refused, answered
        try:
            found = program.method().run(inner)
        except InputError as error:
            assert "in the middle of a call of it" in str(error)
            refused += 1
            return
        answered += 1
        for one, right in zip(found, expected[1], strict=True):
            np.testing.assert_array_equal(one, right)

    while True:
        with called_at(place, handler) as count:
            found = program.method().run(outer)
        for one, right in zip(found, expected[0], strict=True):
            np.testing.assert_array_equal(one, right, err_msg=f"at place {place}")
        if count[0] <= place:
            break
        place += 1
    assert place > 3 and refused and refused + answered == place


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_a_real_signal() -> None:
    """It waited for ever, for the workspace of the call that waited for it."""
    program = load(STOCK / "image_fp32.pte", threads=1)
    inputs = inputs_of(program, 1)
    (expected,) = program(*inputs)
    clone, told, inside = program.clone(), [], False

    def handler(*_: object) -> None:
        nonlocal inside
        if inside:
            return
        inside = True
        try:
            np.testing.assert_array_equal(clone(*inputs)[0], expected)
            program(*inputs)
        except InputError as error:
            told.append(str(error))
        inside = False

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for _ in range(20_000):
            np.testing.assert_array_equal(program(*inputs)[0], expected)
            if len(told) > 3:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert told and all("call a clone of it there" in one for one in told)


def test_an_input_that_calls_the_program() -> None:
    program = load(STOCK / "rows_inline.pte", threads=1)
    inputs = inputs_of(program, 1)

    class Lazy:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            return np.asarray(program.method().run(inputs)[0])

    with pytest.raises(InputError, match="in the middle of a call of it"):
        program.method().run([Lazy(), *inputs[1:]])
    program.method().run(inputs)  # it goes on


def test_other_threads_wait() -> None:
    program = load(STOCK / "rows_inline.pte", threads=1)
    inputs = inputs_of(program, 1)
    found = []
    with program._turns.lock:
        thread = threading.Thread(target=lambda: found.append(program.method().run(inputs)))
        thread.start()
        thread.join(0.1)
        assert not found
    thread.join()
    assert found
