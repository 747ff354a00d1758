"""A program, described: its methods with all that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from penstock.errors import InvalidProgramError
from penstock.formats.program import Method, Program
from penstock.formats.sources import KEY, MethodSources, decode_sources
from penstock.notebook import Table, render
from penstock.tools.describe.constants import (
    Constant,
    delegate_constants,
    method_constants,
    other_data,
)
from penstock.tools.describe.delegates import DelegateDescription, describe_delegate
from penstock.tools.describe.instructions import (
    InstructionDescription,
    describe_instructions,
    states,
    views,
)
from penstock.tools.describe.memory import MemoryPlan, describe_memory
from penstock.tools.describe.quantizations import known_quantizations
from penstock.tools.describe.values import ValueDescription, method_values

#: Constants that a notebook shows.
MOST_SHOWN = 8


@dataclass(frozen=True)
class Delegation:
    """How much of a method its delegates do. ``delegated`` counts their nodes, ``outside`` the
    kernels that are called; ``unknown`` counts the delegates whose nodes nobody but their backend
    knows."""

    delegated: int
    outside: int
    unknown: int

    @property
    def share(self) -> float | None:
        """Nodes in delegates of all nodes; None where a delegate's are not known, or there are
        none at all."""
        whole = self.delegated + self.outside
        return self.delegated / whole if whole and not self.unknown else None


@dataclass(frozen=True)
class MethodDescription:
    """A method. ``inputs`` and ``outputs`` are numbers of ``values``."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    values: tuple[ValueDescription, ...]
    instructions: tuple[InstructionDescription, ...]
    delegates: tuple[DelegateDescription, ...]
    delegation: Delegation
    memory: MemoryPlan


@dataclass(frozen=True)
class ProgramDescription:
    """A program. ``bytes`` are those of the file; ``constants`` come the largest first, each piece
    of data once, whoever reads it; ``named_data`` has the sizes of the blobs that delegates look up
    by name. With ``data_files`` some of the constants are in files of their own."""

    path: str
    bytes: int
    version: int
    methods: tuple[MethodDescription, ...]
    constants: tuple[Constant, ...]
    named_data: Mapping[str, int]
    data_files: bool = False

    @property
    def constant_bytes(self) -> int:
        return sum(constant.bytes for constant in self.constants)

    @property
    def size(self) -> str:
        """``4,240 bytes, 1,360 of them constants``"""
        if self.data_files:
            return f"{self.bytes:,} bytes; {self.constant_bytes:,} of constants, also in data files"
        return f"{self.bytes:,} bytes, {self.constant_bytes:,} of them constants"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON. Inputs and outputs of methods are whole values there."""
        found = asdict(self)
        found["constant_bytes"] = self.constant_bytes
        for method, plain in zip(self.methods, found["methods"], strict=True):
            for key in ("inputs", "outputs"):
                plain[key] = [plain["values"][number] for number in plain[key]]
            plain["delegation"]["share"] = method.delegation.share
            plain["memory"]["peak"] = method.memory.peak
        return found

    def _repr_html_(self) -> str:
        methods = [
            (
                method.name,
                ", ".join(method.values[number].text for number in method.inputs),
                ", ".join(method.values[number].text for number in method.outputs),
                len(method.instructions),
                _share(method.delegation),
            )
            for method in self.methods
        ]
        constants = [(f"{one.bytes:,}", one.name, one.dtype) for one in self.constants[:MOST_SHOWN]]
        headings = ("method", "inputs", "outputs", "instructions", "delegated")
        tables = [Table(f"{self.path}: {self.size}", headings, methods)]
        if constants:
            tables.append(Table("Largest constants", ("bytes", "name", "type"), constants))
        return render(*tables)


def _share(delegation: Delegation) -> str:
    return "" if delegation.share is None else f"{delegation.share:.1%}"


def describe(
    program: Program, path: str = "", size: int = 0, *, data_files: bool = False
) -> ProgramDescription:
    """What ``program`` holds; ``path`` and ``size`` are those of its file. ``data_files`` says that
    it was given some; tensors that need one are seen without."""
    sources = _sources(program)
    seen: set[int] = set()
    methods, constants = [], []
    for method in program.methods:
        described, found = _method(method, program, sources.get(method.name, MethodSources()), seen)
        methods.append(described)
        constants += found
    constants += other_data(program, seen)
    return ProgramDescription(
        path,
        size,
        program.version,
        tuple(methods),
        tuple(sorted(constants, key=lambda constant: -constant.bytes)),
        {name: len(blob) for name, blob in program.named_data.items()},
        data_files or any(value.external for method in methods for value in method.values),
    )


def _sources(program: Program) -> Mapping[str, MethodSources]:
    try:
        return decode_sources(program.named_data[KEY]) if KEY in program.named_data else {}
    except InvalidProgramError:
        return {}  # nothing depends on it


def _method(
    method: Method, program: Program, sources: MethodSources, seen: set[int]
) -> tuple[MethodDescription, list[Constant]]:
    opened = [
        describe_delegate(number, delegate, program.named_data, partial(sources.of_node, number))
        for number, delegate in enumerate(method.delegates)
    ]
    delegates = tuple(one.description for one in opened)
    instructions = describe_instructions(method, delegates, sources)
    view_of = views(method, instructions)
    values = method_values(
        method,
        known_quantizations(method, instructions, delegates),
        states(method, instructions),
        view_of,
    )
    constants = method_constants(method, instructions, seen)
    for one in opened:
        constants += delegate_constants(method, one, instructions, seen)
    described = MethodDescription(
        method.name,
        tuple(method.inputs),
        tuple(method.outputs),
        values,
        instructions,
        delegates,
        Delegation(
            sum(len(delegate.nodes) for delegate in delegates),
            sum(one.kind == "kernel" for one in instructions),
            sum(not delegate.is_open for delegate in delegates),
        ),
        describe_memory(method, instructions, [value.kind for value in values], view_of),
    )
    return described, constants
