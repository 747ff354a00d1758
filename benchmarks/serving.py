"""``python -m benchmarks.serving``: one program and 1 to 8 callers at a time.

Throughput, latencies and memory of MobileNetV2 in a pool of clones, in one clone for each caller,
in one load for each caller, and in one session of ONNX Runtime, each in a process of its own.
Writes the tables into docs/reliability.md. Needs the files that ``make bench`` leaves in
``build/measured``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks.machine import describe
from benchmarks.sections import table, write_section
from penstock.runtime.pool import Pool
from penstock.runtime.program import load
from penstock.tools.bench.worker import runtime
from penstock.tools.samples import read_inputs

FOLDER = ROOT / "build" / "measured"
PRECISIONS = {"fp32": "fp32", "q8": "int8"}
CALLERS = (1, 2, 4, 8)
#: Makes the call of one caller.
Caller = Callable[[], Any]


def pool(path: Path, inputs: list[Any], callers: int) -> list[Caller]:
    """As many clones as CPUs."""
    lent = Pool(load(path, threads=1))
    return [lambda: lent(*inputs)] * callers


def clones(path: Path, inputs: list[Any], callers: int) -> list[Caller]:
    program = load(path, threads=1)
    every = [program, *(program.clone() for _ in range(callers - 1))]
    return [lambda one=one: one(*inputs) for one in every]  # type: ignore[misc]


def loads(path: Path, inputs: list[Any], callers: int) -> list[Caller]:
    every = [load(path, threads=1) for _ in range(callers)]
    return [lambda one=one: one(*inputs) for one in every]  # type: ignore[misc]


def session(path: Path, inputs: list[Any], callers: int) -> list[Caller]:
    run = runtime("onnxruntime", 1).load(str(path), ())
    return [lambda: run(inputs)] * callers


#: The ways to serve: what makes the callers, the ending of the file, and how the page calls it.
WAYS = {
    "pool": (pool, "_ours.pte", "a `Pool`, a clone for each CPU"),
    "clones": (clones, "_ours.pte", "a clone for each caller"),
    "loads": (loads, "_ours.pte", "a load for each caller"),
    "onnxruntime": (session, ".onnx", "ONNX Runtime, one session of 1 thread"),
}


def measure(way: str, precision: str, callers: int, seconds: float) -> dict[str, float]:
    """Calls a second, percentiles of the latency in ms, and what the process grew by, in MB."""
    make, ending, _ = WAYS[way]
    path = FOLDER / f"mv2_{precision}{ending}"
    inputs = read_inputs(str(FOLDER / "mv2.0.in.npz"))
    if way == "onnxruntime":
        runtime("onnxruntime", 1)  # its library is no part of what a session takes
    else:
        load(FOLDER / f"mv2_{precision}_ours.pte")
    before = resident()
    made = make(path, inputs, callers)
    crowd = Crowd(made)
    crowd.run(min(1.0, seconds))
    calls, times = crowd.run(seconds)
    p50, p95, p99 = np.percentile(times, (50, 95, 99)) * 1e3
    grown = (resident() - before) / 1e6
    return {"rate": calls / seconds, "p50": p50, "p95": p95, "p99": p99, "grown": grown}


class Crowd:
    """Threads that call as fast as they are answered."""

    def __init__(self, callers: list[Caller]) -> None:
        self._callers = callers

    def run(self, seconds: float) -> tuple[int, list[float]]:
        """How many calls ended within ``seconds``, and how long each took."""
        barrier = threading.Barrier(len(self._callers) + 1)
        times: list[list[float]] = [[] for _ in self._callers]
        end = [0.0]

        def call(one: Caller, found: list[float]) -> None:
            one()
            barrier.wait()
            now = time.perf_counter()
            while now < end[0]:
                one()
                before, now = now, time.perf_counter()
                found.append(now - before)

        pairs = zip(self._callers, times, strict=True)
        threads = [threading.Thread(target=call, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        end[0] = time.perf_counter() + 3600  # until all have made their first call
        barrier.wait()
        end[0] = time.perf_counter() + seconds
        for thread in threads:
            thread.join()
        every = [one for found in times for one in found]
        # The last call of each ended too late.
        return max(1, len(every) - len(self._callers)), every


def resident() -> int:
    """Bytes of this process that are in memory and no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("no RssAnon in /proc/self/status")


def in_a_process(way: str, precision: str, callers: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.serving", "--one", way, precision, str(callers)]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def page(found: dict[tuple[str, str, int], dict[str, float]]) -> str:
    machine = describe()
    parts = [f"On {machine['processor']} ({machine['features']}), {machine['date']}:\n"]
    for precision, words in PRECISIONS.items():
        rates, latencies = [], []
        for way, (_, _, name) in WAYS.items():
            if (way, precision, 1) not in found:
                continue
            each = [found[way, precision, callers] for callers in CALLERS]
            rates.append([name, *(f"{e['rate']:.0f}" for e in each), f"{each[-1]['grown']:.0f}"])
            latencies.append(
                [name, *(f"{e['p50']:.1f} / {e['p95']:.1f} / {e['p99']:.1f}" for e in each)]
            )
        head = [f"{n} caller{'s' if n > 1 else ''}" for n in CALLERS]
        memory = f"MB for {CALLERS[-1]}"
        parts.append(table([f"{words}, calls a second", *head, memory], rates))
        parts.append(table([f"{words}, ms (p50 / p95 / p99)", *head], latencies))
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        way, precision, callers = arguments.one
        print(json.dumps(measure(way, precision, int(callers), arguments.seconds)))
        return
    found = {}
    for precision in PRECISIONS:
        for callers in CALLERS:
            for way, (_, ending, _) in WAYS.items():
                if not (FOLDER / f"mv2_{precision}{ending}").exists():
                    print(f"{FOLDER} has no mv2_{precision}{ending}: make bench", file=sys.stderr)
                    continue
                one = in_a_process(way, precision, callers, arguments.seconds)
                print(way, precision, callers, {key: round(v, 2) for key, v in one.items()})
                found[way, precision, callers] = one
    write_section("reliability.md", "serving", page(found))


if __name__ == "__main__":
    main()
