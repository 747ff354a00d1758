"""GGUF's quantized types: to :class:`Blocks` where their blocks are of 32 and of 4 or 8 bits, to
real numbers otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from penstock.llm.export.blocks import Blocks

BLOCK = 32


def q4_0(data: np.ndarray) -> Blocks:
    """uint8 [rows, blocks, 18]: a float16 scale, 32 nibbles that stand for -8 … 7."""
    return _blocks(_nibbles(data[..., 2:]) - 8, _halves(data, 0), None, 4)


def q4_1(data: np.ndarray) -> Blocks:
    """uint8 [rows, blocks, 20]: a float16 scale, a float16 minimum, 32 nibbles of 0 … 15."""
    scales = _halves(data, 0)
    offsets = _halves(data, 2) + 8 * scales
    return _blocks(_nibbles(data[..., 4:]) - 8, scales, offsets, 4)


def q8_0(data: np.ndarray) -> Blocks:
    """uint8 [rows, blocks, 34]: a float16 scale, 32 int8."""
    return _blocks(np.ascontiguousarray(data[..., 2:]).view(np.int8), _halves(data, 0), None, 8)


def q4_k(data: np.ndarray) -> Blocks:
    """uint8 [rows, blocks of 256, 144]: float16 factors of the scales and of the minima, eight of
    each in 6 bits, then for each 64 elements 32 low and 32 high nibbles."""
    rows = data.shape[0]
    packed = data[..., 4:16]
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate([first & 63, third & 15 | (first >> 6) << 4], -1)
    minima = np.concatenate([second & 63, third >> 4 | (second >> 6) << 4], -1)
    scale = _halves(data, 0)[..., None] * scales
    offset = 8 * scale - _halves(data, 2)[..., None] * minima
    pairs = data[..., 16:].reshape(*data.shape[:-1], 4, 32)
    nibbles = np.stack([pairs & 15, pairs >> 4], -2).astype(np.int8) - 8
    return _blocks(
        nibbles.reshape(rows, -1, BLOCK), scale.reshape(rows, -1), offset.reshape(rows, -1), 4
    )


#: Type's name in GGUF → bytes of a block, and what takes it apart.
FORMATS: dict[str, tuple[int, Callable[[np.ndarray], Blocks]]] = {
    "Q4_0": (18, q4_0),
    "Q4_1": (20, q4_1),
    "Q8_0": (34, q8_0),
    "Q4_K": (144, q4_k),
}


def _halves(data: np.ndarray, offset: int) -> np.ndarray:
    raw = np.ascontiguousarray(data[..., offset : offset + 2])
    halves: np.ndarray = raw.view(np.float16)[..., 0].astype(np.float32)
    return halves


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Low halves first, then the high ones: int8."""
    return np.concatenate([packed & 15, packed >> 4], -1).astype(np.int8)


def _blocks(
    integers: np.ndarray, scales: np.ndarray, offsets: np.ndarray | None, bits: int
) -> Blocks:
    flat = torch.from_numpy(np.ascontiguousarray(integers).reshape(integers.shape[0], -1))
    return Blocks(
        flat,
        torch.from_numpy(np.ascontiguousarray(scales, np.float32)),
        None if offsets is None else torch.from_numpy(np.ascontiguousarray(offsets, np.float32)),
        bits,
    )
