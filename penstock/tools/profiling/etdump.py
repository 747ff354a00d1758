"""A profile as an ETDump: the calls of a method, their instructions, the nodes of delegates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.formats import etdump
from penstock.formats.program import (
    DelegateCall,
    FreeCall,
    Instruction,
    JumpFalseCall,
    KernelCall,
    Method,
    MoveCall,
)
from penstock.runtime.profile import InstructionProfile
from penstock.tools.profiling.measure import Call

#: Calls beyond so many say nothing new; the Inspector takes long to read them.
MOST_CALLS = 100
_EVENTS: dict[type[Instruction], str] = {
    KernelCall: etdump.OPERATOR,
    DelegateCall: etdump.DELEGATE,
    JumpFalseCall: etdump.JUMP,
    MoveCall: etdump.MOVE,
    FreeCall: etdump.FREE,
}


def etdump_of(method: Method, calls: Sequence[Call]) -> bytes:
    """The ETDump of the first calls of ``method``. Durations were measured, not begins: what is in
    a call lies end to end from its begin. What an instruction did in a loop is one event."""
    runs = []
    begin = 0
    for call in calls[:MOST_CALLS]:
        end = begin + round(1e9 * call.seconds)
        events = [etdump.Event(etdump.EXECUTE, begin, end)]
        position = begin
        for one in call.profile.instructions:
            if one.calls:
                events += _instruction(method, one, position)
                position += round(1e9 * one.seconds)
        runs.append(events)
        begin = end
    return etdump.write_etdump(runs)


def _instruction(method: Method, one: InstructionProfile, begin: int) -> Iterator[etdump.Event]:
    instruction = method.instructions[one.position]
    end = begin + round(1e9 * one.seconds)
    yield etdump.Event(_EVENTS[type(instruction)], begin, end, one.position)
    if isinstance(instruction, KernelCall):
        name = etdump.kernel_event(str(method.operators[instruction.operator]))
        yield etdump.Event(name, begin, end, one.position)
    for node in one.nodes:
        next_begin = min(begin + round(1e9 * node.seconds), end)
        name = node.kind if node.position < 0 else etdump.node_id(node.position, node.kind)
        yield etdump.Event(name, begin, next_begin, one.position, name)
        begin = next_begin
