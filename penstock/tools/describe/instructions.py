"""Instructions of a method, described: what each reads and writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.formats.program import (
    DelegateCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
    OptionalTensorList,
    Tensor,
    TensorList,
)
from penstock.formats.sources import MethodSources, Origin
from penstock.runtime.instructions import COPY_INDEX
from penstock.tools.describe.delegates import DelegateDescription
from penstock.tools.describe.values import is_constant
from penstock.tools.describe.views import Places, find_views


@dataclass(frozen=True)
class InstructionDescription:
    """An instruction at ``position``. ``kind`` is ``kernel``, ``delegate``, ``move``, ``jump`` or
    ``free``; ``inputs`` and ``outputs`` are numbers of values of the method, ``arguments`` all of
    them as the file has them; ``delegate`` and ``destination`` (of a jump) are None where they do
    not belong. ``label`` says what is called, ``text`` the whole."""

    position: int
    kind: str
    label: str
    text: str
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    arguments: tuple[int, ...] = ()
    delegate: int | None = None
    destination: int | None = None
    origin: Origin = Origin()


def describe_instructions(
    method: Method, delegates: Sequence[DelegateDescription], sources: MethodSources
) -> tuple[InstructionDescription, ...]:
    """All instructions of a method."""
    #: what has a value already, so that a delegate that only its backend knows may read it
    known = {*method.inputs}
    known.update(
        number
        for number, value in enumerate(method.values)
        if is_constant(value) or getattr(value, "data", None) is not None
    )
    last = _last_mentions(method)
    places = Places(method)
    found = []
    for position, call in enumerate(method.instructions):
        origin = sources.of_instruction(position)
        if isinstance(call, DelegateCall) and not delegates[call.delegate].is_open:
            known.update(_views_read(call.args, position, known, places, last))
        described = _described(position, call, method, delegates, known, origin)
        known.update(flat(method, described.outputs))
        places.read(flat(method, described.inputs))
        places.write(flat(method, described.outputs))
        found.append(described)
    return tuple(found)


def _last_mentions(method: Method) -> dict[int, int]:
    """The last instruction that names a value."""
    last: dict[int, int] = {}
    for position, call in enumerate(method.instructions):
        if isinstance(call, (KernelCall, DelegateCall)):
            last.update(dict.fromkeys(flat(method, call.args), position))
        elif isinstance(call, MoveCall):
            last.update({call.source: position, call.target: position})
        elif isinstance(call, JumpFalseCall):
            last[call.condition] = position
    last.update(dict.fromkeys(flat(method, method.outputs), len(method.instructions)))
    return last


def _views_read(
    args: Sequence[int],
    position: int,
    known: Collection[int],
    places: Places,
    last: Mapping[int, int],
) -> list[int]:
    """The arguments of a delegate that nothing has written, but which are views of what was. An
    output may lie where something was, too; but then somebody has read that, and somebody reads
    the output. The last argument is an output."""
    found = []
    for number in args[:-1]:
        if number in known:
            continue
        owner = places.owner(number)
        if owner is None or not (places.is_unread(owner) or last.get(number) == position):
            break
        found.append(number)
    return found


def views(method: Method, instructions: Sequence[InstructionDescription]) -> dict[int, int]:
    """The values that lie where others do, which nothing writes, and what they are views of."""
    steps = [(flat(method, one.inputs), flat(method, one.outputs)) for one in instructions]
    return find_views(method, [*steps, (flat(method, method.outputs), ())])


def states(method: Method, instructions: Sequence[InstructionDescription]) -> frozenset[int]:
    """The values that keep what they hold until the next call: planned tensors that have data to
    begin with, or that are read before an instruction writes them."""
    inputs = frozenset(method.inputs)
    read: dict[int, int] = {}
    written: dict[int, int] = {}
    for one in instructions:
        for number in flat(method, one.inputs):
            read.setdefault(number, one.position)
        for number in flat(method, one.outputs):
            written.setdefault(number, one.position)
    return frozenset(
        number
        for number, value in enumerate(method.values)
        if isinstance(value, Tensor)
        and value.allocation is not None
        and number not in inputs
        and (
            value.data is not None
            # what is only ever read is another view of somebody's memory
            or (number in read and number in written and read[number] < written[number])
        )
    )


def _described(
    position: int,
    call: Instruction,
    method: Method,
    delegates: Sequence[DelegateDescription],
    known: set[int],
    origin: Origin,
) -> InstructionDescription:
    if isinstance(call, KernelCall):
        name = str(method.operators[call.operator])
        # It alone returns nothing: it puts a slice into its first argument.
        in_place = name == COPY_INDEX and len(call.args) == 3
        inputs, outputs = (
            (call.args, call.args[:1]) if in_place else _kernel_values(method, call.args)
        )
        return InstructionDescription(
            position, "kernel", name, f"{name} {list(call.args)}", inputs, outputs, call.args,
            origin=origin,
        )  # fmt: skip
    if isinstance(call, DelegateCall):
        delegate = delegates[call.delegate]
        inputs, outputs = _delegate_values(delegate, call.args, known)
        return InstructionDescription(
            position, "delegate", delegate.backend, f"delegate {call.delegate} {list(call.args)}",
            inputs, outputs, call.args, call.delegate, origin=origin,
        )  # fmt: skip
    if isinstance(call, MoveCall):
        return InstructionDescription(
            position, "move", "move", f"move {call.source} -> {call.target}", (call.source,),
            (call.target,), (call.source, call.target), origin=origin,
        )  # fmt: skip
    if isinstance(call, JumpFalseCall):
        text = f"jump to {call.destination} if {call.condition} is false"
        return InstructionDescription(
            position, "jump", "jump if false", text, (call.condition,), (), (call.condition,),
            destination=call.destination, origin=origin,
        )  # fmt: skip
    return InstructionDescription(
        position, "free", "free", f"free {call.value}", arguments=(call.value,), origin=origin
    )


def _kernel_values(
    method: Method, args: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a kernel reads and writes: the last argument is what it returns, a list where that is
    several tensors; before it those stand as out arguments. A kernel that works in place returns
    an input."""
    if not args:
        return (), ()
    last = args[-1]
    outputs = flat(method, (last,)) or (last,)
    rest = args[:-1]
    if rest[-len(outputs) :] == outputs and len(rest) > len(outputs):
        rest = rest[: -len(outputs)]
    elif rest[-1:] == (last,) and len(rest) > 1:
        rest = rest[:-1]
    return rest, outputs


def _delegate_values(
    delegate: DelegateDescription, args: tuple[int, ...], known: set[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a call of a delegate reads and writes. Inputs stand before outputs; of a backend that we
    cannot look into, what no instruction before has written must be an output."""
    if delegate.is_open and len(args) == len(delegate.inputs) + len(delegate.outputs):
        inputs = tuple(args[i] for i in delegate.inputs if i < len(args))
        return inputs, tuple(args[i] for i in delegate.outputs if i < len(args))
    start = next((i for i, value in enumerate(args) if value not in known), len(args))
    return args[:start], args[start:]


def flat(method: Method, numbers: Iterable[int]) -> tuple[int, ...]:
    """Numbers of values with lists of tensors replaced by their items."""
    found: list[int] = []
    for number in numbers:
        value = method.values[number] if 0 <= number < len(method.values) else None
        if isinstance(value, (TensorList, OptionalTensorList)):
            found += [item for item in value.items if item >= 0]
        else:
            found.append(number)
    return tuple(found)
