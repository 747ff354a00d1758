"""Flatbuffers to plain tables, every offset checked before it is followed.

The Python flatbuffers library follows offsets as it finds them; here the bytes may be hostile.
:func:`decode` walks the whole buffer once, driven by the schema, and returns nested
:class:`Table` objects; nothing outside the buffer is touched and the work is bounded by its size.
Binary layout: https://flatbuffers.dev/internals/.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

from penstock.errors import InvalidProgramError
from penstock.formats.schema import SCALARS, Field, Schema, TableType

#: No honest file comes near these; they bound time and memory on hostile ones. References are
#: the elements of lists of tables and of texts, numbers those of other lists.
MAX_TABLES = 1_000_000
MAX_REFERENCES = 1_000_000
MAX_NUMBERS = 1 << 24

_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")


class Table(SimpleNamespace):
    """A table: one attribute a field. An absent scalar has its default, anything else ``None``.

    Vectors of tables and of strings are lists, vectors of numbers tuples, vectors of bytes
    memoryviews into the buffer. A union field ``x`` comes with ``x_type``, the member's number.
    """


def other_version(identifier: bytes, known: bytes) -> str | None:
    """What version a file's four-byte ``identifier`` names, where it is of the same format as
    ``known`` and of another version; ``None`` where it is no such identifier."""
    same_format = len(identifier) == 4 and identifier[:2] == known[:2]
    return identifier.decode("ascii") if same_format and identifier[2:].isalnum() else None


def decode(schema: Schema, data: memoryview, what: str) -> Table:
    """The root table of ``data`` (bytes, format ``B``).

    Raises:
        InvalidProgramError: something in it lies outside the buffer, its parts overlap, it has an
            unknown enum value or union member, or a string that is not UTF-8. ``what`` names the
            buffer in the message.
    """
    decoder = _Decoder(schema, data, what)
    if len(data) < 8:
        raise decoder.error(f"{len(data)} bytes are too few")
    try:
        return decoder.table(decoder.follow(0), schema.tables[schema.root])
    finally:
        decoder.forget()


_Read: TypeAlias = Callable[[int], Any]


class _Layout(NamedTuple):
    """The fields that a table of ``size`` bytes has. ``unpack`` reads the numbers ``names``;
    ``others`` are name, offset from the table's start and reader."""

    size: int
    unpack: Callable[[memoryview, int], tuple[Any, ...]]
    names: tuple[str, ...]
    others: tuple[tuple[str, int, _Read], ...]


