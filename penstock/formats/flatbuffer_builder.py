"""Plain tables to flatbuffers, driven by the schema: the inverse of
:func:`penstock.formats.flatbuffer.decode`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from flatbuffers import number_types
from flatbuffers.builder import Builder

from penstock.formats.flatbuffer import Table
from penstock.formats.schema import SCALARS, Field, Schema, TableType

_FLAGS = {
    "?": number_types.BoolFlags,
    "b": number_types.Int8Flags,
    "B": number_types.Uint8Flags,
    "h": number_types.Int16Flags,
    "H": number_types.Uint16Flags,
    "i": number_types.Int32Flags,
    "I": number_types.Uint32Flags,
    "f": number_types.Float32Flags,
    "q": number_types.Int64Flags,
    "Q": number_types.Uint64Flags,
    "d": number_types.Float64Flags,
}


def encode(schema: Schema, root: Table, *, size_prefixed: bool = False) -> bytes:
    """The bytes of ``root`` with the schema's identifier, to be placed at a multiple of 16;
    ``size_prefixed``: after their number, in four bytes.

    A field that a table does not name, or that is ``None``, is left out; so is a scalar that has
    its default. Equal texts are written once.

    Raises:
        ValueError: a table names a field that its type does not have.
        TypeError: a number does not fit its field.
    """
    writer = _Writer(schema)
    root_offset = writer.table(root, schema.tables[schema.root])
    writer.out.minalign = max(writer.out.minalign, 16)
    finish = writer.out.FinishSizePrefixed if size_prefixed else writer.out.Finish
    finish(root_offset, file_identifier=schema.identifier.encode())
    return bytes(writer.out.Output())


class _Writer:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.out = Builder(4096)

    def table(self, table: Table, type_: TableType) -> int:
        values = table.__dict__
        if unknown := values.keys() - {field.name for field in type_.fields}:
            raise ValueError(f"{type_.name} has no field {', '.join(sorted(unknown))}")
        given = [
            (field, values[field.name])
            for field in type_.by_size
            if values.get(field.name) is not None
        ]
        # Everything that the table refers to is written before it.
        parts = [
            value if field.kind == "scalar" else self.part(field, value, values)
            for field, value in given
        ]
        out = self.out
        out.StartObject(type_.slots)
        for (field, _), part in zip(given, parts, strict=True):
            if field.kind == "scalar":
                flags = _FLAGS[SCALARS[field.type][0]]
                out.PrependSlot(flags, field.slot, part, _default(field, part))
            else:
                out.PrependUOffsetTRelativeSlot(field.slot, part, 0)
        offset: int = out.EndObject()
        return offset

    def part(self, field: Field, value: Any, values: dict[str, Any]) -> int:
        if field.kind == "string":
            return self.string(value)
        if field.kind == "table":
            return self.table(value, self.schema.tables[field.type])
        if field.kind == "union":
            _, name = self.schema.unions[field.type].members[values[f"{field.name}_type"] - 1]
            return self.table(value, self.schema.tables[name])
        if field.element == "scalar":
            return self.numbers(field, value)
        if field.element == "string":
            return self.offsets([self.string(item) for item in value])
        type_ = self.schema.tables[field.type]
        return self.offsets([self.table(item, type_) for item in value])

    def string(self, text: str) -> int:
        offset: int = self.out.CreateSharedString(text)
        return offset

    def offsets(self, offsets: list[int]) -> int:
        self.out.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.out.PrependUOffsetTRelative(offset)
        end: int = self.out.EndVector()
        return end

    def numbers(self, field: Field, value: Any) -> int:
        code, size = SCALARS[field.type]
        if isinstance(value, (bytes, bytearray, memoryview)):
            data = memoryview(value).cast("B")
        else:
            data = memoryview(np.array(value, dtype=f"<{code}").tobytes())
        out = self.out
        out.StartVector(1, len(data), max(size, field.align))
        out.head -= len(data)
        out.Bytes[out.head : out.head + len(data)] = data
        out.vectorNumElems = len(data) // size
        end: int = out.EndVector()
        return end


def _default(field: Field, value: Any) -> Any:
    """The value that need not be written; -0.0 equals 0.0 but has to be."""
    if isinstance(value, float) and value == 0 and math.copysign(1, value) < 0:
        return None
    return field.default
