"""The structure of a GGUF file: its key-value pairs, and where each tensor lies.

Each count and length is compared with what is left of the file before anything is read or made by
it, so that a damaged file takes no more time or memory than its own size.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from penstock.errors import InputError, UnsupportedError, shorten

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
#: Type of a value → NumPy's.
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8",
    11: "<i8", 12: "<f8",
}  # fmt: skip
_DIMENSIONS = 4


class Damaged(ValueError):
    """The bytes are no GGUF file; the message says why."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file. ``shape`` is as PyTorch's, the last extent the contiguous one; ``kind``
    is the name of its type; ``data`` are its bytes, uint8 [rows, bytes of a row]."""

    name: str
    kind: str
    shape: tuple[int, ...]
    data: np.ndarray


@dataclass(frozen=True)
class Contents:
    """``fields`` are numbers, booleans, texts, and lists of these."""

    fields: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


def read_contents(path: Path) -> Contents:
    """What a file holds; tensors are mapped, not read.

    Raises :class:`InputError` for a file that is no GGUF file, damaged or truncated,
    :class:`UnsupportedError` for one of another version.
    """
    try:
        return _Reader(np.memmap(path, np.uint8, "r"), path).contents()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or shorten(error)}") from error
    except ValueError as error:  # Damaged, an empty file, bytes that are no UTF-8
        raise InputError(
            f"{path} is no GGUF file, or damaged or truncated ({shorten(error)}); get it again"
        ) from error


class _Reader:
    def __init__(self, data: np.ndarray, path: Path) -> None:
        self._data, self._path, self._at = data, path, 0

    def contents(self) -> Contents:
        if self._bytes(4) != _MAGIC:
            raise Damaged("it does not begin with GGUF")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise UnsupportedError(
                f"{self._path} is of GGUF's version {version}; 2 and 3 are supported, in the byte "
                "order of most machines"
            )
        tensors, pairs = self._number("<Q"), self._number("<Q")
        # No pair takes less than 13 bytes, no tensor less than 24.
        self._fits(13 * pairs + 24 * tensors, "its counts")
        fields: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._text()
            if key in fields:
                raise Damaged(f"{shorten(key)} is there twice")
            fields[key] = self._value(self._number("<I"))
        entries = [self._entry() for _ in range(tensors)]
        alignment = fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise Damaged(f"an alignment of {shorten(alignment)} makes no sense")
        base = -(-self._at // alignment) * alignment
        found = {entry[0]: self._tensor(base, *entry) for entry in entries}
        if len(found) != len(entries):
            raise Damaged("two tensors have one name")
        return Contents(fields, found)

    def _fits(self, size: int, what: str) -> None:
        if size > len(self._data) - self._at:
            raise Damaged(f"{what} at byte {self._at} end behind the file")

    def _bytes(self, size: int) -> bytes:
        self._fits(size, "bytes")
        self._at += size
        return self._data[self._at - size : self._at].tobytes()

    def _number(self, code: str) -> int:
        (found,) = struct.unpack(code, self._bytes(struct.calcsize(code)))
        return int(found)

    def _text(self) -> str:
        return self._bytes(self._number("<Q")).decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner == _STRING:
                self._fits(8 * count, "texts")
                return [self._text() for _ in range(count)]
            return self._scalars(inner, count)
        return self._scalars(kind, 1)[0]

    def _scalars(self, kind: int, count: int) -> list[Any]:
        if kind not in _SCALARS:
            raise Damaged(f"a value at byte {self._at} is of the type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        raw = np.frombuffer(self._bytes(count * dtype.itemsize), np.uint8)
        found: list[Any] = (raw != 0 if kind == 7 else raw.view(dtype)).tolist()
        return found

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """A tensor's name, shape, type and place."""
        name, count = self._text(), self._number("<I")
        if count > _DIMENSIONS:
            raise Damaged(f"{shorten(name)} has {count} dimensions")
        shape = tuple(self._number("<Q") for _ in range(count))
        return name, shape[::-1], self._number("<I"), self._number("<Q")

    def _tensor(
        self, base: int, name: str, shape: tuple[int, ...], kind: int, offset: int
    ) -> StoredTensor:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            known = GGMLQuantizationType(kind)
        except ValueError as error:
            raise UnsupportedError(
                f"{shorten(name)} in {self._path} has the type {kind}, which is unsupported"
            ) from error
        block, size = GGML_QUANT_SIZES[known]
        row, count = (shape[-1] if shape else 1), prod(shape)
        if row % block:
            raise Damaged(f"rows of {shorten(name)} are {row} long, blocks of its type {block}")
        begin, end = base + offset, base + offset + count // block * size
        if end > len(self._data):
            raise Damaged(f"{shorten(name)} ends behind the file")
        data = self._data[begin:end].reshape(-1 if count else 0, row // block * size)
        return StoredTensor(name, known.name, shape, data)
