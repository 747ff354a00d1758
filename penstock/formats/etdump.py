"""Profiles as ETDump files, which ExecuTorch's ``Inspector`` opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.formats import schema
from penstock.formats.flatbuffer import Table
from penstock.formats.flatbuffer_builder import encode

#: What ExecuTorch's runtime calls events: a whole call, and an instruction by its kind.
EXECUTE = "Method::execute"
OPERATOR, DELEGATE = "OPERATOR_CALL", "DELEGATE_CALL"
JUMP, MOVE, FREE = "JF_CALL", "MOVE_CALL", "FREE_CALL"
#: And the events of one call together.
RUN = "Execute"


@dataclass(frozen=True)
class Event:
    """Something that took from ``start`` to ``end``, nanoseconds of any clock. It belongs to the
    method's instruction of that number, unless that is -1. ``debug_id`` names what happened inside
    a delegate; it is empty elsewhere."""

    name: str
    start: int
    end: int
    instruction: int = -1
    debug_id: str = ""


def node_id(position: int, kind: str) -> str:
    """The debug id of a delegate's node, by its position in the payload; an ETRecord has the same:
    ``12: CONV_2D``."""
    return f"{position}: {kind}"


def kernel_event(operator: str) -> str:
    """The name of the event of a kernel, as ExecuTorch's generated code has it: that of
    ``aten::add.out`` is ``native_call_add.out``."""
    return f"native_call_{operator.partition('::')[2] or operator}"


def write_etdump(runs: Sequence[Sequence[Event]]) -> bytes:
    """The file: a run for each call of a method."""
    tables = [Table(name=RUN, events=[_event(event) for event in run]) for run in runs]
    root = Table(version=0, run_data=tables)
    return encode(schema.load("etdump"), root, size_prefixed=True)


def _event(event: Event) -> Table:
    return Table(
        profile_event=Table(
            # an event inside a delegate goes by its id
            name=None if event.debug_id else event.name,
            chain_index=0 if event.instruction >= 0 else -1,
            instruction_id=event.instruction,
            delegate_debug_id_str=event.debug_id or None,
            start_time=event.start,
            end_time=event.end,
        )
    )