class _Decoder:
    """One walk over one buffer. Positions are absolute; a reader takes that of the field."""

    def __init__(self, schema: Schema, data: memoryview, what: str) -> None:
        self.schema = schema
        self.data = data
        self.size = len(data)
        self.what = what
        # Objects may be shared (and are read once) but those of an honest buffer do not overlap.
        self.bytes_left = 2 * self.size + 1024
        self.references_left = MAX_REFERENCES
        self.numbers_left = MAX_NUMBERS
        self.tables: dict[tuple[int, str], Table] = {}
        self.views: dict[int, memoryview] = {}
        self.strings: dict[int, str] = {}
        self.vtables: dict[int, tuple[int, ...]] = {}
        self.layouts: dict[tuple[int, str], _Layout] = {}
        self.readers: dict[str, list[tuple[Field, _Read]]] = {}
        self.defaults: dict[str, dict[str, Any]] = {}

    def forget(self) -> None:
        """Lets go of the readers, which know the decoder as it knows them: else every table would
        wait for the garbage collector."""
        self.readers.clear()
        self.layouts.clear()
        self.tables.clear()

    def error(self, problem: str) -> InvalidProgramError:
        return InvalidProgramError(f"{self.what} is damaged or cut short: {problem}")

    def unknown(self, number: int, name: str) -> InvalidProgramError:
        """Fields may be added to a format, and are passed over; a new number cannot be."""
        return InvalidProgramError(
            f"{self.what} is newer than this version of Penstock, or damaged: {number} is no "
            f"{name} that it knows; update Penstock, or get the file again"
        )

    def charge(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise self.error("its parts overlap")

    def follow(self, position: int) -> int:
        """The target of the offset at ``position``; there is room for four bytes there."""
        offset: int = _U32.unpack_from(self.data, position)[0]
        target = position + offset
        if not offset or target > self.size - 4:
            raise self.error(f"offset {offset} at byte {position} leads outside")
        return target

    def table(self, position: int, type_: TableType) -> Table:
        # A schema's types do not nest in themselves, so the recursion is as deep as the schema.
        key = (position, type_.name)
        table = self.tables.get(key)
        if table is None:
            if len(self.tables) == MAX_TABLES:
                raise self.error(f"it has more than {MAX_TABLES} tables")
            layout = self.layout(position, type_)
            table = self.tables[key] = Table()
            values = table.__dict__
            values.update(self.defaults[type_.name])
            values.update(zip(layout.names, layout.unpack(self.data, position), strict=True))
            for name, offset, read in layout.others:
                values[name] = read(position + offset)
        return table

    def layout(self, position: int, type_: TableType) -> _Layout:
        start = position - _I32.unpack_from(self.data, position)[0]
        layout = self.layouts.get((start, type_.name))
        if layout is None:
            _, table_size, *offsets = self.vtables.get(start) or self.vtable(start)
            if position + table_size > self.size:
                raise self.error(f"{type_.name} at byte {position} ends outside")
            layout = self.layouts[start, type_.name] = self.present(type_, table_size, offsets)
        elif position + layout.size > self.size:
            raise self.error(f"{type_.name} at byte {position} ends outside")
        self.charge(layout.size + 4)
        return layout

    def vtable(self, start: int) -> tuple[int, ...]:
        """Of the vtable at ``start``: its size, the size of its tables, the fields' offsets."""
        if not 0 <= start <= self.size - 4:
            raise self.error(f"a table's layout would be at byte {start}")
        size = _U16.unpack_from(self.data, start)[0]
        if size < 4 or size % 2 or start + size > self.size:
            raise self.error(f"the table layout at byte {start} has {size} bytes")
        self.charge(size)
        self.vtables[start] = entries = struct.unpack_from(f"<{size // 2}H", self.data, start)
        return entries

    def present(self, type_: TableType, table_size: int, offsets: list[int]) -> _Layout:
        numbers: list[tuple[int, Field]] = []
        others = []
        type_offset = 0
        for field, read in self.fields(type_):
            offset = offsets[field.slot] if field.slot < len(offsets) else 0
            if offset and (offset < 4 or offset + field.size > table_size):
                raise self.error(f"{type_.name}.{field.name} lies outside its table")
            if field.kind == "union" and offset:
                if not type_offset:
                    raise self.error(f"{type_.name}.{field.name} has no type")
                read = self.union(field, type_offset - offset)
            type_offset = offset
            if offset and field.kind == "scalar" and field.enum is None:
                numbers.append((offset, field))
            elif offset:
                others.append((field.name, offset, read))
        format, names, end = "<", [], 0
        for offset, field in sorted(numbers, key=itemgetter(0)):
            if offset < end:  # where another number lies
                others.append((field.name, offset, self.scalar(field)))
                continue
            format += f"{offset - end}x{SCALARS[field.type][0]}"
            names.append(field.name)
            end = offset + field.size
        return _Layout(table_size, struct.Struct(format).unpack_from, tuple(names), tuple(others))

    def fields(self, type_: TableType) -> list[tuple[Field, _Read]]:
        fields = self.readers.get(type_.name)
        if fields is None:
            live = [field for field in type_.fields if not field.deprecated]
            self.defaults[type_.name] = {field.name: field.default for field in live}
            fields = self.readers[type_.name] = [(field, self.reader(field)) for field in live]
        return fields

    def reader(self, field: Field) -> _Read:
        kind = field.kind
        if kind == "scalar":
            return self.scalar(field)
        if kind == "string":
            return self.string
        if kind == "table":
            type_ = self.schema.tables[field.type]
            return lambda position: self.table(self.follow(position), type_)
        if kind == "union":
            return self.union(field, 0)
        if field.element == "scalar":
            return self.view if field.type == "ubyte" else self.numbers(field)
        element = self.reader(Field(field.name, field.element or "table", field.type, field.slot))

        def read(position: int) -> list[Any]:
            span = self.elements(position, 4)
            self.references_left -= len(span)
            if self.references_left < 0:
                raise self.error(f"its lists have more than {MAX_REFERENCES} elements")
            return [element(p) for p in span]

        return read

    def scalar(self, field: Field) -> _Read:
        unpack = struct.Struct("<" + SCALARS[field.type][0]).unpack_from
        data, enum = self.data, field.enum
        if enum is None:
            return lambda position: unpack(data, position)[0]

        def read(position: int) -> Any:
            number = unpack(data, position)[0]
            if number not in enum.numbers:
                raise self.unknown(number, enum.name)
            return number

        return read

    def union(self, field: Field, type_at: int) -> _Read:
        """``type_at``: where the member's number lies, relative to the offset of the table."""
        union = self.schema.unions[field.type]
        types = [self.schema.tables[table] for _, table in union.members]

        def read(position: int) -> Any:
            number = self.data[position + type_at]
            if number == 0:
                return None
            if number > len(types):
                raise self.unknown(number, union.name)
            return self.table(self.follow(position), types[number - 1])

        return read

    def elements(self, position: int, size: int) -> range:
        """The positions of the elements, ``size`` bytes each, of the vector."""
        start = self.follow(position) + 4
        count = _U32.unpack_from(self.data, start - 4)[0]
        if start + count * size > self.size:
            raise self.error(f"a list of {count} at byte {start - 4} ends outside")
        self.charge(4 + count * size)
        return range(start, start + count * size, size)

    def numbers(self, field: Field) -> _Read:
        code, size = SCALARS[field.type]

        def read(position: int) -> tuple[Any, ...]:
            span = self.elements(position, size)
            self.numbers_left -= len(span)
            if self.numbers_left < 0:
                raise self.error(f"its lists have more than {MAX_NUMBERS} numbers")
            return struct.unpack_from(f"<{len(span)}{code}", self.data, span.start)

        return read

    def view(self, position: int) -> memoryview:
        start = self.follow(position) + 4
        view = self.views.get(start)
        if view is None:
            size = _U32.unpack_from(self.data, start - 4)[0]
            if start + size > self.size:
                raise self.error(f"{size} bytes at byte {start} end outside")
            self.charge(4 + size)
            view = self.views[start] = self.data[start : start + size]
        return view

    def string(self, position: int) -> str:
        view = self.view(position)
        text = self.strings.get(id(view))
        if text is None:
            try:
                text = self.strings[id(view)] = str(view, "utf-8")
            except UnicodeDecodeError:
                raise self.error(f"the text at byte {position} is not UTF-8") from None
        return text
