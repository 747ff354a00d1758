"""A method's instructions, bound to what they call: :func:`bind`.

Binding happens once, when a method is prepared: every index is checked, every kernel and delegate
found. It gives :class:`Bound` records, which say what is read and written; from them and the
method's :class:`State` come the steps (:mod:`~penstock.runtime.steps`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidProgramError
from penstock.formats.program import (
    DelegateCall,
    FreeCall,
    Instruction,
    IntList,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    OptionalTensorList,
    Tensor,
    TensorList,
    Value,
)
from penstock.runtime.bound_delegate import BoundDelegate
from penstock.runtime.kernels.registry import Kernel
from penstock.runtime.planned_memory import Access
from penstock.runtime.slots import Slot

#: Operators that share or grow memory, which a kernel cannot do.
VIEW = "executorch_prim::et_view.default"
COPY_INDEX = "executorch_prim::et_copy_index.tensor"
CORE_OPERATORS = frozenset({VIEW, COPY_INDEX})


@dataclass
class State:
    """The run-time state of a method, indexed like ``Method.values``.

    ``values`` holds what an instruction sees: arrays for tensors, lists, Python scalars.
    """

    values: list[Any]
    slots: list[Slot | None]
    #: lists whose items change at run time: value index -> (item indices, -1 for None)
    lists: dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Bound:
    """An instruction with its kernel (``target``), delegate, or neither.

    ``args`` are a kernel's arguments without the out arguments ``outs`` and without the repeated
    return value ``returned``.
    """

    instruction: Instruction
    access: Access
    target: Kernel | BoundDelegate | str | None = None
    args: tuple[int, ...] = ()
    outs: tuple[int, ...] = ()
    returned: int = -1
    #: arguments that are written to besides
    also: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        if isinstance(self.target, Kernel):
            return f"kernel {self.target.name}"
        if isinstance(self.target, str):
            return f"operator {self.target}"
        if isinstance(self.target, BoundDelegate):
            return f"delegate {self.target.id}"
        return type(self.instruction).__name__


@dataclass(frozen=True)
class Done:
    """An instruction that has run: its position, which values it read and wrote, by their numbers,
    and the content of those that it wrote, which may change with the next one."""

    position: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    written: list[Any]


def bind(
    method: Method,
    instruction: Instruction,
    kernels: Sequence[Kernel | str],
    delegates: Sequence[BoundDelegate],
) -> Bound:
    """Check one instruction and find what it calls.

    ``kernels`` and ``delegates`` go parallel to the method's own lists; a core operator stands
    there by its name. Raises InvalidProgramError.
    """
    if isinstance(instruction, KernelCall):
        _check(method, instruction.args)
        target = _item(kernels, instruction.operator, "operator")
        if isinstance(target, str):
            return _bind_core(method, instruction, target)
        return _bind_kernel(method, instruction, target)
    if isinstance(instruction, DelegateCall):
        _check(method, instruction.args)
        delegate = _item(delegates, instruction.delegate, "delegate")
        reads, writes = delegate.select(instruction.args)
        _check_tensors(method, (*reads, *writes))
        return Bound(instruction, Access(reads, writes), delegate, reads, writes)
    if isinstance(instruction, MoveCall):
        _check(method, (instruction.source, instruction.target))
        _check_move(method.values[instruction.source], method.values[instruction.target])
        # The target becomes another name of the source's memory, so it is not "written whole".
        return Bound(instruction, Access((instruction.source, instruction.target), ()))
    if isinstance(instruction, JumpFalseCall):
        _check(method, (instruction.condition,))
        if not 0 <= instruction.destination <= len(method.instructions):
            raise InvalidProgramError(
                f"a jump goes to instruction {instruction.destination} of"
                f" {len(method.instructions)}"
            )
        return Bound(instruction, Access((instruction.condition,), ()))
    if isinstance(instruction, FreeCall):
        _check_tensors(method, (instruction.value,))
        return Bound(instruction, Access((), ()))
    raise InvalidProgramError(f"unknown instruction {instruction!r}")


def _bind_core(method: Method, call: KernelCall, name: str) -> Bound:
    if len(call.args) != 3:
        raise InvalidProgramError(f"operator {name} has {len(call.args)} arguments, not 3")
    if name == VIEW:
        source, size, out = call.args
        _check_tensors(method, (source, out))
        access = Access((source,), (out,))
        return Bound(call, access, name, (source, size), (out,))
    target, source, index = call.args
    _check_tensors(method, (target, source))
    return Bound(call, Access((target, source), ()), name, (source, index), (target,))


def _bind_kernel(method: Method, call: KernelCall, kernel: Kernel) -> Bound:
    if len(call.args) < kernel.outs + 1 + kernel.in_place:
        raise InvalidProgramError(f"kernel {kernel.name} has only {len(call.args)} arguments")
    *args, returned = call.args
    inputs = tuple(args[: len(args) - kernel.outs])
    outs = tuple(args[len(args) - kernel.outs :])
    reads = _tensors(method, inputs)
    if kernel.in_place:
        outs = inputs[:1]
    writes = _tensors(method, outs)
    if any(place >= len(inputs) for place in kernel.writes):
        raise InvalidProgramError(f"kernel {kernel.name} has only {len(call.args)} arguments")
    also = tuple(inputs[place] for place in kernel.writes)
    _check_tensors(method, (*writes, *also))
    if outs and not writes and not isinstance(method.values[outs[0]], TensorList):
        raise InvalidProgramError(f"kernel {kernel.name} has an output that is no tensor")
    _check_returned(method, kernel, outs, returned)
    return Bound(
        call, Access(reads, () if kernel.in_place else writes), kernel, inputs, outs, returned, also
    )


def _tensors(method: Method, indices: tuple[int, ...]) -> tuple[int, ...]:
    """The tensors among values, those in tensor lists included."""
    found: list[int] = []
    for index in indices:
        value = method.values[index]
        if isinstance(value, Tensor):
            found.append(index)
        elif isinstance(value, (TensorList, OptionalTensorList)):
            found.extend(item for item in value.items if item >= 0)
    return tuple(found)


def _check_returned(method: Method, kernel: Kernel, outs: tuple[int, ...], returned: int) -> None:
    """The value that repeats a kernel's one output, or that gets its number."""
    value = method.values[returned]
    if outs:
        fits = len(outs) > 1 or _alike(method.values[outs[0]], value)
    else:
        fits = not isinstance(value, Tensor) and list_items(value) is None
    if not fits:
        raise InvalidProgramError(
            f"kernel {kernel.name} returns value {returned}, which is of another kind"
        )


