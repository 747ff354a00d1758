"""A model compiles to the same bytes in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def compiled(seed: str, threads: int) -> dict[str, str]:
    """The hash of each file, by a process with that seed of hashes and so many threads."""
    done = subprocess.run(
        [sys.executable, HERE / "same_bytes_models.py"], capture_output=True, text=True, cwd=ROOT,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed,
            "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_hash_seeds_and_threads_change_nothing() -> None:
    first = compiled("0", 1)
    assert len(first) == len(set(first.values())) == 8
    assert compiled("12345", 2) == first
