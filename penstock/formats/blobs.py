"""Pieces of data that a file holds once, however often they are referred to."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.formats.program import Buffer

_SAMPLE = 64


def as_bytes(data: Any) -> memoryview:
    """The bytes of a contiguous buffer (bytes, memoryview, NumPy array ...), not copied."""
    view = memoryview(data)
    # memoryview.cast refuses shapes with a zero in them.
    return view.cast("B") if view.nbytes else memoryview(b"")


class Blobs:
    """Gives each different piece of data a number, in the order of arrival.

    Equal pieces get the same number. Objects seen before are recognized by identity; others are
    compared byte by byte, but only with pieces of the same length and the same sampled bytes, so
    that nothing large is hashed or read without need.
    """

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []
        # Keeping the objects keeps their ids from being used again.
        self._objects: dict[tuple[int, int], tuple[Any, int]] = {}
        self._candidates: dict[tuple[int, bytes], list[int]] = {}

    def add(self, data: Buffer | np.ndarray[Any, Any]) -> int:
        """The number of ``data``."""
        view = as_bytes(data)
        key = (id(data), len(view))
        known = self._objects.get(key)
        if known is None:
            known = self._objects[key] = (data, self._number(view))
        return known[1]

    def find(self, data: Buffer | np.ndarray[Any, Any]) -> int | None:
        """The number of a piece equal to ``data``, if there is one."""
        view = as_bytes(data)
        return self._equal(view, self._candidates.get(_sample(view), []))

    def _number(self, view: memoryview) -> int:
        candidates = self._candidates.setdefault(_sample(view), [])
        number = self._equal(view, candidates)
        if number is not None:
            return number
        candidates.append(len(self.pieces))
        self.pieces.append(view)
        return candidates[-1]

    def _equal(self, view: memoryview, candidates: list[int]) -> int | None:
        array = np.frombuffer(view, np.uint8)
        for number in candidates:
            if np.array_equal(np.frombuffer(self.pieces[number], np.uint8), array):
                return number
        return None


def _sample(view: memoryview) -> tuple[int, bytes]:
    stride = max(1, len(view) // _SAMPLE)
    return (len(view), bytes(view[::stride]))


def lay_out(
    pieces: list[memoryview], alignment: int, start: int = 0
) -> tuple[list[int], list[Buffer]]:
    """Offsets of the pieces, each a multiple of ``alignment``, and the chunks (padding among them)
    that follow one another from ``start`` on."""
    offsets: list[int] = []
    chunks: list[Buffer] = []
    position = start
    for piece in pieces:
        padding = -position % alignment
        if padding:
            chunks.append(bytes(padding))
        position += padding
        offsets.append(position)
        chunks.append(piece)
        position += len(piece)
    return offsets, chunks
