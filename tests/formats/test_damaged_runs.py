"""Damaged programs, run: nothing in a file may bring the process down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("first", [0, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_file_brings_the_process_down(first: int) -> None:
    count = 2000 if first == 0 else 8000
    paths = [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, HERE / "formats_damage.py", str(first), str(count)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    last = process.stdout.splitlines()[-1:]
    assert process.returncode == 0, f"case {last}: {process.stderr[-2000:]}"
