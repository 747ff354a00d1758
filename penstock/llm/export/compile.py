"""A checkpoint to a file: :func:`compile_model`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from penstock.compiler import Lowered, Quantization, lower
from penstock.compiler.progress import Progress, Silent
from penstock.errors import InputError, shorten
from penstock.faults import faults
from penstock.llm.assets import KEY, Assets
from penstock.llm.export import folder, gguf_file
from penstock.llm.export.cached import CACHES
from penstock.llm.export.checkpoint import Checkpoint, fill, reading
from penstock.llm.export.decoder import Decoder
from penstock.llm.export.head import largest_integers
from penstock.llm.export.layers import Linear, per_row
from penstock.llm.memory import require_memory

#: How weights are held. ``as_stored`` keeps GGUF's own integers.
SCHEMES = ("as_stored", "dynamic_4bit", "dynamic_per_channel", "none")
#: Tokens that a file takes at once.
CHUNK = 128
#: Positions that a file holds unless told otherwise.
LONGEST = 2048


@dataclass(frozen=True)
class CompiledModel:
    """A compiled language model. ``lowered`` has the program and its reports."""

    lowered: Lowered
    assets: Assets
    scheme: str
    longest: int

    def save(self, path: str | Path) -> list[Path]:
        """Writes the file, and the tokenizer beside it for other runtimes: ``model.pte``,
        ``model.tokenizer.json``. Returns their paths."""
        path = Path(path)
        self.lowered.save(path)
        beside = path.with_suffix(".tokenizer.json")
        with faults("write"):
            beside.write_text(self.assets.tokenizer, encoding="utf-8")
        return [path, beside]


def find_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint that a path names: a Hugging Face folder or a ``.gguf`` file.

    Raises :class:`InputError` where it is none, or damaged; :class:`UnsupportedError` for an
    architecture that is not there.
    """
    if not isinstance(source, (str, Path)):
        raise InputError(
            "a checkpoint is the path of a Hugging Face folder or of a .gguf file, not a"
            f" {type(source).__name__}"
        )
    path = Path(source)
    with reading(str(path)):
        if path.is_dir():
            return folder.read(path)
        if path.suffix == ".gguf":
            return gguf_file.read(path)
    raise InputError(f"{path} is neither a Hugging Face folder nor a .gguf file")


def compile_model(
    source: str | Path | Checkpoint,
    *,
    scheme: str | None = None,
    longest: int | None = None,
    chunk: int = CHUNK,
    cache: str = "float32",
    progress: Progress | None = None,
) -> CompiledModel:
    """Compiles a language model.

    Args:
        source: a Hugging Face folder, a ``.gguf`` file, or a checkpoint that was read.
        scheme: one of :data:`SCHEMES`; by default ``as_stored`` for GGUF and
            ``dynamic_per_channel`` for a folder.
        longest: the positions that a conversation may have; by default the checkpoint's, at most
            :data:`LONGEST`.
        chunk: the tokens that are read at once.
        cache: how keys and values are held, ``"float32"`` or ``"int8"``: a scale for each row of a
            head, about a quarter of the memory.
        progress: told of each stage.

    Raises:
        InputError: an argument is wrong, or the checkpoint damaged.
        UnsupportedError: an architecture, or a variation of one, that is not there.
    """
    progress = progress or Silent()
    for name, value in (("longest", longest), ("chunk", chunk)):
        if value is not None and not isinstance(value, int):
            raise InputError(f"{name} is {shorten(repr(value))}; it must be an integer")
    with faults("export"), torch.no_grad():
        with progress.stage("read"):
            stored = not isinstance(source, Checkpoint) and str(source).endswith(".gguf")
            scheme = scheme or ("as_stored" if stored else "dynamic_per_channel")
            checkpoint, decoder = read_checkpoint(source, scheme, longest, cache)
            longest, chunk = decoder.longest, _chunk(chunk, decoder.longest)
        lowered = _lowered(checkpoint, decoder, scheme, chunk, progress)
    assets = Assets(
        name=checkpoint.name,
        architecture=checkpoint.config.architecture,
        tokenizer=checkpoint.tokenizer,
        chunk=chunk,
        chat_template=checkpoint.chat_template,
        special_tokens=dict(checkpoint.special_tokens),
        generation=dict(checkpoint.generation),
    )
    lowered.program.named_data[KEY] = assets.encode()
    return CompiledModel(lowered, assets, scheme, longest)


