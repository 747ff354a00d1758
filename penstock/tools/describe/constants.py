"""The constants of a program by size: of its methods, in its delegates, in data files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penstock.formats.program import Buffer, Method, Program, Tensor
from penstock.formats.sources import KEY as SOURCES
from penstock.graph.kinds import NodeKind
from penstock.tools.describe.delegates import NodeDescription, OpenDelegate
from penstock.tools.describe.instructions import InstructionDescription
from penstock.tools.describe.values import is_constant

#: What a constant is to the node that reads it, by its place among the inputs of weighted nodes.
_ROLES = {1: "weight", 2: "bias"}


@dataclass(frozen=True)
class Constant:
    """A constant. ``name`` is its name in the file, or the module that reads it and what it is
    there. ``method`` is empty for named data that no delegate of XNNPACK's reads; ``delegate`` and
    ``instruction`` are None for constants that are none's; ``node`` is the position of the first
    node that reads it, ``value`` its number."""

    name: str
    bytes: int
    dtype: str = ""
    shape: tuple[int, ...] | None = None
    method: str = ""
    delegate: int | None = None
    value: int | None = None
    node: int | None = None
    instruction: int | None = None


def method_constants(
    method: Method, instructions: Sequence[InstructionDescription], seen: set[int]
) -> list[Constant]:
    """Constant tensors among a method's values whose data is not among ``seen`` (addresses), which
    they are added to."""
    readers: dict[int, InstructionDescription] = {}
    for one in instructions:
        for number in one.arguments:
            readers.setdefault(number, one)
    found = []
    for number, value in enumerate(method.values):
        if not isinstance(value, Tensor) or not is_constant(value):
            continue
        if value.data is not None and not _is_new(value.data, seen):
            continue
        reader = readers.get(number)
        where = reader and (reader.origin.module or reader.label)
        found.append(
            Constant(
                value.name or f"{where or 'value'} {number}",
                value.nbytes if value.data is None else len(value.data),
                value.dtype.name.lower(),
                value.shape,
                method.name,
                value=number,
                instruction=reader.position if reader else None,
            )
        )
    return found


def delegate_constants(
    method: Method,
    delegate: OpenDelegate,
    instructions: Sequence[InstructionDescription],
    seen: set[int],
) -> list[Constant]:
    """Constants in a delegate's graph whose data is not among ``seen`` (addresses), which they are
    added to."""
    if delegate.graph is None:
        return []
    number = delegate.description.number
    call = next((one.position for one in instructions if one.delegate == number), None)
    readers: dict[int, tuple[NodeDescription, int]] = {}
    for node in delegate.description.nodes:
        for place, value_id in enumerate(node.inputs):
            readers.setdefault(value_id, (node, place))
    found = []
    for value, described in zip(delegate.graph.values, delegate.description.values, strict=True):
        if value.data is None or not _is_new(value.data, seen):
            continue
        reader = readers.get(value.id)
        name = f"value {value.id}" if reader is None else _name(*reader)
        found.append(
            Constant(
                name,
                described.bytes,
                described.dtype,
                described.shape,
                method.name,
                number,
                value.id,
                reader[0].position if reader else None,
                call,
            )
        )
    return found


def _name(node: NodeDescription, place: int) -> str:
    """``features.0.0 weight``"""
    weighted = NodeKind[node.kind.upper()].traits.weighted
    role = _ROLES.get(place, "constant") if weighted else "constant"
    return f"{node.origin.module or f'{node.kind} #{node.position}'} {role}"


def other_data(program: Program, seen: set[int]) -> list[Constant]:
    """Named data whose bytes are in nothing above: of other backends, for instance."""
    return [
        Constant(name, len(data))
        for name, data in program.named_data.items()
        if name != SOURCES and _is_new(data, seen)
    ]


def _is_new(data: Buffer | np.ndarray, seen: set[int]) -> bool:
    """Whether the bytes are at an address that is not among ``seen``, to which it is added."""
    if len(data) == 0:
        return True
    address = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    if address in seen:
        return False
    seen.add(address)
    return True
