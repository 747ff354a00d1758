"""``make demo``: MobileNetV2 in fp32 and int8, compiled, run on a real picture, and compared.

python3 -m examples.xnnpack.demo
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import penstock
from penstock.cli.console import Stages, errors_in_one_line
from penstock.cli.pipeline import Outcome, Request, compile_model, sqnr

MODEL = "mv2"
THREADS = (1, 2)


def latency(path: Path, inputs: tuple[Any, ...], threads: int, runs: int = 50) -> float:
    """Milliseconds of the best run with ``threads`` threads."""
    program = penstock.load(path, threads=threads)
    for _ in range(5):
        program(*inputs)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        program(*inputs)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def top(values: np.ndarray, count: int = 5) -> set[int]:
    """The places of the ``count`` largest values."""
    return set(np.argsort(values.ravel())[-count:].tolist())


def row(outcome: Outcome, picture: np.ndarray, eager: np.ndarray) -> list[str]:
    (answer,) = penstock.load(outcome.path)(picture)
    return [
        outcome.path.name,
        f"{outcome.size / 1e6:.2f}",
        f"{outcome.lowered.delegation.share:.0%}",
        *(f"{latency(outcome.path, (picture,), n):.2f}" for n in THREADS),
        f"{len(top(answer) & top(eager))}/5",
        f"{sqnr(eager, np.asarray(answer)):.1f}",
    ]


def main() -> None:
    stages = Stages()
    with errors_in_one_line():
        outcomes = []
        for quantize in (False, True):
            stages.say(f"MobileNetV2, {'int8' if quantize else 'fp32'}")
            outcomes.append(compile_model(Request(source=MODEL, quantize=quantize), stages))
        import torch

        from penstock import zoo

        model = zoo.create(MODEL)
        picture = model.args[0].numpy()
        with torch.no_grad():
            eager = model.module(*model.args).numpy()
        table = Table(title="MobileNetV2 on a photograph, against eager PyTorch")
        table.add_column("file", no_wrap=True)
        milliseconds = (f"ms, {n} thread{'s' if n > 1 else ''}" for n in THREADS)
        for column in ("MB", "in XNNPACK", *milliseconds, "same top 5", "SQNR, dB"):
            table.add_column(column, justify="right")
        for outcome in outcomes:
            table.add_row(*row(outcome, picture, eager))
        Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
