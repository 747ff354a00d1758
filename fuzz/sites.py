"""Where a flatbuffer holds what: every scalar, offset, length and table layout, by its field.

The walk trusts the buffer, which is one that a compiler wrote; what is made of it by
:mod:`fuzz.mutations` is hostile. Binary layout: https://flatbuffers.dev/internals/.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.formats.payload_reader import HEADER as PAYLOAD_HEADER
from penstock.formats.payload_reader import MAGIC as PAYLOAD_MAGIC
from penstock.formats.program_header import read_frame
from penstock.formats.schema import SCALARS, Field, Schema, TableType, load


@dataclass(frozen=True)
class Site:
    """A number in a file: its position in bytes and its ``struct`` code. ``enum`` has the numbers
    that its field knows, if it has names for them."""

    position: int
    code: str
    enum: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return struct.calcsize(f"<{self.code}")


#: Sites by what they are: ``Tensor.sizes length``, ``XNNAdd.flags``, ``header`` ...
Sites = Mapping[str, list[Site]]


def sites_of_program(data: bytes) -> Sites:
    """All sites of a ``.pte`` file: its header, its flatbuffer, and each XNNPACK payload's."""
    found: dict[str, list[Site]] = defaultdict(list)
    frame = read_frame(memoryview(data))
    found["program header"] += [Site(0, "I"), Site(12, "I"), *(Site(p, "Q") for p in (16, 24, 32))]
    found["program identifier"] += [Site(p, "B") for p in range(4, 12)]
    _Walk(load("program"), data, 0, found).root()
    at = data.find(PAYLOAD_MAGIC)
    while at >= 4:
        _payload(data, at - 4, found)
        at = data.find(PAYLOAD_MAGIC, at + 4)
    if frame.segment_base:
        found["segment bytes"] += _spread(frame.segment_base, frame.segment_end)
    return found


def sites_of_data_file(data: bytes) -> Sites:
    """All sites of a ``.ptd`` file."""
    found: dict[str, list[Site]] = defaultdict(list)
    found["data file header"] += [Site(0, "I"), Site(12, "I")]
    found["data file header"] += [Site(p, "Q") for p in (16, 24, 32, 40)]
    _Walk(load("data"), data, 0, found).root()
    return found


def _payload(data: bytes, start: int, found: dict[str, list[Site]]) -> None:
    _, magic, _, offset, size, _, _ = PAYLOAD_HEADER.unpack_from(data, start)
    if magic != PAYLOAD_MAGIC or start + offset + size > len(data):
        return  # these four bytes are something else's
    found["payload header"] += [
        Site(start + 8, "H"), *(Site(start + p, "I") for p in (10, 14, 18)), Site(start + 22, "Q"),
    ]  # fmt: skip
    _Walk(load("xnnpack"), data, start + offset, found).root()


def _spread(start: int, end: int, count: int = 4096) -> list[Site]:
    step = max(1, (end - start) // count)
    return [Site(position, "B") for position in range(start, end, step)]


class _Walk:
    def __init__(
        self, schema: Schema, data: bytes, base: int, found: dict[str, list[Site]]
    ) -> None:
        self.schema, self.data, self.base, self.found = schema, data, base, found
        self.seen: set[tuple[int, str]] = set()

    def read(self, code: str, position: int) -> int:
        number: int = struct.unpack_from(f"<{code}", self.data, position)[0]
        return number

    def follow(self, position: int, name: str) -> int:
        self.found[f"{name} offset"].append(Site(position, "I"))
        return position + self.read("I", position)

    def root(self) -> None:
        self.table(
            self.follow(self.base, f"{self.schema.root} root"), self.schema.tables[self.schema.root]
        )

    def table(self, position: int, type_: TableType) -> None:
        if (position, type_.name) in self.seen:
            return
        self.seen.add((position, type_.name))
        layout = position - self.read("i", position)
        size = self.read("H", layout)
        self.found[f"{type_.name} layout"] += [
            Site(position, "i"), *(Site(p, "H") for p in range(layout, layout + size, 2))
        ]  # fmt: skip
        offsets = {
            field.name: self.read("H", layout + 4 + 2 * field.slot)
            for field in type_.fields
            if 4 + 2 * field.slot < size
        }
        for field in type_.fields:
            if offset := offsets.get(field.name):
                member = offsets.get(f"{field.name}_type", 0)
                self.field(position + offset, type_, field, position + member)

    def field(self, position: int, type_: TableType, field: Field, member_at: int) -> None:
        name = f"{type_.name}.{field.name}"
        if field.kind == "scalar":
            enum = tuple(sorted(field.enum.numbers)) if field.enum else ()
            self.found[name].append(Site(position, SCALARS[field.type][0], enum))
        elif field.kind == "string":
            self.numbers(self.follow(position, name), name, "B")
        elif field.kind == "table":
            self.table(self.follow(position, name), self.schema.tables[field.type])
        elif field.kind == "union":
            members = self.schema.unions[field.type].members
            if number := self.data[member_at]:
                target = self.schema.tables[members[number - 1][1]]
                self.table(self.follow(position, name), target)
        else:
            self.vector(self.follow(position, name), name, field)

    def vector(self, start: int, name: str, field: Field) -> None:
        if field.element == "scalar":
            self.numbers(start, name, SCALARS[field.type][0])
            return
        self.found[f"{name} length"].append(Site(start, "I"))
        for index in range(self.read("I", start)):
            target = self.follow(start + 4 + 4 * index, name)
            if field.element == "string":
                self.numbers(target, name, "B")
            else:
                self.table(target, self.schema.tables[field.type])

    def numbers(self, start: int, name: str, code: str) -> None:
        self.found[f"{name} length"].append(Site(start, "I"))
        size = struct.calcsize(f"<{code}")
        count = self.read("I", start)
        step = max(1, count // 512)  # bytes of constants need no more
        self.found[name] += [Site(start + 4 + size * i, code) for i in range(0, count, step)]
