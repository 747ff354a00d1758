"""Safetensors files: a header in JSON, and the bytes of all tensors."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from penstock.errors import InputError, UnsupportedError, shorten

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read(path: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """The tensors of a file by name, each read when it is asked for.

    Raises :class:`InputError` for a file that is damaged, or shorter than it says.
    """
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    size = len(content)
    (length,) = struct.unpack("<Q", content[:8]) if size >= 8 else (size,)
    if length > size - 8:
        raise InputError(f"{path} is truncated: it ends within its header; get it again")
    try:
        header = json.loads(content[8 : 8 + length])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {
            name: _tensor(path, name, entry, content, 8 + length) for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no safetensors file, or damaged: {shorten(error)}") from error


def _tensor(
    path: Path, name: str, entry: dict[str, Any], content: mmap.mmap, base: int
) -> Callable[[], torch.Tensor]:
    kind, shape = str(entry["dtype"]), [int(size) for size in entry["shape"]]
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if kind not in _TYPES:
        raise UnsupportedError(f"{path} has tensors of type {shorten(kind)}, which is unsupported")
    dtype = _TYPES[kind]
    count = 1
    for extent in shape:
        count *= extent
    if not 0 <= begin <= end or end - begin != count * dtype.itemsize or min(shape, default=1) < 0:
        raise ValueError(f"the offsets of {shorten(name)} make no sense")
    if base + end > len(content):
        raise InputError(
            f"{path} is truncated: {shorten(name)} ends at byte {base + end} of {len(content)}; "
            "get it again"
        )

    def load() -> torch.Tensor:
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        raw = bytearray(content[base + begin : base + end])
        return torch.frombuffer(raw, dtype=dtype).reshape(shape)

    return load
