"""Damaged files: every one is refused with one clear line, or is still a program."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import InvalidProgramError, PenstockError, UnsupportedError
from penstock.formats import program as pte
from penstock.formats.flatbuffer import Table
from penstock.formats.flatbuffer_builder import _Writer
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.formats.schema import TableType, load

EXTREMES = (0, 1, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def read(data: bytes) -> pte.Program:
    program = read_program(data)
    for method in program.methods:
        for delegate in method.delegates:
            read_payload(delegate.payload, program.named_data)
    return program


def is_refused(data: bytes) -> bool:
    try:
        read(data)
    except PenstockError as error:
        message = str(error)
        assert 10 < len(message) < 500 and "\n" not in message
        return True
    return False


def test_undamaged(stock_file: Path) -> None:
    assert read(stock_file.read_bytes()).methods


def test_cut_short(stock_file: Path) -> None:
    data = stock_file.read_bytes()
    # Without an extended header the end of a file is nowhere written down.
    ends_known = data[8:12] == b"eh00"
    for size in {*range(80), *range(80, len(data), 37), len(data) - 1}:
        refused = is_refused(data[:size])
        assert refused or not ends_known, size
    assert is_refused(data[: len(data) // 2])


def test_flipped_bytes(stock_file: Path) -> None:
    data = bytearray(stock_file.read_bytes())
    generator = random.Random(stock_file.stem)
    refused = 0
    for _ in range(600):
        position = generator.randrange(len(data))
        before = data[position]
        data[position] ^= generator.randrange(1, 256)
        refused += is_refused(bytes(data))
        data[position] = before
    assert refused > 50


def test_changed_numbers(stock_file: Path) -> None:
    """Offsets, lengths and indices at their limits."""
    data = stock_file.read_bytes()
    generator = random.Random(stock_file.stem)
    for _ in range(500):
        changed = bytearray(data)
        for _ in range(generator.choice((1, 1, 2, 8))):
            position = generator.randrange(len(data) // 4) * 4
            number = generator.choice((*EXTREMES, generator.randrange(len(data))))
            changed[position : position + 4] = struct.pack("<I", number)
        is_refused(bytes(changed))


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", InvalidProgramError, "empty"),
        (b"ET", InvalidProgramError, "not a .pte program"),
        (b"PK\3\4" + bytes(100), InvalidProgramError, "zip archive.*penstock compile"),
        (b"\x08\0\0\0BP08" + bytes(100), InvalidProgramError, "bundled program"),
        (b"GGUF\3\0\0\0" + bytes(100), InvalidProgramError, "GGUF; penstock compile"),
        (b"version https://git-lfs.github.com/spec/v1\n", InvalidProgramError, "git lfs pull"),
        (b"\x1f\x8b\x08\0" + bytes(100), InvalidProgramError, "unpack it"),
        (b"<!DOCTYPE html><html>", InvalidProgramError, "web page"),
        (b"\x1c\0\0\0TFL3" + bytes(100), InvalidProgramError, "TensorFlow Lite"),
        (b"\x40\1\0\0\0\0\0\0{}" + bytes(100), InvalidProgramError, "weights alone"),
        (b"anything at all", InvalidProgramError, "give what penstock compile"),
        (b"\x08\0\0\0FT01" + bytes(100), InvalidProgramError, "data file"),
        (b"#!/bin/sh\necho hello\n", InvalidProgramError, "not a .pte program"),
        (b"\x10\0\0\0ET13" + bytes(100), UnsupportedError, "version ET13"),
        (b"\x10\0\0\0ET12", InvalidProgramError, "damaged or cut short"),
        (b"\x10\0\0\0ET12eh00" + bytes(4), InvalidProgramError, "cut short: 16 bytes"),
        (b"\x10\0\0\0ET12eh00" + bytes(40), InvalidProgramError, "header claims to have 0 bytes"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        read_program(data)


def test_cut_short_says_how_much_is_missing() -> None:
    data = (Path(__file__).parent / "stock" / "image_q8.pte").read_bytes()
    with pytest.raises(
        InvalidProgramError, match=f"has {len(data) - 9} bytes and needs {len(data)}"
    ):
        read_program(data[:-9])


def test_payload_messages() -> None:
    for data, kind, message in (
        (b"", InvalidProgramError, "not an XNNPACK payload"),
        (bytes(64), InvalidProgramError, "not an XNNPACK payload"),
        (bytes(4) + b"XH00" + bytes(10), InvalidProgramError, "cut short"),
        (bytes(4) + b"XH00" + b"\xff" * 30, InvalidProgramError, "would end beyond"),
        (b"\x10\0\0\0XN07" + bytes(64), UnsupportedError, "version XN07"),
    ):
        with pytest.raises(kind, match=message):
            read_payload(data, {})


class _Sharing(_Writer):
    """Writes a table once however often it is referred to, as a hostile file may."""

    def __init__(self) -> None:
        super().__init__(load("program"))
        self.written: dict[int, int] = {}

    def table(self, table: Table, type_: TableType) -> int:
        if id(table) not in self.written:
            self.written[id(table)] = super().table(table, type_)
        return self.written[id(table)]

    def numbers(self, field: Any, value: Any) -> int:
        if id(value) not in self.written:
            self.written[id(value)] = super().numbers(field, value)
        return self.written[id(value)]


def _plan(**fields: Any) -> Table:
    return Table(name="forward", chains=[], non_const_buffer_sizes=[0], **fields)


def _shared_lists() -> list[Table]:
    null = Table(val_type=1, val=Table())
    items = [0] * 100_000
    lists = [Table(val_type=7, val=Table(items=items)) for _ in range(2000)]
    return [_plan(values=[null, *lists])]


def _one_list_often() -> list[Table]:
    null = Table(val_type=1, val=Table())
    one = Table(val_type=7, val=Table(items=[0] * 100_000))
    return [_plan(values=[null] + [one] * 100_000)]


def _one_instruction_often() -> list[Table]:
    null = Table(val_type=1, val=Table())
    call = Table(instr_args_type=1, instr_args=Table(op_index=0, args=[0] * 100_000))
    chain = Table(instructions=[call] * 100_000)
    operators = [Table(name="aten::add", overload="out")]
    return [Table(name="f", values=[null], operators=operators, chains=[chain] * 100_000)]


def _one_method_often() -> list[Table]:
    null = Table(val_type=1, val=Table())
    return [_plan(values=[null] * 100_000)] * 100_000


def _long_dim_orders() -> list[Table]:
    tensor = {"scalar_type": 6, "sizes": [1], "dim_order": bytes(1_000_000)}
    values = [Table(val_type=5, val=Table(**tensor)) for _ in range(2000)]
    return [_plan(values=values)]


@pytest.mark.parametrize(
    "plans",
    [_shared_lists, _one_list_often, _one_instruction_often, _one_method_often, _long_dim_orders],
)
def test_sharing_does_not_multiply_the_work(plans: Any) -> None:
    writer = _Sharing()
    root = Table(execution_plan=plans(), constant_segment=Table(offsets=[0]))
    offset = writer.table(root, writer.schema.tables["Program"])
    writer.out.Finish(offset, file_identifier=b"ET12")
    data = bytes(writer.out.Output())
    start = time.process_time()
    is_refused(data)
    assert time.process_time() - start < 20


def test_overlapping_texts_are_refused() -> None:
    """Thousands of texts that each take much of the file."""
    writer = _Sharing()
    names = [f"name{i:06}" for i in range(20_000)]
    operators = [Table(name=name) for name in names]
    root = Table(execution_plan=[_plan(values=[], operators=operators)])
    offset = writer.table(root, writer.schema.tables["Program"])
    writer.out.Finish(offset, file_identifier=b"ET12")
    file = bytearray(writer.out.Output())
    # As a length this word is 65 793, as text three characters and a zero.
    end, word = len(file), struct.pack("<I", 0x00010101)
    file += word * 100_000
    moved = 0
    for position in range(8, end - 4, 4):
        target = position + struct.unpack_from("<I", file, position)[0]
        if target < end and file[target + 4 : target + 8] == b"name":
            struct.pack_into("<I", file, position, end + 4 * moved - position)
            moved += 1
    assert moved >= len(names)
    start = time.process_time()
    with pytest.raises(InvalidProgramError, match="its parts overlap"):
        read_program(bytes(file))
    assert time.process_time() - start < 10
