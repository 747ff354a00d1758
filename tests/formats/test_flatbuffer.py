"""What reading a flatbuffer leaves behind."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from penstock.formats.flatbuffer import decode, other_version
from penstock.formats.program_header import read_frame
from penstock.formats.schema import load


def test_tables_go_with_their_root(stock_file: Path) -> None:
    """And do not wait for the garbage collector, which may come when memory is at its most."""
    view = memoryview(stock_file.read_bytes())
    gc.collect()
    gc.disable()
    try:
        root = decode(load("program"), view[: read_frame(view).program_size], "the program")
        plan = weakref.ref(root.execution_plan[0])
        assert plan() is not None
        del root
        assert plan() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("identifier", "version"),
    [(b"XN02", "XN02"), (b"XN0\0", None), (b"XN\x101", None), (b"XN\xff1", None), (b"XN", None),
     (b"ET12", None)],
)  # fmt: skip
def test_a_version_is_named_only_where_it_is_one(identifier: bytes, version: str | None) -> None:
    """What a damaged file has in its place is no text to show people."""
    assert other_version(identifier, b"XN00") == version
