"""Weights in a data file: files of the stock flow, damaged ones, and ones that do not belong."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.errors import InputError, InvalidProgramError, PenstockError, UnsupportedError
from penstock.formats import data_file
from penstock.formats import program as pte
from penstock.formats.data_file import NamedData, attach, read_data_file
from penstock.formats.flatbuffer import Table
from penstock.formats.flatbuffer_builder import encode
from penstock.formats.program_reader import read_program
from penstock.formats.program_writer import write_program
from penstock.formats.schema import load

STOCK = Path(__file__).parent / "stock" / "external"
#: "kernels" has weights of kernels alone, "partly" those of delegates too.
NAMES = ("kernels", "partly")
EXTREMES = (0, 1, 3, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def files(name: str) -> tuple[Path, Path]:
    return STOCK / f"{name}.pte", STOCK / f"{name}.ptd"


def check(program: penstock.LoadedProgram, name: str) -> None:
    record = np.load(STOCK / f"{name}.npz")
    outputs = program.method().run([record["in0"]])
    for index, output in enumerate(outputs):
        np.testing.assert_allclose(output, record[f"out{index}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_stock_files_give_the_stock_answers(name: str) -> None:
    program, data = files(name)
    check(penstock.load(program, data=data), name)
    check(penstock.load(program, data=str(data)), name)
    check(penstock.load(program.read_bytes(), data=[data.read_bytes()]), name)


@pytest.mark.parametrize("name", NAMES)
def test_without_its_data_file_a_program_says_what_it_needs(name: str) -> None:
    program = penstock.load(files(name)[0])
    assert program.methods == ("forward",)
    with pytest.raises(InputError, match=r"data file \(\.ptd\)"):
        program.method()
    other = files(NAMES[1 - NAMES.index(name)])[1]
    with pytest.raises(InputError, match=r"data file \(\.ptd\)"):
        penstock.load(files(name)[0], data=other).method()


def test_delegates_say_what_they_need() -> None:
    program, data = files("partly")
    pieces = read_data_file(data.read_bytes())
    tensors = {key: piece for key, piece in pieces.items() if piece.dtype is not None}
    assert 0 < len(tensors) < len(pieces)
    found = read_program(program.read_bytes())
    attach(found, tensors)
    with pytest.raises(InputError, match=r"the XNNPACK payload needs the data .*\.ptd"):
        penstock.LoadedProgram(found).method()


def test_several_data_files() -> None:
    program, data = files("kernels")
    pieces = read_data_file(data.read_bytes())
    keys = sorted(pieces)
    halves = [write({key: pieces[key] for key in part}) for part in (keys[:2], keys[2:])]
    check(penstock.load(program, data=halves), "kernels")
    with pytest.raises(InputError, match="is there twice"):
        penstock.load(program, data=[data, halves[0]])


def test_a_program_is_written_without_the_data_of_others() -> None:
    program, data = files("kernels")
    found = read_program(program.read_bytes())
    attach(found, read_data_file(data.read_bytes()))
    found.named_data.clear()
    written = write_program(found)
    assert len(written) < data.stat().st_size
    check(penstock.load(written, data=data), "kernels")


def test_mutable_buffers_may_begin_in_a_data_file() -> None:
    state = pte.Tensor(
        pte.ScalarType.FLOAT, (2,), allocation=pte.Allocation(1, 0), name="state", external=True
    )
    method = pte.Method("forward", [state], [], [0], [], memory_sizes=[0, 16])
    data = write({"state": tensor(np.array([3, 4], np.float32))})
    (output,) = penstock.load(write_program(pte.Program([method])), data=data).method().run([])
    assert output.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("piece", "kind", "message"),
    [
        (np.zeros(3, np.float32), InputError, r"FLOAT \[2, 3\] in the program and FLOAT \[3\]"),
        (np.zeros((2, 3), np.int32), InputError, "INT"),
        (NamedData(memoryview(bytes(24))), InputError, "no tensor in the data file"),
        (
            NamedData(memoryview(bytes(24)), pte.ScalarType.FLOAT, (2, 3), (1, 0)),
            InputError,
            r"dim order \(1, 0\)",
        ),
        (
            NamedData(memoryview(bytes(20)), pte.ScalarType.FLOAT, (2, 3)),
            InvalidProgramError,
            "takes 24 bytes, the data file has 20",
        ),
    ],
)
def test_pieces_that_do_not_fit(piece: Any, kind: type[Exception], message: str) -> None:
    weight = pte.Tensor(pte.ScalarType.FLOAT, (2, 3), name="w", external=True)
    program = pte.Program([pte.Method("forward", [weight], [], [0], [])])
    piece = tensor(piece) if isinstance(piece, np.ndarray) else piece
    with pytest.raises(kind, match=message):
        attach(program, {"w": piece})
    assert weight.data is None and not program.named_data


def test_cut_short_and_flipped() -> None:
    data = files("partly")[1].read_bytes()
    for size in {*range(80), *range(80, len(data), 37), len(data) - 1}:
        assert refused(data[:size]), size
    changed = bytearray(data)
    generator = random.Random(1)
    times = 0
    for _ in range(3000):
        # Behind the tables everything is weights.
        position = generator.randrange(1200)
        changed[position] ^= (flip := generator.randrange(1, 256))
        times += refused(bytes(changed))
        changed[position] ^= flip
    assert times > 300


def test_changed_numbers() -> None:
    data = files("partly")[1].read_bytes()
    generator = random.Random(2)
    for _ in range(2000):
        changed = bytearray(data)
        for _ in range(generator.choice((1, 1, 2, 8))):
            position = generator.randrange(300) * 4
            number = generator.choice((*EXTREMES, generator.randrange(len(data))))
            changed[position : position + 4] = struct.pack("<I", number)
        refused(bytes(changed))


def refused(data: bytes) -> bool:
    """Whether the program cannot be had with this data file; any other error is a failure."""
    program = read_program(files("partly")[0].read_bytes())
    try:
        attach(program, read_data_file(data))
    except PenstockError as error:
        assert 10 < len(str(error)) < 500 and "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", InvalidProgramError, "empty"),
        (b"FT", InvalidProgramError, "not a data file"),
        (b"\x10\0\0\0ET12" + bytes(100), InvalidProgramError, "not a data file"),
        (b"\x10\0\0\0FT02" + bytes(100), UnsupportedError, "version FT02"),
        (b"\x10\0\0\0FT01FH01", InvalidProgramError, "cut short: 12 bytes"),
        (b"\x10\0\0\0FT01FH01" + bytes(40), InvalidProgramError, "claims to have 0 bytes"),
        (3, InputError, "data is a path, bytes or a list of them, not int"),
        ([3], InputError, "a data file is a path or bytes, not int"),
        ("nowhere.ptd", InputError, "there is no file nowhere.ptd"),
    ],
)
def test_what_is_wrong_is_said(data: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        penstock.load(files("kernels")[0], data=data)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"version": 1}, UnsupportedError, "version 1 of its tables"),
        ({"key": ""}, InvalidProgramError, "no name"),
        ({"segment_index": 1}, InvalidProgramError, "segment 1 of the data file, which has 1"),
        ({"size": 9}, InvalidProgramError, "9 bytes at .* ends beyond"),
        ({"offset": 1 << 63}, InvalidProgramError, "ends beyond"),
        ({"sizes": [-1]}, InvalidProgramError, r"shape \(-1,\)"),
        ({"dim_order": b"\1"}, InvalidProgramError, r"dim order \(1,\)"),
        ({"twice": True}, InvalidProgramError, "two pieces of the data file have the name 'w'"),
    ],
)
def test_tables_that_make_no_sense(
    fields: dict[str, Any], kind: type[Exception], message: str
) -> None:
    data = frame(**{"sizes": [2], "dim_order": b"\0", "size": 8, **fields})
    with pytest.raises(kind, match=message):
        read_data_file(data)


def frame(
    sizes: list[int],
    dim_order: bytes,
    size: int,
    offset: int = 0,
    key: str = "w",
    segment_index: int = 0,
    version: int = 0,
    twice: bool = False,
) -> bytes:
    """A data file with one float32 tensor, whose segment has eight bytes."""
    layout = Table(scalar_type=6, sizes=sizes, dim_order=dim_order)
    entry = Table(key=key, segment_index=segment_index, tensor_layout=layout)
    segments = [Table(offset=offset, size=size)]
    return assemble(
        Table(version=version, segments=segments, named_data=[entry] * (1 + twice)), bytes(8)
    )


def tensor(array: np.ndarray) -> NamedData:
    dtypes = {"float32": pte.ScalarType.FLOAT, "int32": pte.ScalarType.INT}
    return NamedData(memoryview(array.tobytes()), dtypes[array.dtype.name], array.shape)


def write(pieces: dict[str, NamedData]) -> bytes:
    segments, entries, blob = [], [], b""
    for number, (key, piece) in enumerate(pieces.items()):
        entry = Table(key=key, segment_index=number)
        if piece.dtype is not None:
            order = bytes(piece.dim_order or range(len(piece.shape)))
            entry.tensor_layout = Table(
                scalar_type=int(piece.dtype), sizes=piece.shape, dim_order=order
            )
        entries.append(entry)
        blob += bytes(-len(blob) % 16)
        segments.append(Table(offset=len(blob), size=len(piece.data)))
        blob += piece.data
    return assemble(Table(version=0, segments=segments, named_data=entries), blob)


def assemble(root: Table, blob: bytes) -> bytes:
    flatbuffer = encode(load("data"), root)
    (first,) = struct.unpack_from("<I", flatbuffer)
    base = -(-(48 + len(flatbuffer)) // 128) * 128
    header = struct.pack("<4sIQQQQ", b"FH01", 40, 48, len(flatbuffer), base, len(blob))
    head = struct.pack("<I", first + 48) + data_file.IDENTIFIER + header.ljust(48, b"\0")
    return (head + flatbuffer[8:]).ljust(base, b"\0") + blob


@pytest.mark.parametrize("runner", ["executor_runner", "xnn_executor_runner"])
def test_runners_take_a_data_file(runner: str) -> None:
    program, data = files("kernels")
    code = f"from penstock.cli.runners import {runner} as main; main()"
    command = [sys.executable, "-c", code, "--model_path", str(program)]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    for arguments, code_, text in (
        (["--data_path", str(data)], 0, "output 0: float32 [2, 8]"),
        ([], 1, "error: the weight "),
    ):
        done = subprocess.run(
            command + arguments, capture_output=True, text=True, env=environment, timeout=60
        )
        assert done.returncode == code_ and text in done.stdout + done.stderr
        assert len((done.stdout + done.stderr).splitlines()) == (3 if code_ == 0 else 1)
