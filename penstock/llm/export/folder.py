"""Hugging Face folders: ``config.json``, safetensors, ``tokenizer.json`` and what lies beside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.errors import InputError, shorten
from penstock.llm.export import safetensors
from penstock.llm.export.checkpoint import Checkpoint, Tensor, check_vocabulary, largest_token
from penstock.llm.export.config import DecoderConfig, from_transformers
from penstock.llm.text import Tokenizer

#: The decoder's names of a layer's parts → transformers'.
_LAYER = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
_WITH_NORMS_BEHIND = {
    "norm_behind_attention": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "norm_behind_feed_forward": "post_feedforward_layernorm",
}
_GENERATION = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def read(path: Path) -> Checkpoint:
    """The checkpoint in a folder.

    Raises :class:`InputError` where a file is missing, damaged or does not fit the others;
    :class:`UnsupportedError` for an architecture that is not there.
    """
    raw = _json(path, "config.json", "it says what the model is")
    config = from_transformers(raw)
    tokenizer = _json(path, "tokenizer.json", "it turns text into tokens")
    check_vocabulary(config, largest_token(tokenizer), str(path))
    text = (path / "tokenizer.json").read_text(encoding="utf-8")
    Tokenizer(text)  # raises for JSON that is none
    settings = _json_if_there(path, "tokenizer_config.json")
    generation = _json_if_there(path, "generation_config.json")
    specials = _special_tokens(settings, _json_if_there(path, "special_tokens_map.json"))
    ends = _ids(generation.get("eos_token_id", raw.get("eos_token_id")))
    ids = {token["content"]: int(token["id"]) for token in tokenizer.get("added_tokens", [])}
    if not ends and specials.get("eos_token") in ids:
        ends = (ids[specials["eos_token"]],)
    begin = _ids(raw.get("bos_token_id", generation.get("bos_token_id")))
    return Checkpoint(
        name=path.resolve().name,
        config=config,
        tensors=_named(config, _tensors(path)),
        tokenizer=text,
        chat_template=_template(path, settings),
        special_tokens=specials,
        generation={
            key: float(generation[key]) for key in _GENERATION if generation.get(key) is not None
        },
        begin=begin[0] if begin else None,
        ends=ends,
    )


def _json(path: Path, name: str, why: str) -> dict[str, Any]:
    file = path / name
    if not file.is_file():
        raise InputError(f"{path} has no {name}: {why}; give a whole Hugging Face folder")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON: {shorten(error)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} holds a {type(found).__name__}, not an object")
    return found


def _json_if_there(path: Path, name: str) -> dict[str, Any]:
    return _json(path, name, "") if (path / name).is_file() else {}


def _special_tokens(*sources: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in sources:
        for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
            value = source.get(key)
            text = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(text, str):
                found.setdefault(key, text)
    return found


def _template(path: Path, settings: Mapping[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):  # several by name
        named = {entry.get("name"): entry.get("template") for entry in found}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(int(one) for one in (value if isinstance(value, list) else [value]))


def _tensors(path: Path) -> dict[str, Tensor]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        shards: Iterable[str] = set(_json(path, index.name, "").get("weight_map", {}).values())
    else:
        shards = sorted(file.name for file in path.glob("*.safetensors"))
    found: dict[str, Tensor] = {}
    for shard in sorted(shards):
        if Path(shard).name != shard:
            raise InputError(f"{index} names {shorten(shard)}, which is no file beside it")
        if not (path / shard).is_file():
            raise InputError(f"{path} has no {shorten(shard)}, which {index.name} names")
        found.update(safetensors.read(path / shard))
    if not found:
        other = any(path.glob("*.bin"))
        raise InputError(
            f"{path} has no .safetensors"
            + ("; convert its .bin files with transformers' save_pretrained" if other else "")
        )
    return found


def _named(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the decoder's names."""
    names = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    parts = {**_LAYER, **(_WITH_NORMS_BEHIND if config.norms_behind else {})}
    for layer in range(len(config.layers)):
        for ours, theirs in parts.items():
            names[f"layers.{layer}.{ours}"] = f"model.layers.{layer}.{theirs}"
    found: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        for leaf in ("weight", "bias"):
            for name in (
                theirs,
                theirs.replace("model.", "language_model.model.", 1),
                theirs.replace("model.", "model.language_model.", 1),
            ):
                if f"{name}.{leaf}" in tensors:
                    found[f"{ours}.{leaf}"] = tensors[f"{name}.{leaf}"]
    return found
