"""Mutated checkpoints: Hugging Face folders (JSON and safetensors) and GGUF files.

Each is read as ``penstock compile`` reads it: the configuration, every weight into its place, the
tokenizer, the chat template.
"""

from __future__ import annotations

import importlib
import json
import random
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fuzz.corpus import ROOT
from fuzz.mutations import INTEGERS
from fuzz.worker import check_message

#: What an entry of JSON becomes.
_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2, 3, 257, 1 << 31, 1 << 63, 10**30, -(10**30), 1e308, 5e-324,
    float("nan"), float("inf"), "", "-1", "\x1b[31m\n", "../../config.json", "x" * 4096,
    [], {}, [[]], [1, -1], {"content": 7}, "\ud800",
)  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """An honest checkpoint: its files by name; a GGUF file is the only one."""

    name: str
    files: dict[str, bytes]

    @cached_property
    def sites(self) -> list[tuple[int, str]]:
        """The numbers and texts in the header of a GGUF file: position and ``struct`` code."""
        return _gguf_sites(self.files["model.gguf"])


def make(folder: Path) -> None:
    """Writes the honest checkpoints: the tiny models of the tests. Needs torch."""
    sys.path.insert(0, str(ROOT / "tests" / "llm"))
    tiny_gguf, tiny_models = map(importlib.import_module, ("tiny_gguf", "tiny_models"))
    for name in ("llama3", "gemma3", "qwen2"):
        tiny_models.folder(name, folder)
    for name, kind in (("llama3", "F16"), ("qwen3", "Q4_0"), ("qwen3", "Q8_0")):
        place = folder / f"{name}_{kind}"
        place.mkdir(parents=True)
        tiny_gguf.write(place / "model.gguf", name, tiny_gguf.Quantization[kind])


def seeds(folder: Path) -> list[Seed]:
    return [
        Seed(place.name, {path.name: path.read_bytes() for path in sorted(place.iterdir())})
        for place in sorted(folder.iterdir())
    ]


def mutant(seed: Seed, generator: random.Random) -> tuple[str, dict[str, bytes]]:
    """What was changed, and the files."""
    files = dict(seed.files)
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        name = generator.choice(sorted(files))
        if generator.random() < 0.1:
            what, files[name] = "bytes", damaged(files[name], generator)
        elif name.endswith(".gguf"):
            what, files[name] = "header", _changed_numbers(files[name], seed.sites, generator)
        elif name.endswith(".safetensors"):
            what, files[name] = "header", _changed_header(files[name], generator)
        elif name.endswith(".json"):
            what, files[name] = "entry", changed_json(files[name], generator)
        else:
            what, files[name] = "bytes", damaged(files[name], generator)
    return f"{name} {what}", files


def damaged(data: bytes, generator: random.Random) -> bytes:
    first, second = sorted(generator.randrange(len(data) + 1) for _ in range(2))
    if generator.random() < 0.5:
        changed = bytearray(data)
        for _ in range(generator.randint(1, 8)):
            # Most of what can go wrong stands at the beginning.
            end = min(len(changed), generator.choice((64, 4096, len(changed))))
            changed[generator.randrange(end)] ^= 1 << generator.randrange(8)
        return bytes(changed)
    return generator.choice(
        (data[:second], data[:first] + data[second:], data[:second] + data[first:])
    )


def _changed_numbers(
    data: bytes, sites: Sequence[tuple[int, str]], generator: random.Random
) -> bytes:
    changed = bytearray(data)
    position, code = generator.choice(sites)
    size = struct.calcsize(f"<{code}")
    if position + size > len(changed):
        return data
    number = int.from_bytes(changed[position : position + size], "little")
    other = generator.choice((*INTEGERS, number + 1, number - 1, 2 * number))
    changed[position : position + size] = (other % (1 << (8 * size))).to_bytes(size, "little")
    return bytes(changed)


