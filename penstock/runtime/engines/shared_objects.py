"""Opening shared libraries: one that was cut short is an error and not the end of the process."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ELF_64 = b"\x7fELF\x02\x01"


def open_shared(path: Path) -> ctypes.CDLL:
    """The library at ``path``.

    Raises OSError where it cannot be loaded. The loader maps what an ELF file says that it has, and
    reads it: behind the end of a truncated file that is a SIGBUS.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        header = file.read(_HEADER.size)
        if header.startswith(_ELF_64) and len(header) == _HEADER.size:
            fields = _HEADER.unpack(header)
            segments, sections = fields[5:7]
            segment_size, segment_count, section_size, section_count = fields[9:13]
            end = sections + section_size * section_count
            file.seek(segments)
            for _ in range(segment_count if segment_size == _SEGMENT.size else 0):
                entry = file.read(_SEGMENT.size)
                if len(entry) == _SEGMENT.size:
                    end = max(end, sum(_SEGMENT.unpack(entry)[2:6:3]))
            if end > size:
                raise OSError(f"it has {size:,} of {end:,} bytes")
    return ctypes.CDLL(str(path))
