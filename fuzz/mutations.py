"""Mutations of a program file: case ``n`` of a corpus is always the same bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from fuzz.sites import Site, Sites, sites_of_data_file, sites_of_program
from penstock.formats.flatbuffer import Table, decode
from penstock.formats.flatbuffer_builder import encode
from penstock.formats.payload_reader import HEADER as PAYLOAD_HEADER
from penstock.formats.payload_reader import MAGIC as PAYLOAD_MAGIC
from penstock.formats.program_header import insert_header, read_frame
from penstock.formats.schema import Schema, TableType, load

INTEGERS = (0, 1, 2, 3, 7, 16, 127, 255, 4096, 65535, 1 << 20, (1 << 31) - 1, 1 << 31,
            (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-38, 3e38, float("inf"), -float("inf"), float("nan"))


@dataclass(frozen=True)
class Seed:
    """An honest file to start from; ``data_file`` is the ``.ptd`` that it needs, if any."""

    name: str
    program: bytes
    data_file: bytes | None = None

    @cached_property
    def sites(self) -> Sites:
        return sites_of_program(self.program)

    @cached_property
    def data_sites(self) -> Sites:
        return sites_of_data_file(self.data_file or b"")

    @cached_property
    def kinds(self) -> list[str]:
        return sorted(kind for kind, sites in self.sites.items() if sites)


@dataclass(frozen=True)
class Mutant:
    """What became of a seed. ``what`` names the mutation, for reports."""

    what: str
    program: bytes
    data_file: bytes | None


def mutant(seed: Seed, generator: random.Random) -> Mutant:
    """One hostile file: numbers of the format changed in place, tables written anew with other
    fields, bytes flipped, the file cut or spliced."""
    if seed.data_file is not None and generator.random() < 0.3:
        sites = seed.data_sites
        changed = bytearray(seed.data_file)
        kinds = sorted(kind for kind, found in sites.items() if found)
        kind = _set_numbers(changed, sites, kinds, generator)
        return Mutant(f"data file: {kind}", seed.program, bytes(changed))
    what, change = generator.choices(
        (("", _numbers), ("rewritten ", _rewritten), ("payload ", _rewritten_payload),
         ("", _flips), ("", _cut)), (10, 4, 4, 2, 1),
    )[0]  # fmt: skip
    kind, program = change(seed, generator)
    return Mutant(what + kind, program, seed.data_file)


def _numbers(seed: Seed, generator: random.Random) -> tuple[str, bytes]:
    changed = bytearray(seed.program)
    return _set_numbers(changed, seed.sites, seed.kinds, generator), bytes(changed)


def _set_numbers(data: bytearray, sites: Sites, kinds: list[str], generator: random.Random) -> str:
    """Gives one to three sites another number; each field is as likely as any other."""
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        kind = generator.choice(kinds)
        site = generator.choice(sites[kind])
        _set(data, site, generator)
    return kind


def _set(data: bytearray, site: Site, generator: random.Random) -> None:
    (old,) = struct.unpack_from(f"<{site.code}", data, site.position)
    data[site.position : site.position + site.size] = struct.pack(
        f"<{site.code}", _other(old, site, generator)
    )


def _other(old: float | int | bool, site: Site, generator: random.Random) -> float | int | bool:
    if site.code == "?":
        return not old
    if site.code in "fd":
        return generator.choice((*REALS, -old, 2 * old if abs(old) < 1e38 else old))
    if site.enum and generator.random() < 0.8:
        return generator.choice(site.enum)
    bits = 8 * site.size
    number = generator.choice((int(old) + 1, int(old) - 1, 2 * int(old), int(old) ^ (
        1 << generator.randrange(bits)), *INTEGERS)) & ((1 << bits) - 1)  # fmt: skip
    signed = site.code in "bhiq" and number >> (bits - 1)
    return number - (1 << bits) if signed else number


def _flips(seed: Seed, generator: random.Random) -> tuple[str, bytes]:
    changed = bytearray(seed.program)
    for _ in range(generator.randint(1, 8)):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return "flipped bits", bytes(changed)


def _cut(seed: Seed, generator: random.Random) -> tuple[str, bytes]:
    data = seed.program
    first, second = sorted(generator.randrange(len(data) + 1) for _ in range(2))
    change: Callable[[], bytes] = generator.choice((
        lambda: data[:second],
        lambda: data[:first] + data[second:],
        lambda: data[:second] + data[first:],
        lambda: data[:first] + bytes(second - first) + data[second:],
    ))  # fmt: skip
    return "cut or spliced", change()


def _rewritten(seed: Seed, generator: random.Random) -> tuple[str, bytes]:
    """The program's flatbuffer written anew, with a field added, dropped, moved or replaced."""
    data = memoryview(seed.program)
    frame = read_frame(data)
    root = decode(load("program"), data[: frame.program_size], "the program")
    what = _change_table(load("program"), root, generator)
    return what, _assembled(root, bytes(data[frame.segment_base : frame.segment_end]))


