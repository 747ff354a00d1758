"""What reading a flatbuffer leaves behind."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

from penstock.formats.flatbuffer import decode
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
