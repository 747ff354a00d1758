"""Executes a method's instructions: :class:`Interpreter`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from penstock.errors import InvalidProgramError, PenstockError, shorten
from penstock.faults import IF_SOUND, from_handler
from penstock.formats.program import (
    BoolList,
    DoubleList,
    IntList,
    JumpFalseCall,
    KernelCall,
    Method,
)
from penstock.runtime.instructions import Bound, Done, State, list_items
from penstock.runtime.kernels import registry
from penstock.runtime.profile import Recorder
from penstock.runtime.replay import Recording
from penstock.runtime.row_writes import fuse_row_writes
from penstock.runtime.slots import Slot
from penstock.runtime.steps import Step, make_step

#: A program that jumps back more often in one call is taken for one that never ends.
MAX_BACKWARD_JUMPS = 1 << 17


class Interpreter:
    """The instructions of a method and the values that they work on.

    Args:
        bound: the method's instructions.
        slots: where the method's tensors lie.
        variable: the values that calls and instructions write to.
        recorder: measures the instructions.
    """

    def __init__(
        self,
        method: Method,
        bound: Sequence[Bound],
        slots: list[Slot | None],
        variable: set[int],
        recorder: Recorder | None,
    ) -> None:
        self._method, self._bound, self._recorder = method, bound, recorder
        self.state = State([None] * len(method.values), slots, {})
        for index, value in enumerate(method.values):
            items = list_items(value)
            if items is not None and (
                not isinstance(value, IntList) or any(i in variable for i in items)
            ):
                self.state.lists[index] = items
        self._reset()
        self._steps = [make_step(one, method, self.state, i) for i, one in enumerate(bound)]
        if recorder is not None:
            values = self.state.values
            self._steps = [recorder.timed(step, i, values) for i, step in enumerate(self._steps)]
        self._jumps = any(isinstance(one, JumpFalseCall) for one in method.instructions)
        if recorder is None and not self._jumps:
            self._steps = fuse_row_writes(self._steps, bound, method, self.state)
        self._computes = any(isinstance(one, KernelCall) for one in method.instructions)

    def _reset(self) -> None:
        """Give every value its initial content; memory, hence mutable buffers, stays as it is."""
        values, slots = self.state.values, self.state.slots
        for index, value in enumerate(self._method.values):
            slot = slots[index]
            if slot is not None:
                values[index] = slot.full
            elif isinstance(value, (BoolList, DoubleList)):
                values[index] = list(value.items)
            elif not isinstance(value, IntList) and list_items(value) is None:
                values[index] = value
        for index, value in enumerate(self._method.values):
            if isinstance(value, IntList) and index not in self.state.lists:
                values[index] = [values[item] for item in value.items]

    def execute(self, recording: Recording | None = None) -> None:
        """Execute the instructions once; after an error all values have their initial content.

        Raises InvalidProgramError, which names the instruction, and what delegates raise.
        """
        if not self._computes:
            self._execute(recording)
            return
        with np.errstate(all="ignore"):
            self._execute(recording)

    @contextmanager
    def watched(self, see: Callable[[Done], None]) -> Iterator[None]:
        """Within, ``see`` is called after each instruction."""
        steps = self._steps
        self._steps = [self._watched(step, i, see) for i, step in enumerate(steps)]
        try:
            yield
        finally:
            self._steps = steps

    def _watched(self, step: Step, position: int, see: Callable[[Done], None]) -> Step:
        bound, values = self._bound[position], self.state.values

        def call() -> int | None:
            following = step()
            written = [values[index] for index in bound.outs]
            see(Done(position, bound.access.reads, bound.outs, written))
            return following

        return call

    def _execute(self, recording: Recording | None) -> None:
        steps, position = self._steps, -1
        if self._recorder is not None:
            self._recorder.calls += 1
        try:
            if self._jumps:
                self._execute_jumping(steps)
                return
            for step in steps:
                position += 1
                step()
                if recording is not None:
                    recording.see(position)
        except PenstockError:
            self._reset()
            raise
        except Exception as error:
            self._reset()
            if from_handler(error):
                raise
            raise self._failure(error, position) from error

    def _execute_jumping(self, steps: list[Step]) -> None:
        position, count, left = 0, len(steps), MAX_BACKWARD_JUMPS
        while position < count:
            try:
                following = steps[position]()
            except PenstockError:
                raise
            except Exception as error:
                if from_handler(error):
                    raise
                raise self._failure(error, position) from error
            if following is None:
                position += 1
                continue
            if following <= position:
                left -= 1
                if left < 0:
                    raise InvalidProgramError(
                        f"the method {self._method.name!r} jumps back more than"
                        f" {MAX_BACKWARD_JUMPS} times at instruction {position}; it seems to run"
                        " for ever"
                    )
            position = following

    def _failure(self, error: Exception, position: int) -> PenstockError:
        reason = shorten(error, 300) or type(error).__name__
        if isinstance(error, MemoryError):
            reason = f"out of memory: {reason}"
        elif not isinstance(error, (ValueError, registry.KernelError)):
            reason = f"{type(error).__name__}: {reason}; {IF_SOUND}"
        return InvalidProgramError(
            f"instruction {position} of method {shorten(self._method.name)!r}"
            f" ({self._bound[position].label}) failed: {reason}"
        )
