"""Language models: speed, memory and accuracy of SmolLM2-135M-Instruct, by ways of holding weights.

    python -m benchmarks.llm [--schemes as_stored,dynamic_4bit,dynamic_per_channel] [--threads 1,2]

Each file is measured in a process of its own, by turns; the best of the rounds counts. The float
model of the same checkpoint, run eagerly, is the judge of accuracy. ``--stock FILE`` adds a file of
the stock flow, run by its own runtime.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Prose to judge by: our own, so that no model has learnt it.
PROSE = Path(__file__).parent.parent / "docs" / "design.md"
TOKENS = 400
LONGEST = 512

#: What one process measures of a file: run with the path and the number of threads.
MEASURE = """
import json, sys, time
start = time.perf_counter()
import numpy as np
import penstock
model = penstock.llm.load(sys.argv[1], threads=int(sys.argv[2]))
next(iter(model.stream("The capital of France is", max_tokens=1)))
first = time.perf_counter() - start
run = model._decoder.run
def best(count, tokens, position):
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        run(tokens, position)
        times.append(time.perf_counter() - begun)
    return min(times) * 1e3
status = open("/proc/self/status").read()  # getrusage counts the process before exec, too
found = {
    "start to first token, s": first,
    "prefill of 128, ms": best(5, list(range(100, 228)), 0),
    "decode, ms": best(40, [5], 8),
    "decode at 480, ms": best(40, [5], 480),
    "peak memory, MB": int(status.split("VmHWM:")[1].split()[0]) / 1024,
}
print(json.dumps(found))
"""

STOCK = """
import json, sys, time
import torch
import executorch.extension.llm.custom_ops.custom_ops
import executorch.kernels.quantized
from executorch.runtime import Runtime
method = Runtime.get().load_program(sys.argv[1]).load_method("forward")
def best(count, tokens, position):
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        method.execute([torch.tensor([tokens]), torch.tensor([position])])
        times.append(time.perf_counter() - begun)
    return min(times) * 1e3
print(json.dumps({
    "prefill of 128, ms": best(3, list(range(100, 228)), 0),
    "decode, ms": best(20, [5], 8),
    "decode at 480, ms": best(20, [5], 480),
}))
"""


def measured(code: str, path: Path, threads: int) -> dict[str, float]:
    """What a process of its own finds."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(threads)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def reference(tokens: Sequence[int]) -> np.ndarray:
    """Log probabilities float64 [tokens, vocabulary] of the float model, behind each token."""
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
        found: np.ndarray = torch.log_softmax(logits.double(), -1).numpy()
    return found


def accuracy(path: Path, tokens: Sequence[int], float_model: np.ndarray) -> dict[str, float]:
    """Perplexity, KL divergence from the float model, and how often the first choice is its."""
    from penstock.llm import load

    decoder = load(path)._decoder
    divergence, same, surprise = 0.0, 0, 0.0
    for place, token in enumerate(tokens[:-1]):
        logits = decoder.run([token], place).astype(np.float64)
        shifted = logits - logits.max()
        ours = shifted - np.log(np.exp(shifted).sum())
        theirs = float_model[place]
        divergence += float((np.exp(theirs) * (theirs - ours)).sum())
        same += int(ours.argmax() == theirs.argmax())
        surprise -= float(ours[tokens[place + 1]])
    count = len(tokens) - 1
    return {
        "perplexity": float(np.exp(surprise / count)),
        "KL divergence": divergence / count,
        "same first choice": same / count,
    }


def compiled(scheme: str, folder: Path) -> tuple[Path, dict[str, float]]:
    from penstock.llm.export.compile import compile_model
    from penstock.llm.export.named import find

    begun = time.process_time()
    model = compile_model(find("smollm2"), scheme=scheme, longest=LONGEST)
    seconds = time.process_time() - begun
    path, _ = model.save(folder / f"{scheme}.pte")
    return path, {
        "compile, CPU s": seconds,
        "file, MB": path.stat().st_size / 1e6,
        "delegates a token": len(model.lowered.delegation.subgraphs),
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: a column for each file."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ["| | " + " | ".join(rows) + " |", "| --- |" + " --- |" * len(rows)]
    for name in names:
        cells = (f"{row[name]:.4g}" if name in row else "" for row in rows.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures language models.")
    parser.add_argument("--schemes", default="as_stored,dynamic_4bit,dynamic_per_channel")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stock", type=Path, help="a file of the stock flow to measure beside")
    options: Any = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        rows: dict[str, dict[str, float]] = {}
        files: dict[str, tuple[Path, str]] = {}
        for scheme in options.schemes.split(","):
            path, rows[scheme] = compiled(scheme, Path(place))
            files[scheme] = (path, MEASURE)
        if options.stock:
            files["stock"], rows["stock"] = (options.stock, STOCK), {}
        for count in map(int, options.threads.split(",")):
            for _ in range(options.rounds):
                for name, (path, code) in files.items():
                    for what, value in measured(code, path, count).items():
                        key = f"{what}, {count} thread{'s' * (count > 1)}"
                        rows[name][key] = min(value, rows[name].get(key, value))
        from penstock.llm import load

        first = next(path for path, code in files.values() if code is MEASURE)
        tokens = load(first).tokenizer.encode(PROSE.read_text(encoding="utf-8"))[:TOKENS]
        judge = reference(tokens)
        for name, (path, code) in files.items():
            if code is MEASURE:
                rows[name] |= accuracy(path, tokens, judge)
        print(table(rows))


if __name__ == "__main__":
    main()