def read_checkpoint(
    source: str | Path | Checkpoint,
    scheme: str,
    longest: int | None = None,
    cache: str = "float32",
) -> tuple[Checkpoint, Decoder]:
    """A checkpoint, and the decoder with its weights; takes and raises what
    :func:`compile_model` does."""
    checkpoint = source if isinstance(source, Checkpoint) else find_checkpoint(source)
    with reading(checkpoint.name):
        return checkpoint, _decoder(checkpoint, scheme, _longest(checkpoint, longest), cache)


def _longest(checkpoint: Checkpoint, longest: int | None) -> int:
    most = checkpoint.config.longest
    if longest is None:
        longest = min(most, LONGEST)
    if not 2 <= longest <= most:
        raise InputError(
            f"a longest length of {longest} was asked for; {shorten(checkpoint.name)} takes 2 to "
            f"{most}"
        )
    return longest


def _chunk(chunk: int, longest: int) -> int:
    if chunk < 2:
        raise InputError(f"a chunk of {chunk} tokens was asked for; it must be 2 or more")
    return min(chunk, longest)


def _decoder(checkpoint: Checkpoint, scheme: str, longest: int, cache: str) -> Decoder:
    for what, given, known in (("scheme", scheme, SCHEMES), ("cache", cache, CACHES)):
        if given not in known:
            raise InputError(f"unknown {what} {given!r}; the {what}s are {', '.join(known)}")
    config = checkpoint.config
    rows = 2 * len(config.layers) * config.key_heads + 8
    require_memory(
        (1 if cache == "int8" else 4) * longest * rows * config.head_size,
        f"the cache of {longest} positions",
        "give a shorter --max-length",
    )
    decoder = Decoder(config, longest, cache).eval()
    fill(decoder, checkpoint.tensors, exact_blocks=scheme == "as_stored")
    if scheme != "none":
        decoder.quantize_table(largest_integers(checkpoint) if scheme == "dynamic_4bit" else None)
    if scheme == "as_stored":
        for layer in decoder.modules():
            if isinstance(layer, Linear) and layer.weight is not None:
                layer.take_rows(*per_row(layer.weight))
    return decoder


def _lowered(
    checkpoint: Checkpoint, decoder: Decoder, scheme: str, chunk: int, progress: Progress
) -> Lowered:
    tokens = torch.export.Dim("tokens", min=1, max=chunk)
    lowered = lower(
        decoder,
        (torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)),
        dynamic_shapes={"tokens": {1: tokens}, "start": {}},
        quantize=_quantization(scheme, len(checkpoint.config.layers)),
        constant_methods=_metadata(checkpoint, decoder.longest, chunk),
        progress=progress,
    )
    return lowered


def _quantization(scheme: str, layers: int) -> Quantization | None:
    """With 4 bits the layers that suffer most from them keep 8: values, which are few, and whole
    layers at both ends. (SmolLM2: 0.56 bits a weight more, half the divergence.)"""
    if scheme == "dynamic_per_channel":
        return Quantization("dynamic_per_channel")
    if scheme != "dynamic_4bit":
        return None
    ends = layers // 15
    kept = [f"layers.{i}" for i in range(layers) if i < ends or i >= layers - ends]
    names = ["layers.*.attention.value", *kept]
    return Quantization("dynamic_4bit", overrides=dict.fromkeys(names, "dynamic_per_channel"))


def _metadata(checkpoint: Checkpoint, longest: int, chunk: int) -> dict[str, Any]:
    """What the stock runner asks a program for."""
    found: dict[str, Any] = {
        "get_max_seq_len": chunk,
        "get_max_context_len": longest,
        "get_vocab_size": checkpoint.config.vocabulary,
        "get_n_layers": len(checkpoint.config.layers),
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": False,
        "enable_dynamic_shape": True,
        "get_eos_ids": list(checkpoint.ends),
    }
    if checkpoint.begin is not None:
        found["get_bos_id"] = checkpoint.begin
    return found
