"""Forms of the formats to come: fields that nobody knows yet are passed over, here as in the stock
runtime; numbers that nobody knows are an error that says what would help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_formats_stock import FILES, STOCK, needs_stock, stock

import penstock
from penstock.errors import InvalidProgramError, UnsupportedError
from penstock.formats.flatbuffer import Table, decode
from penstock.formats.flatbuffer_builder import encode
from penstock.formats.payload_reader import HEADER, MAGIC
from penstock.formats.program_header import insert_header, read_frame
from penstock.formats.schema import Field, Schema, load

#: What is behind the last field of every table: a number, a text, a list, and a table.
_NEWER = {"newer_number": 2.5, "newer_text": "later", "newer_list": [1, 2, 3]}


def newer(schema: Schema) -> Schema:
    """The schema of a later version."""
    tables = {}
    for name, type_ in schema.tables.items():
        added = (
            Field("newer_number", "scalar", "double", type_.slots, default=0.0),
            Field("newer_text", "string", "string", type_.slots + 1),
            Field("newer_list", "vector", "int", type_.slots + 2, element="scalar"),
            Field("newer_table", "table", name, type_.slots + 3),
        )
        tables[name] = replace(type_, fields=type_.fields + added, slots=type_.slots + 4)
    return replace(schema, tables=tables)


def fill(schema: Schema, table: Any, name: str, seen: set[int]) -> None:
    """Gives every table below ``table`` the fields of the later version."""
    if id(table) in seen:
        return
    seen.add(id(table))
    for field in schema.tables[name].fields:
        value = None if field.deprecated else getattr(table, field.name)
        if value is None:
            continue
        if field.kind == "table":
            fill(schema, value, field.type, seen)
        elif field.kind == "union":
            member = schema.unions[field.type].members[getattr(table, f"{field.name}_type") - 1][1]
            fill(schema, value, member, seen)
        elif field.element == "table":
            for item in value:
                fill(schema, item, field.type, seen)
    empty = {f.name: f.default for f in schema.tables[name].fields if not f.deprecated}
    vars(table).update(_NEWER, newer_table=Table(**empty))


def as_newer(data: bytes) -> bytes:
    """The file as a later version writes it: its program, and its payloads that are segments."""
    view = memoryview(data)
    frame = read_frame(view)
    schema = load("program")
    root = decode(schema, view[: frame.program_size], "the program")
    segments = bytes(view[frame.segment_base : frame.segment_end])
    for segment in root.segments or ():
        payload = segments[segment.offset : segment.offset + segment.size]
        if payload[4:8] == MAGIC:
            segments += bytes(-len(segments) % 16)
            segment.offset, segment.size = len(segments), len(changed := payload_as_newer(payload))
            segments += changed
    fill(schema, root, schema.root, set())
    return insert_header(encode(newer(schema), root), 16, len(segments)) + segments


def payload_as_newer(payload: bytes) -> bytes:
    _, magic, size, offset, length, constants_at, constants = HEADER.unpack_from(payload)
    schema = load("xnnpack")
    graph = decode(schema, memoryview(payload)[offset : offset + length], "the payload")
    fill(schema, graph, schema.root, set())
    flatbuffer = encode(newer(schema), graph)
    start = -(-size // 16) * 16
    behind = start + len(flatbuffer) + -len(flatbuffer) % 16
    header = HEADER.pack(bytes(4), magic, size, start, len(flatbuffer), behind, constants)
    inside = (header.ljust(start, b"\0") + flatbuffer).ljust(behind, b"\0")
    return inside + payload[constants_at : constants_at + constants]


def test_fields_that_nobody_knows_are_passed_over(stock_file: Path) -> None:
    data = stock_file.read_bytes()
    later = as_newer(data)
    assert len(later) > len(data) and b"later" in later
    record = np.load(stock_file.with_suffix(".npz"))
    for name, number in {tuple(key.split("|")[:2]) for key in record}:
        count = sum(key.startswith(f"{name}|{number}|in") for key in record)
        inputs = [record[f"{name}|{number}|in{i}"] for i in range(count)]
        wanted, found = (
            penstock.load(file, engine="xnnpack", threads=1).method(name).run(inputs)
            for file in (data, later)
        )
        assert len(found) == len(wanted) > 0
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@needs_stock
def test_the_stock_runtime_passes_over_them_too(tmp_path: Path) -> None:
    written = []
    for file in FILES:
        written.append(tmp_path / file.name)
        written[-1].write_bytes(as_newer(file.read_bytes()))
    assert stock("run", STOCK, *written) == {}


def changed(**fields: Any) -> bytes:
    """A program with one tensor, with something else in its place."""
    schema = load("program")
    tensor = {"scalar_type": 6, "sizes": [3], "dim_order": b"\0", "data_buffer_idx": 0}
    value = Table(val_type=fields.pop("val_type", 5), val=Table(**{**tensor, **fields}))
    plan = Table(name="forward", values=[value], chains=[])
    return encode(schema, Table(execution_plan=[plan]))


def of_later(kind: str) -> bytes:
    """A program in which a number is one that does not exist yet."""
    data = bytearray((STOCK / "image_fp32.pte").read_bytes())
    if kind == "identifier":
        data[4:8] = b"ET13"
        return bytes(data)
    if kind == "payload":
        at = data.find(b"XN01")
        data[at : at + 4] = b"XN02"
        return bytes(data)
    schema = load("program")
    if kind == "type":
        return changed(scalar_type=45)
    if kind == "dynamism":
        return changed(shape_dynamism=3)
    # Members at the end of a union: tables that the schema lacks, so they are written as another.
    unions = {"value": ("KernelTypes", "Int"), "instruction": ("InstructionArguments", "FreeCall")}
    name, table = unions[kind]
    union = schema.unions[name]
    later = replace(union, members=(*union.members, ("Later", table)))
    schema = replace(schema, unions={**schema.unions, name: later})
    number = len(later.members)
    value = Table(val_type=number, val=Table(int_val=1)) if kind == "value" else Table(
        val_type=2, val=Table(int_val=1)
    )  # fmt: skip
    call = Table(instr_args_type=number, instr_args=Table(value_index=0))
    chains = [Table(instructions=[call])] if kind == "instruction" else []
    plan = Table(name="forward", values=[value], chains=chains)
    return encode(schema, Table(execution_plan=[plan]))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("identifier", "ET13"), ("payload", "XN02"), ("type", "45 is no ScalarType"),
        ("dynamism", "3 is no TensorShapeDynamism"), ("value", "12 is no KernelTypes"),
        ("instruction", "6 is no InstructionArguments"),
    ],
)  # fmt: skip
def test_numbers_that_nobody_knows_say_so(kind: str, message: str) -> None:
    with pytest.raises((InvalidProgramError, UnsupportedError), match=message) as caught:
        penstock.load(of_later(kind)).method()
    assert "newer" in str(caught.value) or "update Penstock" in str(caught.value)
