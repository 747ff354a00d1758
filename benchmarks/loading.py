"""Loading and the first call, with our own kernels beside XNNPACK alone: CPU time of one thread.

    python -m benchmarks.loading FILE.pte [FILE.pte ...] [--rounds 15]

The second call's time is taken off the first one's. Engines take turns, and the least of all rounds
counts. Inputs are zeros of the declared shapes; XNNPACK sees the processor as it is, whatever
``PENSTOCK_ISA`` says.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import penstock
from penstock.runtime.specs import TensorSpec

ENGINES = ("auto", "xnnpack")


def seconds(path: Path, engine: str) -> float:
    """Of loading ``path`` and the first call, less those of a second call."""
    start = time.thread_time()
    program = penstock.load(path, engine=engine, threads=1)
    method = program.method()
    loaded = time.thread_time() - start
    specs = [spec for spec in method.inputs if isinstance(spec, TensorSpec)]
    inputs = [np.zeros(spec.shape, spec.dtype) for spec in specs]
    calls = []
    for _ in range(2):
        start = time.thread_time()
        program(*inputs)
        calls.append(time.thread_time() - start)
    return loaded + calls[0] - calls[1]


def main() -> None:
    """Prints a row of a table for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print("| file | our kernels, ms | XNNPACK alone, ms | ratio |\n| --- | --- | --- | --- |")
    for path in options.files:
        least = dict.fromkeys(ENGINES, float("inf"))
        for _ in range(options.rounds):
            for engine in ENGINES:
                least[engine] = min(least[engine], seconds(path, engine))
        ours, theirs = (1e3 * least[engine] for engine in ENGINES)
        print(f"| {path.stem} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |")


if __name__ == "__main__":
    main()
