"""One entry point of a loaded program: :class:`Method`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pickle import PicklingError
from typing import Any

import numpy as np

from penstock.errors import (
    InputError,
    InvalidProgramError,
    PenstockError,
)
from penstock.faults import fault, from_handler
from penstock.formats import program as formats
from penstock.formats.program import (
    Tensor,
)
from penstock.formats.sources import MethodSources
from penstock.runtime.bound_delegate import BoundDelegate
from penstock.runtime.calling import Signature
from penstock.runtime.engines.protocol import Attending
from penstock.runtime.inputs import Binder, scalar_binder, tensor_binder, write_target
from penstock.runtime.instructions import (
    Bound,
    Done,
    bind,
    written_values,
)
from penstock.runtime.interpreter import Interpreter
from penstock.runtime.method_values import (
    kernels_of,
    layouts_of,
    signature_text,
    slots_of,
    spec_of,
)
from penstock.runtime.outputs import fill, lend
from penstock.runtime.planned_memory import private_values
from penstock.runtime.profile import Profile, Recorder
from penstock.runtime.replay import Recording, can_replay
from penstock.runtime.short_call import ShortCall, short_call
from penstock.runtime.slots import Layout, Slot
from penstock.runtime.specs import Spec, TensorSpec
from penstock.runtime.turns import Turns, refusal


class Method:
    """An entry point, ready to be called. Made by :meth:`LoadedProgram.method`.

    A call takes the inputs as the model's ``forward`` does (nested and keyword inputs too) and
    returns the outputs in the structure that eager PyTorch returns; where that is one tensor
    alone, a tuple of one. The arrays that it returns are the caller's to keep.

    Inputs are read where they are if their memory layout allows. Those that the model itself
    writes to (``written``: their positions) get their new content when all else is done, if
    nothing failed; the program's flat outputs have it first. One array given for two inputs is
    read as two: writes to one are not seen in the other during the call.

    Mutable buffers of the model keep their content from call to call. Calls from several threads
    take turns.
    """

    def __init__(
        self,
        method: formats.Method,
        compile_delegate: Callable[[formats.Delegate], BoundDelegate],
        turns: Turns | None = None,
        profile: bool = False,
        sources: MethodSources = MethodSources(),  # noqa: B008  frozen
    ) -> None:
        """Checks the method, finds its kernels and compiles its delegates.

        Raises InvalidProgramError for a method that makes no sense, UnsupportedError for one that
        needs a kernel or a backend that is not there, InputError for one that needs a data file.
        """
        self.name = method.name
        self._turns = turns or Turns()
        self._method = method
        layouts = layouts_of(method)
        kernels = kernels_of(method)
        self.delegates = [compile_delegate(delegate) for delegate in method.delegates]
        bound = [bind(method, one, kernels, self.delegates) for one in method.instructions]
        self._bound = bound
        self._recorder = Recorder(bound) if profile else None
        self._sources = sources
        written = written_values(bound)
        used = {i for one in bound for i in (*one.args, *one.outs)} | set(method.outputs)
        self.inputs = [spec_of(method.values[i], layouts.get(i), i in used) for i in method.inputs]
        self.outputs = [spec_of(method.values[i], layouts.get(i), False) for i in method.outputs]
        #: the positions of the inputs that the method writes to
        self.written = tuple(
            position
            for position, index in enumerate(method.inputs)
            if index in written and isinstance(method.values[index], Tensor)
        )
        self._signature = Signature(method, self._written_outputs())
        self._set_up(layouts, bound, written)
        #: once it has run, the short way of calls, if there is one
        self._short: ShortCall | None = None
        self._ran = False
        #: the shapes of the last call's inputs, how to do the same again, and how many tries are
        #: left to find that out
        self._shapes: list[tuple[int, ...]] = []
        self._replay: ShortCall | None = None
        self._tries = 2
        self._replays = self._recorder is None and not self.written and can_replay(bound, method)

    def __reduce__(self) -> tuple[Any, ...]:
        raise PicklingError("a method cannot be pickled or copied; pickle its program")

    def __repr__(self) -> str:
        return f"Method {signature_text(self._method)}"

    @property
    def skips_hidden(self) -> bool:
        """Whether attention in its delegates leaves out the rows that masks hide; see
        :class:`~penstock.runtime.engines.protocol.Attending`."""
        return bool(self.delegates) and all(
            isinstance(delegate.executable, Attending) and delegate.executable.skips_hidden
            for delegate in self.delegates
        )

    def _written_outputs(self) -> int:
        """How many of the first outputs are inputs that were written to."""
        written = {self._method.inputs[position] for position in self.written}
        outputs = self._method.outputs
        return next((n for n, i in enumerate(outputs) if i not in written), len(outputs))

    def _set_up(
        self, layouts: dict[int, Layout], bound: Sequence[Bound], written: set[int]
    ) -> None:
        method = self._method
        private = private_values(method, layouts, [one.access for one in bound])
        slots = slots_of(method, layouts, private)
        variable = written | set(method.inputs)
        self._interpreter = Interpreter(method, bound, slots, variable, self._recorder)
        self._state = self._interpreter.state
        self._binders = [
            _binder(spec, slots[index], label, index not in private)
            for label, index, spec in zip(
                self._signature.labels, method.inputs, self.inputs, strict=True
            )
        ]
        # What holds arrays of the caller after a call, hence is let go.
        self._transient = [
            i
            for i in {*method.inputs, *method.outputs}
            if (slot := slots[i]) is not None and slot.memory is None
        ]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the method.

        ``out=`` has an array, or one for each output, that the outputs are written into (see
        :meth:`run`), unless the model itself has an input of that name.

        Raises InputError for inputs that do not fit, InvalidProgramError when the program turns
        out to be damaged.
        """
        signature = self._signature
        try:
            out = kwargs.pop("out", None) if kwargs and not signature.takes("out") else None
            return signature.fold(self._run(signature.flatten(args, kwargs), out))
        except PenstockError:
            raise
        except Exception as error:
            if from_handler(error):
                raise
            raise fault(error, "call") from error

    def run(self, inputs: Sequence[Any], *, out: Any = None) -> list[Any]:
        """Run the method on its inputs as a flat list; returns the outputs as one, all that the
        file lists: the new content of ``written`` inputs comes first.

        Args:
            inputs: arrays and numbers.
            out: for each output a NumPy array to write it into, which is then what is returned, or
                None; a lone array for a lone output. They have the outputs' shapes and dtypes. One
                that lies in memory as the output does is computed in place, without a copy. After
                an error their content is undefined.

        Raises what :meth:`__call__` raises.
        """
        if not isinstance(inputs, Sequence):
            raise InputError(f"run takes a list of inputs, not a {type(inputs).__name__}")
        try:
            return self._run(inputs, out)
        except PenstockError:
            raise
        except Exception as error:
            if from_handler(error):
                raise
            raise fault(error, "call") from error

    def _run(self, inputs: Sequence[Any], out: Any = None) -> list[Any]:
        turns = self._turns
        with turns.lock:
            if turns.taken:
                raise refusal()
            try:
                turns.taken = True
                if out is not None:
                    return self._run_into(out, inputs)
                quick = self._short or self._replay
                outputs = None if quick is None else quick(inputs)
                return self._run_new(inputs) if outputs is None else outputs
            finally:
                turns.taken = False

    def _run_into(self, out: Any, inputs: Sequence[Any]) -> list[Any]:
        slots = self._state.slots
        try:
            arrays = lend(out, self._method.outputs, self.outputs, slots, inputs)
            found = self._run_new(inputs)
        finally:
            for index in self._transient:
                slots[index].lent = None  # type: ignore[union-attr]
        return [
            fill(array, value, i)
            for i, (array, value) in enumerate(zip(arrays, found, strict=True))
        ]

    def _run_new(self, inputs: Sequence[Any]) -> list[Any]:
        binders = self._binders
        if len(inputs) != len(binders):
            raise InputError(
                f"the method {self.name!r} takes {len(binders)} inputs"
                f" ({', '.join(map(str, self.inputs)) or 'none'}), {len(inputs)} were given"
            )
        values = self._state.values
        targets = self._write_targets(inputs) if self.written else ()
        for index, bind_input, value in zip(self._method.inputs, binders, inputs, strict=True):
            values[index] = bind_input(value)
        recording = self._recording()
        self._interpreter.execute(recording)
        if recording is not None:
            self._replay = recording.replay([values[i] for i in self._method.inputs])
            self._tries = 2 if self._replay is not None else self._tries - 1
            self._replays = self._tries > 0
        outputs = [self._output(index) for index in self._method.outputs]
        for position, target in targets:
            self._write_back(values[self._method.inputs[position]], target, position)
        slots = self._state.slots
        for index in self._transient:
            values[index] = None
            slots[index].given = None  # type: ignore[union-attr]
        if not self._ran:
            self._ran = True
            if self._recorder is None:
                self._short = short_call(
                    self._bound, self._method.inputs, self._method.outputs, slots
                )
        return outputs

    def _recording(self) -> Recording | None:
        """What is to see the instructions of the call that begins: the second one of the same
        shapes. Another shape changes what delegates have: what was known of the last is no more."""
        if not self._replays:
            return None
        values = self._state.values
        shapes = [values[index].shape for index in self._method.inputs]
        if shapes != self._shapes:
            self._shapes, self._replay = shapes, None
            return None
        if self._replay is not None:
            return None
        return Recording(self._bound, self._method, self._state)

    def observed(self, inputs: Sequence[Any], see: Callable[[Done], None]) -> list[Any]:
        """:meth:`run`, with ``see`` called after each instruction.

        Raises what :meth:`__call__` raises, and whatever ``see`` does.
        """
        turns = self._turns
        with turns.lock:
            if turns.taken:
                raise refusal()
            self._replay, self._shapes = None, []
            try:
                turns.taken = True
                with self._interpreter.watched(see):
                    return self._run_new(inputs)
            finally:
                turns.taken = False

    @property
    def buffers(self) -> dict[str, np.ndarray]:
        """The model's mutable buffers by name, as they are now: what is written to these arrays
        between calls the next call finds there. Those without a name in the file are left out."""
        return {
            value.name: np.asarray(slot.full)
            for value, slot in zip(self._method.values, self._state.slots, strict=True)
            if isinstance(value, Tensor) and value.name and value.data is not None
            if value.allocation is not None and slot is not None
        }

    @property
    def stateful(self) -> bool:
        """Whether it has mutable buffers, so that an answer may depend on the calls before."""
        return any(
            isinstance(value, Tensor) and value.data is not None and value.allocation is not None
            for value in self._method.values
        )

    @property
    def input_names(self) -> list[str]:
        """A name for each input: a keyword input's own, else ``input_N``."""
        return self._signature.names

    def profile(self, *, reset: bool = False) -> Profile:
        """What the calls cost so far, by instruction and node; ``reset`` then forgets them.

        Raises InputError unless the program was loaded with ``profile=True``.
        """
        if self._recorder is None:
            raise InputError("this program does not measure; load it with profile=True")
        with self._turns.lock:
            profile = self._recorder.profile(self.name, self._sources)
            if reset:
                self._recorder.reset()
        return profile

    def _write_targets(self, inputs: Sequence[Any]) -> Sequence[tuple[int, np.ndarray]]:
        """The arrays that get the new content of written inputs, by position."""
        labels = self._signature.labels
        return [(i, write_target(inputs[i], labels[i])) for i in self.written]

    def _write_back(self, value: Any, target: np.ndarray, position: int) -> None:
        if not isinstance(value, np.ndarray) or value.shape != target.shape:
            raise InvalidProgramError(
                f"the method {self.name!r} writes something of another shape to its input"
                f" {position}, which has {list(target.shape)}"
            )
        np.copyto(target, value)

    def _output(self, index: int) -> Any:
        value = self._state.values[index]
        if not isinstance(value, np.ndarray):
            return list(value) if isinstance(value, list) else value
        slot = self._state.slots[index]
        if slot is not None and value is slot.given:
            return value
        return value.copy(order="K")


def _binder(spec: Spec, slot: Slot | None, label: str, copy: bool) -> Binder:
    if isinstance(spec, TensorSpec):
        assert slot is not None
        return tensor_binder(spec, slot, label, copy)
    return scalar_binder(spec, label)
