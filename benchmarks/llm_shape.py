"""A language model of a given shape with random weights: what compiling it takes, and running it.

    python -m benchmarks.llm_shape llama-1b [--scheme dynamic_4bit] [--threads 1,2]
        [--peers /work/peers/packages] [--write]

The weights are made when they are asked for, bfloat16 as they would be in a file. Compiling and
running have a process each; the peak of memory is the process's. With ``--peers`` llama.cpp and
ONNX Runtime GenAI run the same shape, by turns (see ``benchmarks.llm_shape_peers``). ``--write``
puts the table into ``docs/llm.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.llm import Column, machine, measure, table, write
from benchmarks.llm_shape_peers import peers_of
from benchmarks.llm_worker import LONGEST
from penstock.llm.export.checkpoint import Checkpoint, places
from penstock.llm.export.compile import compile_model
from penstock.llm.export.config import DecoderConfig, from_transformers
from penstock.llm.export.decoder import Decoder

ROOT = Path(__file__).parent.parent
BEGIN = "<!-- figures: python -m benchmarks.llm_shape llama-1b --write -->"
#: As ``config.json`` has them.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-1b": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 8192,
        "tie_word_embeddings": True, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
    },
    "tiny": {
        "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 192,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 1024, "tie_word_embeddings": True,
    },
}  # fmt: skip


def byte_tokenizer() -> str:
    """A token for each byte is enough to encode a prompt."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return str(tokenizer.to_str())


def sizes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The weights' shapes by the decoder's names."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in places(Decoder(config, 8)).items()}


def checkpoint(name: str) -> Checkpoint:
    """Random weights, each made anew when it is read."""
    config = from_transformers(SHAPES[name])
    shapes = sizes(config)

    def made(key: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        if len(shapes[key]) == 1:
            return torch.ones(shapes[key], dtype=torch.bfloat16)
        value = torch.empty(shapes[key], dtype=torch.bfloat16)
        return value.normal_(std=shapes[key][1] ** -0.5, generator=generator)

    tensors = {key: partial(made, key) for key in shapes}
    return Checkpoint(name, config, tensors, byte_tokenizer(), ends=(0,))


def peak() -> float:
    """The largest resident size of this process, MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def compile_shape(name: str, scheme: str, path: Path) -> dict[str, float]:
    source = checkpoint(name)
    weights = sum(2 * math.prod(shape) for shape in sizes(source.config).values()) / 1e6
    before, begun = peak(), time.process_time()
    model = compile_model(source, scheme=scheme, longest=LONGEST)
    model.save(path)
    return {
        "weights as bfloat16, MB": weights,
        "compile, CPU s": time.process_time() - begun,
        "compile, peak memory, MB": peak(),
        "before it, MB": before,
        "delegates a token": len(model.lowered.delegation.subgraphs),
        "file, MB": path.stat().st_size / 1e6,
    }


def compiled(shape: str, scheme: str, path: Path) -> dict[str, float]:
    """:func:`compile_shape` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.llm_shape", shape, "--scheme", scheme,
         "--compile-to", str(path)],
        stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures a language model by its shape.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--scheme", default="dynamic_4bit")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="the folder of the peers' packages")
    parser.add_argument("--write", action="store_true", help="put the table into docs/llm.md")
    parser.add_argument("--compile-to", type=Path, help=argparse.SUPPRESS)
    options: Any = parser.parse_args(arguments)
    if options.compile_to:
        print(json.dumps(compile_shape(options.shape, options.scheme, options.compile_to)))
        return
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"{options.shape}.pte"
        figures = compiled(options.shape, options.scheme, path)
        columns = [Column(f"`{options.scheme}`", "ours", path, figures)]
        packages = options.peers and options.peers.resolve()
        if packages:
            columns += peers_of(checkpoint(options.shape), Path(place), packages)
        for count in map(int, options.threads.split(",")):
            measure(columns, count, options.rounds, packages)
    text = f"Measured {machine()}.\n\n{table(columns)}"
    print(text)
    if options.write:
        write(text, BEGIN)


if __name__ == "__main__":
    main()
