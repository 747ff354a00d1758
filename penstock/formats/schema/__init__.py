"""The flatbuffer schemas (``program.fbs``, ``xnnpack.fbs`` …) as data.

Readers and writers are driven by these tables, so nothing is generated and a field is written down
once. :func:`load` understands the part of the schema language that these files use: namespaces,
enums, unions (with aliases), tables, defaults, ``force_align`` and ``deprecated``. Layout rules:
https://flatbuffers.dev/internals/.
"""

from __future__ import annotations

import pkgutil  # a tenth of what importlib.resources takes to import
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Literal

#: struct format and size in bytes of each scalar type.
SCALARS = {
    "bool": ("?", 1),
    "byte": ("b", 1),
    "ubyte": ("B", 1),
    "short": ("h", 2),
    "ushort": ("H", 2),
    "int": ("i", 4),
    "uint": ("I", 4),
    "uint32": ("I", 4),
    "float": ("f", 4),
    "long": ("q", 8),
    "int64": ("q", 8),
    "uint64": ("Q", 8),
    "double": ("d", 8),
}

Kind = Literal["scalar", "string", "table", "union", "vector"]


@dataclass(frozen=True)
class Enum:
    name: str
    scalar: str
    members: dict[str, int]
    numbers: frozenset[int]


@dataclass(frozen=True)
class Union:
    name: str
    #: (member name, table name), the first has number 1; 0 is "none".
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Field:
    """A field of a table. ``type`` names a scalar, a table or a union; for vectors the elements'.

    ``slot`` is the place in the vtable. A union ``x`` makes two fields: ``x_type``, the number of
    the member, and ``x``, the member's table.
    """

    name: str
    kind: Kind
    type: str
    slot: int
    default: int | float | bool | None = None
    enum: Enum | None = None
    #: Of vectors: what the elements are.
    element: Kind | None = None
    align: int = 1
    deprecated: bool = False

    @property
    def size(self) -> int:
        """Its bytes in the table: the number itself, or an offset."""
        return SCALARS[self.type][1] if self.kind == "scalar" else 4


@dataclass(frozen=True)
class TableType:
    name: str
    fields: tuple[Field, ...]
    slots: int

    @cached_property
    def by_size(self) -> tuple[Field, ...]:
        """The fields, large ones first: written in that order they need the least padding."""
        return tuple(sorted(self.fields, key=lambda field: -field.size))


@dataclass
class Schema:
    identifier: str = ""
    root: str = ""
    enums: dict[str, Enum] = field(default_factory=dict)
    unions: dict[str, Union] = field(default_factory=dict)
    tables: dict[str, TableType] = field(default_factory=dict)


_DECLARATION = re.compile(r"(enum|union|table)\s+(\w+)\s*(?::\s*(\w+)\s*)?\{([^}]*)\}")
_FIELD = re.compile(r"(\w+)\s*:\s*(\[?)(\w+)\]?\s*(?:=\s*(-?\w+)\s*)?(?:\(([^)]*)\)\s*)?;")


def parse(text: str) -> Schema:
    """Parse schema text. Trusts it: the schemas are part of the package."""
    text = re.sub(r"//[^\n]*", "", text)
    schema = Schema()
    if match := re.search(r'file_identifier\s+"(\w{4})"', text):
        schema.identifier = match[1]
    if match := re.search(r"root_type\s+(\w+)", text):
        schema.root = match[1]
    declarations = _DECLARATION.findall(text)
    for kind, name, scalar, body in declarations:
        if kind == "enum":
            pairs = (item.split("=") for item in body.split(",") if item.strip())
            members = {key.strip(): int(number) for key, number in pairs}
            schema.enums[name] = Enum(name, scalar, members, frozenset(members.values()))
        elif kind == "union":
            names = [item.split(":") for item in body.split(",") if item.strip()]
            schema.unions[name] = Union(name, tuple((n[0].strip(), n[-1].strip()) for n in names))
    for kind, name, _, body in declarations:
        if kind == "table":
            schema.tables[name] = _table(schema, name, body)
    return schema


def _table(schema: Schema, name: str, body: str) -> TableType:
    fields: list[Field] = []
    slot = 0
    for field_name, bracket, type_name, default, options in _FIELD.findall(body):
        enum = schema.enums.get(type_name)
        kind = _kind(schema, type_name)
        if kind == "union":
            fields.append(Field(f"{field_name}_type", "scalar", "ubyte", slot, default=0))
            slot += 1
        align = re.search(r"force_align:\s*(\d+)", options)
        scalar = enum.scalar if enum else type_name
        fields.append(
            Field(
                name=field_name,
                kind="vector" if bracket else kind,
                type=scalar,
                slot=slot,
                default=None if bracket or kind != "scalar" else _default(default, scalar, enum),
                enum=enum,
                element=kind if bracket else None,
                align=int(align[1]) if align else 1,
                deprecated="deprecated" in options,
            )
        )
        slot += 1
    return TableType(name, tuple(fields), slot)


def _kind(schema: Schema, type_name: str) -> Kind:
    if type_name in SCALARS or type_name in schema.enums:
        return "scalar"
    if type_name == "string":
        return "string"
    return "union" if type_name in schema.unions else "table"


def _default(text: str, scalar: str, enum: Enum | None) -> int | float | bool:
    if enum is not None and text in enum.members:
        return enum.members[text]
    if scalar == "bool":
        return text == "true"
    if scalar in ("float", "double"):
        return float(text or 0)
    return int(text or 0)


@cache
def load(name: Literal["program", "xnnpack", "data", "etdump"]) -> Schema:
    """The schema ``name``.fbs of this package."""
    data = pkgutil.get_data(__name__, f"{name}.fbs")
    assert data is not None
    text = data.decode()
    return parse(text)
