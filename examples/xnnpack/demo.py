"""``make demo``: two image models in fp32 and int8, compiled, run on photographs, and compared.

MobileNetV2 has random weights; EfficientNet-Lite0 has learned ImageNet, and says what it sees.

python3 -m examples.xnnpack.demo
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import penstock
from penstock import zoo
from penstock.cli.console import Stages, errors_in_one_line
from penstock.cli.pipeline import Outcome, Request, compile_model
from penstock.labels import guesses, read_labels
from penstock.tools.agreement import sqnr

MODELS = ("mv2", "efficientnet_lite0")
#: The model that knows what is in a picture.
TRAINED = "efficientnet_lite0"
PHOTOGRAPHS = ("a Chinese palace", "a flower")
THREADS = (1, 2)
#: How many of the likeliest classes are shown.
SHOWN = 3


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


def measured(outcomes: Sequence[Outcome]) -> Table:
    """Sizes, times, and how near the answers are to eager PyTorch's."""
    import torch

    # 80 columns wide.
    table = Table(
        title="On a photograph, against eager PyTorch", box=None, pad_edge=False,
        collapse_padding=True,
    )  # fmt: skip
    table.add_column("file", no_wrap=True)
    milliseconds = (f"ms, {n}\nthread{'s' if n > 1 else ''}" for n in THREADS)
    for column in ("MB", "in\nXNNPACK", *milliseconds, "same\ntop 5", "SQNR,\ndB"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in MODELS:
        model = zoo.create(name)
        with torch.no_grad():
            eager = model.module(*model.args).numpy()
        for outcome in outcomes:
            if outcome.name == name:
                table.add_row(*row(outcome, model.args[0].numpy(), eager))
    return table


def recognized(outcomes: Sequence[Outcome]) -> Table:
    """What the trained model takes the photographs for, in fp32 and in int8."""
    model, names = zoo.create(TRAINED), read_labels("imagenet")
    table = Table(title="What EfficientNet-Lite0 sees, with its probabilities")
    table.add_column("", no_wrap=True)
    for outcome in outcomes:
        table.add_column("fp32" if outcome.scheme is None else "int8")
    programs = [penstock.load(outcome.path) for outcome in outcomes]
    for photograph, (picture,) in zip(
        PHOTOGRAPHS, model.calibration(len(PHOTOGRAPHS)), strict=True
    ):
        answers = []
        for program in programs:
            _, (found,) = guesses(program(picture), names)
            answers.append("\n".join(f"{g.probability:.2f} {g.name}" for g in found[:SHOWN]))
        table.add_row(photograph, *answers)
    return table


def main() -> None:
    stages = Stages()
    with errors_in_one_line():
        outcomes = []
        for name in MODELS:
            for quantize in (False, True):
                stages.say(f"{zoo.entry(name).summary}, {'int8' if quantize else 'fp32'}")
                outcomes.append(compile_model(Request(source=name, quantize=quantize), stages))
        console = Console(highlight=False)
        console.print(measured(outcomes))
        trained = [outcome for outcome in outcomes if outcome.name == TRAINED]
        if trained[0].notice is None:
            console.print(recognized(trained))


if __name__ == "__main__":
    main()
