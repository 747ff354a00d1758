"""The frame of a ``.pte`` file: identifier, extended header, segments after the flatbuffer.

Layout (little endian; facts of ExecuTorch's ``schema/extended_header.h``)::

    0   uint32  offset of the flatbuffer's root
    4   char[4] identifier, "ET12"
    8   char[4] "eh00"            from here to 40: the extended header, absent in files
    12  uint32  its length, 32    without segments
    16  uint64  bytes of the flatbuffer, this header included
    24  uint64  offset of the segments, 0 if there are none
    32  uint64  bytes of the segments (24 byte headers lack it)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from penstock.errors import InvalidProgramError, UnsupportedError
from penstock.formats.flatbuffer import other_version

IDENTIFIER = b"ET12"
_MAGIC = b"eh00"
_HEADER = struct.Struct("<4sIQQQ")
_HEADER_AT = 8
_MINIMUM_LENGTH = 24
#: Files that are taken for programs: by what they begin with, and by their identifiers.
_BEGINNINGS = {
    b"PK\3\4": "it is a zip archive, as PyTorch writes them; penstock compile makes a program of a"
    " .pt2 archive",
    b"GGUF": "it is a language model as GGUF; penstock compile makes a program of it",
    b"version ": "it is a pointer of Git LFS, not the file itself; get that with git lfs pull",
    b"\x1f\x8b": "it is compressed by gzip; unpack it",
    b"<": "it is text, a web page for instance, and not what was to be downloaded; get it again",
}
_OTHERS = {
    b"BP08": "it is a bundled program (.bpte); give the .pte file that was bundled",
    b"FT01": "it is a data file (.ptd); give it beside its program, as data",
    b"TFL3": "it is a model of TensorFlow Lite; give its model in PyTorch to penstock compile",
}


@dataclass(frozen=True)
class Frame:
    """Where things are in the file: the flatbuffer is the first ``program_size`` bytes, segment
    offsets count from ``segment_base`` and no segment goes beyond ``segment_end``."""

    program_size: int
    segment_base: int
    segment_end: int


def _what_instead(start: bytes) -> str:
    """What a file is that begins with these nine bytes, and what to do with it."""
    for beginning, what in _BEGINNINGS.items():
        if start.startswith(beginning):
            return what
    identifier = start[4:_HEADER_AT]
    if start[5:] == b"\0\0\0{":  # the length of a header in JSON
        return (
            "it holds weights alone (safetensors); give the model they are of to penstock compile"
        )
    return _OTHERS.get(
        identifier,
        f"bytes 4 to 8 are {identifier!r} instead of {IDENTIFIER!r}; give what penstock compile or"
        " ExecuTorch wrote",
    )


def read_frame(data: memoryview) -> Frame:
    """Check identifier and header of a whole file.

    Raises:
        InvalidProgramError: empty, not a .pte, or cut short.
        UnsupportedError: a .pte of another version.
    """
    size = len(data)
    if size == 0:
        raise InvalidProgramError("the program is empty (0 bytes): write it again")
    identifier = bytes(data[4:8])
    if size < _HEADER_AT or identifier != IDENTIFIER:
        version = other_version(identifier, IDENTIFIER) if size >= _HEADER_AT else None
        if version is not None:
            raise UnsupportedError(
                f"the program has format version {version}, only {IDENTIFIER.decode()} can be read:"
                " update Penstock, or compile the model again"
            )
        raise InvalidProgramError(
            f"not a .pte program: {_what_instead(bytes(data[: _HEADER_AT + 1]))}"
        )
    if data[_HEADER_AT : _HEADER_AT + 4] != _MAGIC:
        return Frame(size, 0, 0)
    if size < _HEADER_AT + _MINIMUM_LENGTH:
        raise InvalidProgramError(f"the program is cut short: {size} bytes do not hold its header")
    _, length, program_size, base, segment_size = _HEADER.unpack(
        bytes(data[_HEADER_AT : _HEADER_AT + _HEADER.size]).ljust(_HEADER.size, b"\0")
    )
    if length < _MINIMUM_LENGTH:
        raise InvalidProgramError(f"the program's extended header claims to have {length} bytes")
    if length < _HEADER.size:
        segment_size = 0
    needed = max(program_size, base + segment_size)
    if needed > size:
        raise InvalidProgramError(
            f"the program is cut short: it has {size} bytes and needs {needed}: copy it again"
        )
    # Headers of 24 bytes do not say where the segments end: the file's end bounds them.
    end = base + segment_size if segment_size else size
    return Frame(program_size, base, end if base else 0)


def insert_header(flatbuffer: bytes, segment_alignment: int, segment_size: int) -> bytes:
    """The flatbuffer with the extended header behind its identifier, padded so that the segments
    (``segment_size`` bytes) can follow. ``flatbuffer`` comes with a multiple of 16 as alignment;
    the header has 32 bytes and keeps it.
    """
    program_size = len(flatbuffer) + _HEADER.size
    padding = -program_size % segment_alignment if segment_size else 0
    base = program_size + padding if segment_size else 0
    header = _HEADER.pack(_MAGIC, _HEADER.size, program_size, base, segment_size)
    (root,) = struct.unpack_from("<I", flatbuffer)
    return b"".join(
        (
            struct.pack("<I", root + _HEADER.size),
            flatbuffer[4:_HEADER_AT],
            header,
            memoryview(flatbuffer)[_HEADER_AT:],
            bytes(padding),
        )
    )
