"""Pieces of data, each once, and where they lie in a file."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.formats.blobs import Blobs, as_bytes, lay_out


@given(st.lists(st.sampled_from([b"", b"a", b"aa", b"ab", bytes(200), bytes(199) + b"x"])))
def test_equal_pieces_have_one_number(pieces: list[bytes]) -> None:
    blobs = Blobs()
    numbers = [blobs.add(bytearray(piece)) for piece in pieces]
    assert [bytes(blobs.pieces[number]) for number in numbers] == pieces
    assert len(blobs.pieces) == len(set(pieces))


def test_pieces_that_differ_where_nothing_was_sampled() -> None:
    one, other = bytearray(6400), bytearray(6400)
    other[1] = 1  # every hundredth byte is sampled
    blobs = Blobs()
    assert blobs.add(one) != blobs.add(other)


def test_bytes_of_all_sorts_of_buffers() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert bytes(as_bytes(array)) == array.tobytes()
    assert np.shares_memory(np.frombuffer(as_bytes(array), np.uint8), array)
    assert bytes(as_bytes(np.empty((2, 0), np.float32))) == b""


@given(st.lists(st.binary(max_size=40)), st.sampled_from([1, 4, 16]), st.integers(0, 50))
def test_pieces_lie_aligned_where_the_offsets_say(
    pieces: list[bytes], alignment: int, start: int
) -> None:
    offsets, chunks = lay_out([memoryview(piece) for piece in pieces], alignment, start)
    file = b"-" * start + b"".join(chunks)
    for piece, offset in zip(pieces, offsets, strict=True):
        assert offset % alignment == 0 and file[offset : offset + len(piece)] == piece
