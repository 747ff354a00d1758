"""The end that may crash: ``python -m fuzz.worker RUNTIME CORPUS BOARD`` (see :mod:`fuzz.drive`).

Reads ``FIRST COUNT`` lines and answers each with one line of JSON: how many cases ended how, or
what the process died of that tried them, a fork of this one. The number of the case at work and
the process stand in the file BOARD, so that whoever watches knows what was dead or hanging.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import random
import resource
import struct
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fuzz.corpus import LARGE, MANY_ELEMENTS, corpus
from fuzz.mutations import Mutant, Seed, mutant
from penstock.errors import InternalError, PenstockError

if TYPE_CHECKING:
    from penstock.runtime.method import Method

#: What a process may map beyond what it has when it begins; docs/security.md states it.
MEMORY = 2 << 30

#: Calls of each method: the first finds the short way of a small program, the second is recorded,
#: those after it are replayed (``penstock/runtime/replay.py``).
CALLS = 4

#: What stands on the board: a case, -1 if none is at work, and a process.
BOARD = struct.Struct("<qq")

Run = Callable[[Mutant], str]


def case(seeds: Sequence[Seed], number: int) -> tuple[Seed, Mutant]:
    """Case ``number``: always the same file for the same seeds."""
    generator = random.Random(number)
    small = [seed for seed in seeds if len(seed.program) < LARGE]
    large = [seed for seed in seeds if len(seed.program) >= LARGE]
    seed = generator.choice(large if large and generator.random() < 0.02 else small)
    return seed, mutant(seed, generator)


def penstock_run(engine: str) -> Run:
    """Loads with ``engine`` and runs every method a few times; says how far the file came."""
    import penstock
    from penstock.cli.feeds import ones
    from penstock.formats.sources import KEY, decode_sources

    def run(hostile: Mutant) -> str:
        stage = "load"
        try:
            data = () if hostile.data_file is None else (hostile.data_file,)
            program = penstock.load(hostile.program, data=data, threads=1, engine=engine)
            repr(program)
            if KEY in program.program.named_data:
                stage = "source map"
                decode_sources(program.program.named_data[KEY])
            for name in program.methods:
                stage = "prepare"
                method = program.method(name)
                tensors = [s for s in method.inputs if isinstance(s, penstock.TensorSpec)]
                if any(math.prod(spec.shape) > MANY_ELEMENTS for spec in tensors):
                    return "too large to run"
                inputs = ones(method.inputs)
                stage = "run"
                for _ in range(CALLS):
                    method.run(inputs)
                if any(spec.dynamic for spec in tensors):
                    _other_sizes(method, inputs)
            return "ran"
        except penstock.PenstockError as error:
            check_message(error)
            return f"refused at {stage}"

    return run


def _other_sizes(method: Method, inputs: Sequence[Any]) -> None:
    """Calls at half the sizes and without elements, whatever comes of them, between calls at those
    of ``inputs``: memory is planned anew each time."""
    for part in (2, 1, math.inf, 1, math.inf):
        given = [
            np.ascontiguousarray(one[tuple(slice(int(size // part)) for size in one.shape)])
            if getattr(spec, "dynamic", False)
            else one
            for one, spec in zip(inputs, method.inputs, strict=True)
        ]
        try:
            method.run(given)
        except PenstockError as error:
            check_message(error)


def check_message(error: Exception) -> None:
    """Raises AssertionError where an error is not one that people can be shown, or a fault of
    Penstock's own."""
    message = str(error)
    if isinstance(error, InternalError):
        raise AssertionError(message) from error
    if not 10 < len(message) < 1000 or not all(c.isprintable() for c in message):
        raise AssertionError(f"unfit to be printed: {message!r}") from error


def main(runtime: str, folder: str, board_path: str) -> None:
    if runtime == "checkpoints":
        from fuzz.checkpoints import checkpoint_tries

        serve(checkpoint_tries(Path(folder)), board_path)
        return
    if runtime == "inputs":
        from fuzz.inputs import input_tries

        serve(input_tries(), board_path)
        return
    if runtime == "graphs":
        from fuzz.graphs import graph_tries

        serve(graph_tries(Path(folder)), board_path)
        return
    seeds = corpus(Path(folder))
    run = _stock_run() if runtime == "executorch" else penstock_run(runtime)
    serve(lambda number: run(case(seeds, number)[1]), board_path)


def serve(tries: Callable[[int], str], board_path: str) -> None:
    """Answers the lines of the standard input: ``tries`` takes the number of a case and says how
    it ended."""
    limit = _mapped() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(board_path, "r+b") as file:
        board = mmap.mmap(file.fileno(), BOARD.size)
    print("ready", flush=True)
    for line in sys.stdin:
        first, count = map(int, line.split())
        child = os.fork()
        if child == 0:
            print(json.dumps(_tried(tries, first, count, board)), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status):
            print(json.dumps({"died": os.waitstatus_to_exitcode(status)}), flush=True)


def _tried(tries: Callable[[int], str], first: int, count: int, board: mmap.mmap) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    for number in range(first, first + count):
        BOARD.pack_into(board, 0, number, os.getpid())
        try:
            outcomes[tries(number)] += 1
        except Exception as error:
            outcomes["failed"] += 1
            failures.append((number, f"{type(error).__name__}: {error}"[:300]))
    BOARD.pack_into(board, 0, -1, 0)
    return {"outcomes": outcomes, "failures": failures}


def _stock_run() -> Run:
    from fuzz.stock import stock_run

    return stock_run()


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


if __name__ == "__main__":
    main(*sys.argv[1:])