def _check_move(source: Value, target: Value) -> None:
    if not _alike(source, target):
        raise InvalidProgramError("a move between values of different kinds")


def _alike(one: Value, other: Value) -> bool:
    """Whether one may take the other's place: values keep their kind, so that what was checked once
    stays true."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return (one.dtype, len(one.shape)) == (other.dtype, len(other.shape))
    return isinstance(one, Tensor) == isinstance(other, Tensor)


def _check(method: Method, indices: Sequence[int]) -> None:
    for index in indices:
        if not 0 <= index < len(method.values):
            raise InvalidProgramError(
                f"an instruction of method {method.name!r} uses value {index},"
                f" there are {len(method.values)}"
            )


def _check_tensors(method: Method, indices: Sequence[int]) -> None:
    for index in indices:
        if not isinstance(method.values[index], Tensor):
            raise InvalidProgramError(
                f"an instruction of method {method.name!r} takes value {index} for a tensor,"
                f" it is a {type(method.values[index]).__name__}"
            )


def _item(items: Sequence[Any], index: int, what: str) -> Any:
    if not 0 <= index < len(items):
        raise InvalidProgramError(f"an instruction calls {what} {index}, there are {len(items)}")
    return items[index]


def written_values(bound: Sequence[Bound]) -> set[int]:
    """All values that some instruction may change."""
    written: set[int] = set()
    for one in bound:
        written.update(one.outs, one.also)
        written.add(one.returned)
        if isinstance(one.instruction, MoveCall):
            written.add(one.instruction.target)
    return written


def list_items(value: Any) -> tuple[int, ...] | None:
    """The value indices that a list consists of, or None for a value that is no such list."""
    return value.items if isinstance(value, (IntList, TensorList, OptionalTensorList)) else None
