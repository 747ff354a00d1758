"""Weights beyond the 2 GiB that a flatbuffer can hold."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from large_model import LAYERS, SIZE

from penstock.runtime.free_memory import available_memory

HERE = Path(__file__).parent
WEIGHTS_MIB = 4 * LAYERS * SIZE * SIZE >> 20


def child(*arguments: str | Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, HERE / "large_model.py", *arguments], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_three_gib_of_weights(tmp_path: Path) -> None:
    """They are in memory once when compiling, and once, packed, when running; the stock runtime
    gives the same answer."""
    if available_memory() >> 20 < 3 * WEIGHTS_MIB:
        pytest.skip("this machine has too little memory")
    assert WEIGHTS_MIB > 2048
    made = child("compile", tmp_path)
    assert made["peak_mib"] < 1.25 * WEIGHTS_MIB
    assert (tmp_path / "large.pte").stat().st_size < (WEIGHTS_MIB << 20) * 1.001
    for engine in ("auto", "xnnpack"):
        found = child("run", tmp_path, engine)
        assert found["error"] < 1e-5
        assert found["peak_mib"] < 1.5 * WEIGHTS_MIB
    if importlib.util.find_spec("executorch"):
        assert child("stock", tmp_path)["error"] < 1e-5
