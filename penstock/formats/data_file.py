"""Weights in a file of their own (``.ptd``), and how they come to the program that needs them.

Layout (little endian; facts of ExecuTorch's ``extension/flat_tensor``)::

    0   uint32  offset of the flatbuffer's root
    4   char[4] identifier, "FT01"
    8   char[4] "FH01"            from here to 48: the header
    12  uint32  its length, 40
    16  uint64  bytes before the flatbuffer's content, 48 (the header, padded)
    24  uint64  bytes of the flatbuffer
    32  uint64  offset of the segments
    40  uint64  bytes of the segments
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.errors import InputError, InvalidProgramError, UnsupportedError, shorten
from penstock.formats.blobs import as_bytes
from penstock.formats.flatbuffer import Table, decode, other_version
from penstock.formats.program import Buffer, Program, ScalarType, Tensor
from penstock.formats.schema import load

IDENTIFIER = b"FT01"
_MAGIC = b"FH01"
_HEADER = struct.Struct("<4sIQQQQ")
_HEADER_AT = 8
#: The only version of the tables that there is.
_VERSION = 0


@dataclass(frozen=True)
class NamedData:
    """A piece of data. Tensors have a dtype, a shape and a dim order (``None``: contiguous);
    what belongs to a delegate has bytes alone."""

    data: memoryview
    dtype: ScalarType | None = None
    shape: tuple[int, ...] = ()
    dim_order: tuple[int, ...] | None = None

    def layout(self) -> str:
        return _layout(self.dtype, self.shape, self.dim_order)


def read_data_file(data: Buffer) -> dict[str, NamedData]:
    """Read and check a data file; the pieces are views into ``data``, which must live as long as
    they are used.

    Raises:
        InvalidProgramError: the bytes are empty, not a .ptd, cut short or damaged.
        UnsupportedError: another version of the format.
    """
    view = as_bytes(data)
    flatbuffer, base, end = _frame(view)
    root = decode(load("data"), flatbuffer, "the data file")
    if root.version != _VERSION:
        raise UnsupportedError(
            f"the data file has version {root.version} of its tables, only {_VERSION} can be read"
        )
    segments = [_segment(view, i, s, base, end) for i, s in enumerate(root.segments or ())]
    found: dict[str, NamedData] = {}
    for entry in root.named_data or ():
        if not entry.key:
            raise InvalidProgramError("a piece of the data file has no name")
        if entry.key in found:
            raise InvalidProgramError(
                f"two pieces of the data file have the name {shorten(entry.key)!r}"
            )
        if entry.segment_index >= len(segments):
            raise InvalidProgramError(
                f"the data {shorten(entry.key)!r} is in segment {entry.segment_index} of the data"
                f" file, which has {len(segments)}"
            )
        found[entry.key] = _piece(entry, segments[entry.segment_index])
    return found


def _frame(view: memoryview) -> tuple[memoryview, int, int]:
    """The flatbuffer, and where the segments begin and end."""
    size = len(view)
    identifier = bytes(view[4:_HEADER_AT])
    if identifier != IDENTIFIER:
        version = other_version(identifier, IDENTIFIER)
        if version is not None:
            raise UnsupportedError(
                f"the data file has format version {version}, only"
                f" {IDENTIFIER.decode()} can be read"
            )
        raise InvalidProgramError(
            f"not a data file (.ptd): bytes 4 to 8 are {identifier!r} instead of {IDENTIFIER!r}"
        )
    if size < _HEADER_AT + _HEADER.size:
        raise InvalidProgramError(f"the data file is cut short: {size} bytes hold no header")
    magic, length, start, flatbuffer_size, base, segments_size = _HEADER.unpack_from(
        view, _HEADER_AT
    )
    if magic != _MAGIC or length < _HEADER.size:
        raise InvalidProgramError(
            f"the data file's header is damaged: it begins with {magic!r} and claims to have"
            f" {length} bytes"
        )
    needed = max(start + flatbuffer_size, base + segments_size)
    if needed > size:
        raise InvalidProgramError(
            f"the data file is cut short: it has {size} bytes and needs {needed}: copy it again"
        )
    return view[: start + flatbuffer_size], base, base + segments_size


def _segment(view: memoryview, index: int, table: Table, base: int, end: int) -> memoryview:
    start = base + table.offset
    if start + table.size > end:
        raise InvalidProgramError(
            f"segment {index} of the data file ({table.size} bytes at {start}) ends beyond byte"
            f" {end}: the file is damaged"
        )
    return view[start : start + table.size]


def _piece(entry: Table, data: memoryview) -> NamedData:
    layout = entry.tensor_layout
    if layout is None:
        return NamedData(data)
    shape = tuple(layout.sizes or ())
    order = None if layout.dim_order is None else tuple(layout.dim_order[: len(shape) + 1])
    contiguous = tuple(range(len(shape)))
    if min(shape, default=0) < 0 or (order is not None and tuple(sorted(order)) != contiguous):
        raise InvalidProgramError(
            f"the data {shorten(entry.key)!r} has the shape {shorten(shape)} and the dim order"
            f" {shorten(order)}"
        )
    order = None if order == contiguous else order
    return NamedData(data, ScalarType(layout.scalar_type), shape, order)


def attach(program: Program, pieces: Mapping[str, NamedData]) -> None:
    """Give the program's external tensors and its delegates what ``pieces`` has for them.

    External tensors for which there is nothing stay without data.

    Raises:
        InputError: a piece is not what the program's tensor of that name needs, or the program
            has named data of that name itself. Nothing has been changed then.
    """
    twice = sorted(program.named_data.keys() & pieces.keys())
    if twice:
        raise InputError(
            f"the data {shorten(twice[0])!r} is there twice: the program, or another data file, has"
            " it too; give the data files that were written with this program"
        )
    found = [
        (tensor, _data_for(tensor, piece))
        for tensor in _external_tensors(program)
        if (piece := pieces.get(tensor.name or "")) is not None
    ]
    for tensor, data in found:
        tensor.data = data
    program.named_data.update((key, piece.data) for key, piece in pieces.items())


def _external_tensors(program: Program) -> Iterable[Tensor]:
    for method in program.methods:
        for value in method.values:
            if isinstance(value, Tensor) and value.external:
                yield value


def _data_for(tensor: Tensor, piece: NamedData) -> memoryview:
    wanted = _layout(tensor.dtype, tensor.shape, tensor.dim_order)
    if (piece.dtype, piece.shape, piece.dim_order) != (
        tensor.dtype,
        tensor.shape,
        tensor.dim_order,
    ):
        raise InputError(
            f"the weight {shorten(tensor.name)!r} is {wanted} in the program and"
            f" {piece.layout()} in the data file: give the data file that belongs to the program"
        )
    size = tensor.nbytes
    if len(piece.data) < size:
        raise InvalidProgramError(
            f"the weight {shorten(tensor.name)!r} ({wanted}) takes {size} bytes, the data file has"
            f" {len(piece.data)}"
        )
    # Equal objects are one piece of data (see Tensor.data).
    return piece.data if len(piece.data) == size else piece.data[:size]


def _layout(
    dtype: ScalarType | None, shape: tuple[int, ...], dim_order: tuple[int, ...] | None
) -> str:
    if dtype is None:
        return "no tensor"
    text = f"{dtype.name} {shorten(list(shape))}"
    return text if dim_order is None else f"{text} in the dim order {shorten(dim_order)}"
