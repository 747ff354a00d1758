"""A worker whose runtime dies at case 7, hangs at case 12 and fails at case 20."""

from __future__ import annotations

import ctypes
import sys

import fuzz.worker as worker
from fuzz.mutations import Mutant, Seed

_at = 0


def _case(seeds: list[Seed], number: int) -> tuple[Seed, Mutant]:
    global _at
    _at = number
    return seeds[0], Mutant("nothing", b"", None)


def _run(hostile: Mutant) -> str:
    if _at == 7:
        ctypes.string_at(0)
    while _at == 12:
        pass
    if _at == 20:
        raise ValueError("not one of Penstock's")
    return "ran"


if __name__ == "__main__":
    worker.case = _case
    worker.penstock_run = lambda engine: _run
    worker.main(*sys.argv[1:])