def _assembled(root: Table, segments: bytes) -> bytes:
    return insert_header(encode(load("program"), root), 16, len(segments)) + segments


def _rewritten_payload(seed: Seed, generator: random.Random) -> tuple[str, bytes]:
    """The same for the graph of an XNNPACK payload; it is put behind the other segments."""
    data = memoryview(seed.program)
    frame = read_frame(data)
    root = decode(load("program"), data[: frame.program_size], "the program")
    segments = bytes(data[frame.segment_base : frame.segment_end])
    payloads = [
        segment
        for segment in root.segments or ()
        if segments[segment.offset + 4 : segment.offset + 8] == PAYLOAD_MAGIC
        and segment.size > PAYLOAD_HEADER.size
    ]
    if not payloads:
        return _rewritten(seed, generator)
    segment = generator.choice(payloads)
    payload = segments[segment.offset : segment.offset + segment.size]
    _, _, _, offset, size, constants_at, constants_size = PAYLOAD_HEADER.unpack_from(payload)
    graph = decode(load("xnnpack"), memoryview(payload)[offset : offset + size], "the payload")
    what = _change_table(load("xnnpack"), graph, generator)
    flatbuffer = encode(load("xnnpack"), graph)
    constants = payload[constants_at : constants_at + constants_size]
    start = -(-PAYLOAD_HEADER.size // 16) * 16
    constants_start = start + len(flatbuffer) + -len(flatbuffer) % 16
    header = PAYLOAD_HEADER.pack(
        bytes(4), PAYLOAD_MAGIC, PAYLOAD_HEADER.size, start, len(flatbuffer), constants_start,
        len(constants),
    )  # fmt: skip
    changed = header.ljust(start, b"\0") + flatbuffer
    changed = changed.ljust(constants_start, b"\0") + constants
    segments += bytes(-len(segments) % 16)
    segment.offset, segment.size = len(segments), len(changed)
    return what, _assembled(root, segments + changed)


def _change_table(schema: Schema, root: Table, generator: random.Random) -> str:
    """Changes one field of one table below ``root``; what it was, as ``Table.field change``."""
    tables: dict[str, list[Table]] = {}
    _collect(schema, root, schema.tables[schema.root], tables)
    name = generator.choice(sorted(tables))
    table, type_ = generator.choice(tables[name]), schema.tables[name]
    # The number of a union's member goes with its table: apart they are _numbers' to change.
    members = {f"{field.name}_type" for field in type_.fields if field.kind == "union"}
    fields = [f for f in type_.fields if not f.deprecated and f.name not in members]
    if not fields:
        return f"{name} as it was"
    field = generator.choice(fields)
    value = getattr(table, field.name)
    donor = getattr(generator.choice(tables[name]), field.name)
    if isinstance(value, (list, tuple)) and value and generator.random() < 0.7:
        items = list(value)
        change = generator.choice(("dropped", "doubled", "shuffled", "emptied", "long"))
        if change == "dropped":
            items.pop(generator.randrange(len(items)))
        elif change == "doubled":
            items.insert(generator.randrange(len(items)), generator.choice(items))
        elif change == "shuffled":
            generator.shuffle(items)
        elif change == "emptied":
            items.clear()
        else:
            items = items * generator.choice((2, 17, 300))
        setattr(table, field.name, items)
        return f"{name}.{field.name} {change}"
    if value is not None and donor is value or generator.random() < 0.3:
        setattr(table, field.name, None)
        return f"{name}.{field.name} left out"
    if field.kind == "union":
        of_type = f"{field.name}_type"
        owner = next(t for t in tables[name] if getattr(t, field.name) is donor)
        setattr(table, of_type, getattr(owner, of_type))
    setattr(table, field.name, donor)
    return f"{name}.{field.name} from another"


def _collect(schema: Schema, table: Table, type_: TableType, found: dict[str, list[Table]]) -> None:
    found.setdefault(type_.name, []).append(table)
    for field in type_.fields:
        value = None if field.deprecated else getattr(table, field.name)
        if value is None:
            continue
        if field.kind == "union":
            number = getattr(table, f"{field.name}_type")
            member = schema.unions[field.type].members[number - 1][1]
            _collect(schema, value, schema.tables[member], found)
        elif field.kind == "table":
            _collect(schema, value, schema.tables[field.type], found)
        elif field.element == "table":
            for item in value:
                _collect(schema, item, schema.tables[field.type], found)
