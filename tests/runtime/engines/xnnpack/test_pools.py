"""Pools of threads where the library hides pthreadpool's functions, as the one for macOS does."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import penstock
from penstock.runtime.engines.xnnpack import library, pools

STOCK = Path(__file__).parents[3] / "formats" / "stock"
TASKS = Path("/proc/self/task")


def running() -> int:
    """The threads of this process."""
    gc.collect()
    return len(list(TASKS.iterdir()))


# The words of the object are known for macOS and, by luck of the same class, for this platform.
@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="see above")
def test_a_pool_out_of_the_class_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads start and end, and both engines compute the same with them."""
    with np.load(STOCK / "image_fp32.npz") as file:
        image = file["forward|0|in0"]
    usual = {
        engine: penstock.load(STOCK / "image_fp32.pte", threads=3, engine=engine)(image)
        for engine in ("auto", "xnnpack")
    }
    siblings = library.find().parent / library.file_name(library.STEMS[1])
    hidden = replace(library.shared(), pools=pools.wrapped(ctypes.CDLL(str(siblings))))
    monkeypatch.setattr(library, "shared", lambda: hidden)
    before = running()
    for engine, answers in usual.items():
        program = penstock.load(STOCK / "image_fp32.pte", threads=3, engine=engine)
        np.testing.assert_array_equal(program(image)[0], answers[0])
        assert running() == before + 2
        del program
        assert running() == before


def test_what_has_neither_is_refused() -> None:
    with pytest.raises(AttributeError, match="ThreadPool"):
        pools.pools(ctypes.CDLL(None))
