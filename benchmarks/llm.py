"""Language models: speed, memory and accuracy of SmolLM2-135M-Instruct, beside the peers.

    python -m benchmarks.llm --peers /work/peers --write

Ours in each way of holding weights, and each file of a peer that ``benchmarks.llm_peers`` made in
the folder (without ``--peers`` ours alone). Every model has a process of its own that stays, and
they are measured by turns; the best of the rounds counts. The float model of the same checkpoint,
run eagerly, is the judge of accuracy. ``--write`` puts the table into ``docs/llm.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.llm_worker import LONGEST, PROSE
from penstock.runtime.engines.processor import processor

ROOT = Path(__file__).parent.parent
TOKENS = 400
PAGE = ROOT / "docs" / "llm.md"
BEGIN, END = "<!-- figures: python -m benchmarks.llm --write -->", "<!-- end of figures -->"
#: How weights are held, and behind a plus the cache, where it is not float32.
SCHEMES = ("as_stored", "dynamic_4bit", "dynamic_4bit+int8", "dynamic_per_channel")
#: A peer's file in the folder: its name in the table and its runtime.
PEERS = {
    "stock_8da4w.pte": ("ExecuTorch 8da4w", "stock"),
    "onnx": ("ONNX Runtime GenAI int4", "onnx"),
    "Q4_0.gguf": ("llama.cpp Q4_0", "llama"),
    "Q8_0.gguf": ("llama.cpp Q8_0", "llama"),
}
START = "start to first token, s"


@dataclass
class Column:
    """A model in the table."""

    name: str
    runtime: str
    path: Path
    figures: dict[str, float] = field(default_factory=dict)

    def best(self, found: dict[str, float], threads: int) -> None:
        for what, value in found.items():
            key = f"{what}, {threads} thread{'s' * (threads > 1)}"
            self.figures[key] = min(value, self.figures.get(key, value))


class Worker:
    """The other end of ``benchmarks.llm_worker``."""

    def __init__(self, column: Column, threads: int, packages: Path | None) -> None:
        places = [str(ROOT), *([str(packages)] if packages else [])]
        self.column = column
        # Modules are compiled once, as they are for users.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        begun = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.llm_worker", column.runtime, str(column.path),
             str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**environment, "PYTHONPATH": os.pathsep.join(places)},
        )  # fmt: skip
        self._answer()
        self.start = time.perf_counter() - begun

    def ask(self, do: str, **more: Any) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that runs {self.column.name} ended")
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def reference(tokens: Sequence[int]) -> np.ndarray:
    """Log probabilities float32 [tokens, vocabulary] of the float model, behind each token."""
    import torch

    from penstock.llm.export.checkpoint import fill
    from penstock.llm.export.compile import find_checkpoint
    from penstock.llm.export.decoder import Decoder
    from penstock.llm.export.named import find

    checkpoint = find_checkpoint(find("smollm2"))
    decoder = Decoder(checkpoint.config, LONGEST).eval()
    fill(decoder, checkpoint.tensors, exact_blocks=False)
    states: list[torch.Tensor] = []
    last = decoder.layers[-1]
    last.register_forward_hook(lambda _module, _given, made: states.append(made))
    with torch.no_grad():
        decoder(torch.tensor([list(tokens)]), torch.zeros(1, dtype=torch.int64))
        logits = decoder.head(decoder.norm(states[0]))[0]
        found: np.ndarray = torch.log_softmax(logits.double(), -1).float().numpy()
    return found


def compiled(scheme: str, folder: Path) -> Column:
    """Our file, compiled in this process (one scheme after the other: CPU seconds), by an entry of
    :data:`SCHEMES`."""
    from penstock.llm.export.compile import compile_model
    from penstock.llm.export.named import find

    begun = time.process_time()
    weights, _, cache = scheme.partition("+")
    model = compile_model(
        find("smollm2"), scheme=weights, longest=LONGEST, cache=cache or "float32"
    )
    seconds = time.process_time() - begun
    path, _ = model.save(folder / f"{scheme}.pte")
    figures = {
        "compile, CPU s": seconds,
        "file, MB": path.stat().st_size / 1e6,
        "delegates a token": len(model.lowered.delegation.subgraphs),
    }
    name = f"`{weights}`" + (f", cache `{cache}`" if cache else "")
    return Column(name, "ours", path, figures)


def peers(folder: Path) -> Iterator[Column]:
    """The peers whose files are there."""
    from penstock.formats.program import DelegateCall
    from penstock.formats.program_reader import read_program

    made = folder / "made.json"
    seconds = json.loads(made.read_text()) if made.is_file() else {}
    for file, (name, runtime) in PEERS.items():
        path = folder / file
        if not path.exists():
            continue
        files = [path] if path.is_file() else [p for p in path.iterdir() if "model" in p.name]
        figures = {"file, MB": sum(one.stat().st_size for one in files) / 1e6}
        if file in seconds:
            figures["compile, CPU s"] = seconds[file]
        if runtime == "stock":
            method = read_program(path.read_bytes()).method("forward")
            assert method is not None
            calls = [i for i in method.instructions if isinstance(i, DelegateCall)]
            figures["delegates a token"] = len(calls)
        yield Column(name, runtime, path, figures)


@contextmanager
def started(column: Column, threads: int, packages: Path | None) -> Iterator[Worker]:
    worker = Worker(column, threads, packages)
    column.best({START: worker.start}, threads)
    try:
        yield worker
    finally:
        worker.close()


def measure(columns: Sequence[Column], threads: int, rounds: int, packages: Path | None) -> None:
    """Speed, the start and memory, by turns."""
    with ExitStack() as stack:
        workers = [stack.enter_context(started(c, threads, packages)) for c in columns]
        for _ in range(rounds):
            for what in ("prefill", "decode", "decode_long"):
                for worker in workers:
                    worker.column.best(worker.ask(what), threads)
        for worker in workers:
            worker.column.best(worker.ask("memory"), threads)
    for _ in range(2):
        for column in columns:
            with started(column, threads, packages):
                pass


def judge(columns: Sequence[Column], threads: int, packages: Path | None, folder: Path) -> None:
    """Accuracy on prose."""
    from penstock.llm import load

    ours = next(column for column in columns if column.runtime == "ours")
    tokens = load(ours.path).tokenizer.encode(PROSE.read_text(encoding="utf-8"))[:TOKENS]
    np.save(folder / "reference.npy", reference(tokens[:-1]))
    for column in columns:
        with started(column, threads, packages) as worker:
            found = worker.ask("accuracy", judge=str(folder / "reference.npy"), tokens=tokens)
            column.figures |= found


def table(columns: Sequence[Column]) -> str:
    """Markdown: a column for each model."""
    names = list(dict.fromkeys(name for column in columns for name in column.figures))
    # What a file is first, then how good, then how fast.
    order = ["compile", "file", "delegates", "KL", "same", "perplexity", "prefill", "decode,"]
    rank = {
        name: next((i for i, o in enumerate(order) if name.startswith(o)), 99) for name in names
    }
    lines = ["| | " + " | ".join(c.name for c in columns) + " |"]
    lines.append("| --- |" + " --- |" * len(columns))
    for name in sorted(names, key=lambda name: rank[name]):
        cells = (_cell(column.figures.get(name)) for column in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def machine() -> str:
    """One line about where and when."""
    date = time.strftime("%Y-%m-%d")
    return f"{date}, {os.cpu_count()} CPUs of {processor()}"


def write(text: str, begin: str = BEGIN) -> None:
    """Puts the table between its marks in the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(begin)
    _, after = rest.split(END, 1)
    PAGE.write_text(f"{before}{begin}\n{text}\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures language models.")
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--peers", type=Path, help="the folder that benchmarks.llm_peers made")
    parser.add_argument("--write", action="store_true", help="put the table into docs/llm.md")
    options: Any = parser.parse_args(arguments)
    packages = options.peers and options.peers.resolve() / "packages"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        columns = [compiled(scheme, folder) for scheme in options.schemes.split(",")]
        if options.peers:
            columns += peers(options.peers.resolve())
        threads = [int(one) for one in options.threads.split(",")]
        for count in threads:
            measure(columns, count, options.rounds, packages)
        judge(columns, threads[-1], packages, folder)
    text = f"Measured {machine()}.\n\n{table(columns)}"
    print(text)
    if options.write:
        write(text)


if __name__ == "__main__":
    main()
