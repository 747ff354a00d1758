"""A process that holds one language model in one runtime and measures it when it is told to.

    python -m benchmarks.llm_worker ours|stock|onnx|llama FILE THREADS

answers with a first JSON line once it has given the first token of a prompt, then with one for each
line that it reads: the name of a measurement. ``benchmarks.llm`` is the other end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.arguments import positionals

PROMPT = "The capital of France is"
#: Prose to read and to judge by: our own, so that no model has learnt it.
PROSE = Path(__file__).parent.parent / "docs" / "design.md"
#: Positions of the caches, and tokens of the long prompt that fills them.
LONGEST, FILLED = 512, 480


class Model(Protocol):
    """A loaded model with a cache."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""

    def read(self, tokens: Sequence[int], position: int) -> np.ndarray:
        """The logits [vocabulary] behind the last of ``tokens``, the first of which stands at
        ``position``; what was read before stands before it."""

    def rewind(self, position: int) -> None:
        """Forgets all from ``position`` on. Its time is not measured."""


class Ours:
    def __init__(self, path: str, threads: int) -> None:
        import penstock

        self._model = penstock.llm.load(path, threads=threads)
        self.encode = self._model.tokenizer.encode

    def read(self, tokens: Sequence[int], position: int) -> np.ndarray:
        decoder = self._model._decoder
        for begin in range(0, len(tokens), decoder.chunk):
            logits = decoder.run(tokens[begin : begin + decoder.chunk], position + begin)
        return logits

    def rewind(self, position: int) -> None: ...


class Stock:
    def __init__(self, path: str, threads: int) -> None:
        import executorch.extension.llm.custom_ops.custom_ops
        import executorch.kernels.quantized  # noqa: F401
        import tokenizers
        import torch
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime

        _unsafe_reset_threadpool(threads)
        torch.set_num_threads(1)
        self._tensor = torch.tensor
        self._method = Runtime.get().load_program(path).load_method("forward")
        beside = Path(path).parent / "hf" / "tokenizer.json"
        self._tokenizer = tokenizers.Tokenizer.from_file(str(beside))

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def read(self, tokens: Sequence[int], position: int) -> np.ndarray:
        # One call takes fewer tokens than the file has positions.
        for begin in range(0, len(tokens), 256):
            part = self._tensor([list(tokens[begin : begin + 256])])
            (logits,) = self._method.execute([part, self._tensor([position + begin])])
        found: np.ndarray = logits.numpy().reshape(-1, logits.shape[-1])[-1]
        return found

    def rewind(self, position: int) -> None: ...


class Onnx:
    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime_genai

        config = onnxruntime_genai.Config(path)
        options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = onnxruntime_genai.Model(config)
        self._tokenizer = onnxruntime_genai.Tokenizer(self._model)
        parameters = onnxruntime_genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=LONGEST)
        self._generator = onnxruntime_genai.Generator(self._model, parameters)

    def encode(self, text: str) -> list[int]:
        return [int(token) for token in self._tokenizer.encode(text)]

    def read(self, tokens: Sequence[int], position: int) -> np.ndarray:
        self._generator.append_tokens(np.array([tokens], np.int32))
        logits = self._generator.get_logits()
        found: np.ndarray = np.asarray(logits).reshape(-1, logits.shape[-1])[-1]
        return found

    def rewind(self, position: int) -> None:
        if self._generator.token_count() > position:
            self._generator.rewind_to(position)


class LlamaCpp:
    def __init__(self, path: str, threads: int) -> None:
        import llama_cpp

        self._model = llama_cpp.Llama(
            path, n_ctx=LONGEST, n_batch=LONGEST, n_threads=threads, n_threads_batch=threads,
            verbose=False,
        )  # fmt: skip

    def encode(self, text: str) -> list[int]:
        return list(self._model.tokenize(text.encode(), add_bos=False))

    def read(self, tokens: Sequence[int], position: int) -> np.ndarray:
        self._model.eval(tokens)
        pointer = self._model._ctx.get_logits()
        return np.ctypeslib.as_array(pointer, (self._model.n_vocab(),))

    def rewind(self, position: int) -> None:
        self._model._ctx.kv_cache_seq_rm(0, position, -1)
        self._model.n_tokens = position


RUNTIMES: dict[str, Callable[[str, int], Model]] = {
    "ours": Ours, "stock": Stock, "onnx": Onnx, "llama": LlamaCpp,
}  # fmt: skip


class Measurements:
    """Each gives its figures by name."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._prose = model.encode(PROSE.read_text(encoding="utf-8")[: 8 * LONGEST])[:LONGEST]

    def _best(self, count: int, tokens: Sequence[int], position: int) -> float:
        """Milliseconds of the fastest of ``count`` readings."""
        times = []
        for _ in range(count):
            self._model.rewind(position)
            begun = time.perf_counter()
            self._model.read(tokens, position)
            times.append(time.perf_counter() - begun)
        return min(times) * 1e3

    def prefill(self) -> dict[str, float]:
        return {"prefill of 128 tokens, ms": self._best(3, self._prose[:128], 0)}

    def decode(self) -> dict[str, float]:
        self._fill(8)
        return {"decode, ms a token": self._best(20, [5], 8)}

    def decode_long(self) -> dict[str, float]:
        self._fill(FILLED)
        return {f"decode at {FILLED}, ms a token": self._best(20, [5], FILLED)}

    def _fill(self, count: int) -> None:
        self._model.rewind(0)
        self._model.read(self._prose[:count], 0)

    def memory(self) -> dict[str, float]:
        """The largest resident size since the start; not by getrusage, which counts the process
        before exec too."""
        status = Path("/proc/self/status").read_text()
        return {"peak memory, MB": int(status.split("VmHWM:")[1].split()[0]) / 1024}

    def accuracy(self, judge: str, tokens: Sequence[int]) -> dict[str, float]:
        """Beside ``judge``, a file of log probabilities [tokens - 1, vocabulary]."""
        divergence, same, surprise = 0.0, 0, 0.0
        self._model.rewind(0)
        for place, theirs in enumerate(np.load(judge, mmap_mode="r")):
            theirs = np.array(theirs, np.float64)
            logits = np.array(self._model.read([tokens[place]], place), np.float64)
            shifted = logits[: theirs.size] - logits[: theirs.size].max()
            mine = shifted - np.log(np.exp(shifted).sum())
            divergence += float((np.exp(theirs) * (theirs - mine)).sum())
            same += int(mine.argmax() == theirs.argmax())
            surprise -= float(mine[tokens[place + 1]])
        count = len(tokens) - 1
        return {
            "KL divergence from the float model": divergence / count,
            "same first choice, %": 100 * same / count,
            "perplexity": float(np.exp(surprise / count)),
        }


def serve(runtime: str, path: str, threads: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    model = RUNTIMES[runtime](path, threads)
    model.rewind(0)
    first = int(model.read(model.encode(PROMPT), 0).argmax())
    measurements = Measurements(model)
    answer: Any = {"token": first}
    while True:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        line = sys.stdin.readline()
        if not line:
            return
        request = json.loads(line)
        answer = getattr(measurements, request.pop("do"))(**request)


if __name__ == "__main__":
    runtime, path, count = positionals(__doc__, "runtime", "file", "threads")
    serve(runtime, path, int(count))