def _changed_header(data: bytes, generator: random.Random) -> bytes:
    if len(data) < 8:
        return data
    (length,) = struct.unpack("<Q", data[:8])
    if generator.random() < 0.1:
        return struct.pack("<Q", generator.choice(INTEGERS)) + data[8:]
    header = changed_json(data[8 : 8 + length], generator)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def changed_json(data: bytes, generator: random.Random) -> bytes:
    """One entry replaced, left out, renamed, doubled or taken from elsewhere; seldom nested deeper
    than any reader goes."""
    try:
        root = json.loads(data)
    except (ValueError, RecursionError):  # what an earlier change made of it
        return data
    places: list[tuple[Any, Any]] = []
    _collect(root, places)
    if generator.random() < 0.02 or not places:
        return b"[" * 100_000 + data + b"]" * 100_000
    holder, key = generator.choice(places)
    how = generator.random()
    if how < 0.15:
        del holder[key]
    elif how < 0.3:
        other, at = generator.choice(places)
        holder[key] = json.loads(json.dumps(other[at])) if at in _keys(other) else None
    elif how < 0.4 and isinstance(holder, dict):
        name = generator.choice((f"{key}_", "", "model", "dtype", "\x1b]0;x\x07"))
        holder[name] = holder.pop(key)
    elif how < 0.5 and isinstance(holder, list):
        holder.extend(holder * generator.choice((1, 50)))
    else:
        holder[key] = generator.choice(_VALUES)
    return json.dumps(root).encode()


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def _collect(value: Any, found: list[tuple[Any, Any]]) -> None:
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    # Of long tables (a vocabulary) some entries are enough, or nothing else were drawn.
    step = max(1, len(items) // 16)
    for key, inner in items[::step]:
        found.append((value, key))
        _collect(inner, found)


def _gguf_sites(data: bytes) -> list[tuple[int, str]]:
    """By the format's description, and not by the reader that is tried."""
    found: list[tuple[int, str]] = [(0, "I"), (4, "I"), (8, "Q"), (16, "Q")]
    codes = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")))
    tensors, pairs = struct.unpack_from("<QQ", data, 8)
    at = 24

    def number(code: str) -> int:
        nonlocal at
        found.append((at, code))
        (value,) = struct.unpack_from(f"<{code}", data, at)
        at += struct.calcsize(f"<{code}")
        return int(value) if value == value else 0

    def text() -> None:
        nonlocal at
        length = number("Q")
        if length:
            found.append((at, "B"))
        at += length

    def value(kind: int) -> None:
        nonlocal at
        if kind == 8:
            text()
        elif kind == 9:
            inner, count = number("I"), number("Q")
            kept = len(found) + 8
            for _ in range(count):
                value(inner)
            del found[kept:]
        else:
            number(codes[kind])

    for _ in range(pairs):
        text()
        value(number("I"))
    for _ in range(tensors):
        text()
        for _ in range(number("I")):
            number("Q")
        number("I")
        number("Q")
    return found


def case(honest: Sequence[Seed], number: int) -> tuple[Seed, str, dict[str, bytes]]:
    """Case ``number``: always the same files for the same seeds."""
    generator = random.Random(number)
    seed = generator.choice(honest)
    return (seed, *mutant(seed, generator))


def checkpoint_tries(folder: Path) -> Callable[[int], str]:
    """What tries a case: reads it, and says how far it came."""
    import torch

    import penstock.llm.export.compile  # noqa: F401  once, not in each process that tries cases

    torch.set_num_threads(1)
    honest = seeds(folder)

    def tries(number: int) -> str:
        _, _, files = case(honest, number)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            for name, data in files.items():
                (Path(place) / name).write_bytes(data)
            return read(Path(place))

    return tries


def read(place: Path) -> str:
    """Reads a folder, or the GGUF file in it. Says how far it came."""
    import torch

    from penstock.errors import OutOfMemoryError, PenstockError
    from penstock.llm.export.compile import read_checkpoint
    from penstock.llm.template import render
    from penstock.llm.text import Tokenizer

    file = place / "model.gguf"
    stage = "load"
    try:
        with torch.no_grad():
            checkpoint, _ = read_checkpoint(file if file.exists() else place, "as_stored", 16)
        stage = "run"
        tokenizer = Tokenizer(checkpoint.tokenizer)
        tokenizer.decode(tokenizer.encode("The quick brown fox, 12 times \N{SNOWMAN}."))
        if checkpoint.chat_template is not None:
            message = {"role": "user", "content": "Hello"}
            render(checkpoint.chat_template, [message], checkpoint.special_tokens)
        return "ran"
    except (PenstockError, OutOfMemoryError) as error:
        check_message(error)
        return f"refused at {stage}"
