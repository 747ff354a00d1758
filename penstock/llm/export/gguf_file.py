"""GGUF files: sizes, tensors, tokenizer and chat template in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penstock.errors import (
    BackendUnavailableError,
    InputError,
    UnsupportedError,
    install_hint,
    shorten,
)
from penstock.files import readable
from penstock.llm.export.blocks import Blocks
from penstock.llm.export.checkpoint import Checkpoint, Tensor, check_vocabulary
from penstock.llm.export.config import DecoderConfig, layer_count
from penstock.llm.export.gguf_blocks import FORMATS
from penstock.llm.export.gguf_header import Contents, StoredTensor, read_contents
from penstock.llm.export.gguf_tokenizer import GgufVocabulary, special_texts, tokenizer_json
from penstock.llm.export.rope import Rope, rope

_NAMES = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}
_LAYER = {
    "attention.query": "attn_q", "attention.key": "attn_k", "attention.value": "attn_v",
    "attention.output": "attn_output", "attention.query_norm": "attn_q_norm",
    "attention.key_norm": "attn_k_norm", "attention_norm": "attn_norm",
    "feed_forward_norm": "ffn_norm", "feed_forward.gate": "ffn_gate", "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down", "norm_behind_attention": "post_attention_norm",
    "norm_behind_feed_forward": "post_ffw_norm",
}  # fmt: skip
_FLOATS = ("F32", "F16", "BF16", "F64")
#: GGUF's name of an architecture → ours.
_ARCHITECTURES = {
    "llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma",
    "gemma2": "gemma2", "gemma3": "gemma3_text",
}  # fmt: skip
#: Gemma's largest models scale scores by another size; files do not say it, their depth does.
_BY_WIDTH = {("gemma2", 46), ("gemma3_text", 62)}


class _Metadata:
    """The key-value pairs of a file; ``*`` in a key is the architecture."""

    def __init__(self, fields: Mapping[str, Any], architecture: str) -> None:
        self.fields, self.architecture = fields, architecture

    def get(self, key: str, default: Any = None) -> Any:
        return self.fields.get(key.replace("*", self.architecture), default)

    def need(self, key: str) -> Any:
        found = self.get(key)
        if found is None:
            name = key.replace("*", self.architecture)
            raise InputError(f"the GGUF file has no {name}; it is no whole language model")
        return found


def read(path: Path) -> Checkpoint:
    """The checkpoint in a GGUF file.

    Raises :class:`InputError` for a file that is damaged or truncated, :class:`UnsupportedError`
    for an architecture, a tokenizer or a type of tensors that is not there.
    """
    contents = _contents(path)
    architecture = str(contents.fields.get("general.architecture", ""))
    data = _Metadata(contents.fields, architecture)
    if architecture not in _ARCHITECTURES:
        raise UnsupportedError(
            f"the architecture {shorten(architecture) or 'without a name'} is unsupported; "
            f"{', '.join(_ARCHITECTURES)} are supported"
        )
    raw = contents.tensors
    config = _config(data, raw)
    vocabulary = GgufVocabulary.read(data.get, data.need)
    check_vocabulary(config, len(vocabulary.tokens) - 1, str(path))
    end = data.get("tokenizer.ggml.eos_token_id")
    turn = data.get("tokenizer.ggml.eot_token_id")
    ends = [int(one) for one in (end, turn) if one is not None]
    begin = data.get("tokenizer.ggml.bos_token_id")
    return Checkpoint(
        name=path.stem,
        config=config,
        tensors=_named(config, raw),
        tokenizer=tokenizer_json(vocabulary),
        chat_template=data.get("tokenizer.chat_template"),
        special_tokens=special_texts(vocabulary, begin, end),
        begin=None if begin is None else int(begin),
        ends=tuple(dict.fromkeys([*ends, *vocabulary.ends_of_turns()])),
    )


def _contents(path: Path) -> Contents:
    if find_spec("gguf") is None:
        raise BackendUnavailableError(
            f"reading {path.name} needs gguf, which is not installed: {install_hint('llm')}"
        )
    return read_contents(readable(path))


def _config(data: _Metadata, raw: Mapping[str, StoredTensor]) -> DecoderConfig:
    kind = _ARCHITECTURES[data.architecture]
    gemma = kind.startswith("gemma")
    heads, width = int(data.need("*.attention.head_count")), int(data.need("*.embedding_length"))
    layers = layer_count(data.need("*.block_count"))
    size = int(data.get("*.attention.key_length") or width // max(heads, 1))
    if int(data.get("*.rope.dimension_count") or size) != size:
        raise UnsupportedError("rotary embedding of a part of each head is unsupported")
    if "token_embd.weight" not in raw:
        raise InputError("the GGUF file has no token_embd.weight; it is no whole language model")
    if int(data.get("*.expert_count") or 0):
        raise UnsupportedError("a mixture of experts is unsupported")
    window = int(data.get("*.attention.sliding_window") or 0)
    longest = int(data.get("*.context_length") or 2048)
    windowed = _windowed(kind, layers) if window else (False,) * layers
    scored = width // heads if (kind, layers) in _BY_WIDTH else size
    return DecoderConfig(
        architecture=kind,
        vocabulary=raw["token_embd.weight"].shape[0],
        width=width,
        feed_forward=int(data.need("*.feed_forward_length")),
        heads=heads,
        key_heads=int(data.get("*.attention.head_count_kv") or heads),
        head_size=size,
        layers=windowed,
        ropes=_ropes(data, raw, kind, size, longest),
        norm_epsilon=float(data.need("*.attention.layer_norm_rms_epsilon")),
        longest=longest,
        tied="output.weight" not in raw,
        activation="gelu_tanh" if gemma else "silu",
        window=window if any(windowed) else 0,
        query_bias="blk.0.attn_q.bias" in raw,
        output_bias="blk.0.attn_output.bias" in raw,
        feed_forward_bias="blk.0.ffn_up.bias" in raw,
        query_key_norms="head" if "blk.0.attn_q_norm.weight" in raw else "",
        norms="both" if kind in ("gemma2", "gemma3_text") else "before",
        norm_offset=False,  # it is in the weights
        score_scale=float(scored) ** -0.5,
        score_cap=float(data.get("*.attn_logit_softcapping") or 0) if kind == "gemma2" else 0.0,
        logit_cap=float(data.get("*.final_logit_softcapping") or 0) if gemma else 0.0,
        embedding_scale=width**0.5 if gemma else 1.0,
    )


def _windowed(kind: str, layers: int) -> tuple[bool, ...]:
    if kind == "gemma2":
        return tuple(i % 2 == 0 for i in range(layers))
    if kind == "gemma3_text":
        return tuple((i + 1) % 6 != 0 for i in range(layers))
    return (kind in ("mistral", "llama"),) * layers


def _ropes(
    data: _Metadata, raw: Mapping[str, StoredTensor], kind: str, size: int, longest: int
) -> tuple[Rope, Rope]:
    parameters: dict[str, Any] = {"rope_theta": float(data.get("*.rope.freq_base") or 10000.0)}
    scaling = str(data.get("*.rope.scaling.type") or "none")
    if scaling == "longrope":
        raise UnsupportedError("rope scaling 'longrope' is unsupported in GGUF files")
    if scaling != "none":
        parameters["rope_type"] = scaling
        parameters["factor"] = float(data.need("*.rope.scaling.factor"))
        original = data.get("*.rope.scaling.original_context_length")
        if original:
            parameters["original_max_position_embeddings"] = int(original)
    every = rope(parameters, size, longest)
    if "rope_freqs.weight" in raw:  # Llama 3's scaling, worked out
        factors = _real(raw["rope_freqs.weight"]).flatten().tolist()
        scaled = [f / by for f, by in zip(every.inverse_frequencies, factors, strict=True)]
        every = Rope(tuple(scaled), every.factor)
    if kind == "gemma3_text":
        local = float(data.get("*.rope.freq_base_swa") or 10000.0)
        return every, rope({"rope_theta": local}, size, longest)
    return every, every


def _real(tensor: StoredTensor) -> torch.Tensor:
    import gguf

    if tensor.kind == "BF16":
        raw = np.ascontiguousarray(tensor.data).view(np.int16)
        found = torch.from_numpy(raw.copy()).view(torch.bfloat16).to(torch.float32)
    else:
        kind = gguf.GGMLQuantizationType[tensor.kind]
        found = torch.from_numpy(np.array(gguf.dequantize(tensor.data, kind), np.float32))
    return found.reshape(tensor.shape)


def _value(tensor: StoredTensor) -> torch.Tensor | Blocks:
    if tensor.kind in FORMATS and tensor.data.size:
        size, unpack = FORMATS[tensor.kind]
        return unpack(np.asarray(tensor.data).reshape(len(tensor.data), -1, size))
    try:
        return _real(tensor)
    except NotImplementedError as error:
        raise UnsupportedError(
            f"{shorten(tensor.name)} has the type {tensor.kind}, which is unsupported"
        ) from error


def _named(config: DecoderConfig, raw: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    names = dict(_NAMES)
    for layer in range(len(config.layers)):
        names |= {f"layers.{layer}.{ours}": f"blk.{layer}.{name}" for ours, name in _LAYER.items()}
    found: dict[str, Tensor] = {}
    for ours, name in names.items():
        for leaf in ("weight", "bias"):
            tensor = raw.get(f"{name}.{leaf}")
            if tensor is not None:
                found[f"{ours}.{leaf}"] = _loader(config, ours, tensor)
    return found


def _loader(
    config: DecoderConfig, ours: str, tensor: StoredTensor
) -> Callable[[], torch.Tensor | Blocks]:
    heads = {"query": config.heads, "key": config.key_heads}.get(ours.rpartition(".")[2])
    # Llama's files have the two halves of each head's rows in turns.
    in_turns = heads is not None and config.architecture in ("llama", "mistral")

    def load() -> torch.Tensor | Blocks:
        value = _value(tensor)
        if not in_turns:
            return value
        rows = torch.arange(value.shape[0]).view(heads or 1, -1, 2).transpose(1, 2).flatten()
        return value.rows(rows) if isinstance(value, Blocks) else value[rows]

    return load
