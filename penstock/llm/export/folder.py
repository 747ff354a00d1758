"""Hugging Face folders: ``config.json``, safetensors, ``tokenizer.json`` and what lies beside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from penstock.errors import InputError, UnsupportedError, shorten
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
#: Parts that are rows of one tensor.
_FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
#: Tensors of a layer that say nothing: angles, which are computed.
_COMPUTED = ("rotary_emb.inv_freq",)
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
    """The tensors by the decoder's names.

    Raises :class:`UnsupportedError` for one of a layer that the decoder has no place for: without
    it the answers would be others.
    """
    names = {"model.embed_tokens": "embedding", "model.norm": "norm", "lm_head": "head"}
    parts = {**_LAYER, **(_WITH_NORMS_BEHIND if config.norms != "before" else {})}
    for layer in range(len(config.layers)):
        for ours, theirs in parts.items():
            names[f"model.layers.{layer}.{theirs}"] = f"layers.{layer}.{ours}"
    found: dict[str, Tensor] = {}
    for name, tensor in _apart(config, tensors).items():
        plain = name.replace("language_model.model.", "model.").replace(
            "model.language_model.", "model."
        )
        owner, _, leaf = plain.rpartition(".")
        if owner in names and leaf in ("weight", "bias"):
            found[f"{names[owner]}.{leaf}"] = _in_pairs(config, names[owner], tensor)
        elif _layer_of(plain) in range(len(config.layers)) and not plain.endswith(_COMPUTED):
            raise UnsupportedError(
                f"the checkpoint's tensor {shorten(name)} is unsupported: a model of the type "
                f"{config.architecture} has no such part here"
            )
    _check_biases(config, found)
    return found


def _in_pairs(config: DecoderConfig, owner: str, tensor: Tensor) -> Tensor:
    """Where but the beginning of each head is turned: the rows of queries and keys in an order in
    which the decoder's pairs, of one half of a head and the other, are those that turn together."""
    heads = {"query": config.heads, "key": config.key_heads}.get(owner.rpartition(".")[2])
    pairs, half = len(config.ropes[0].inverse_frequencies), config.head_size // 2
    if heads is None or pairs == half:
        return tensor
    stay = torch.arange(2 * pairs, config.head_size)
    first, second = torch.arange(pairs), torch.arange(pairs, 2 * pairs)
    order = torch.cat((first, stay[: half - pairs], second, stay[half - pairs :]))

    def load() -> torch.Tensor:
        value = tensor()
        assert isinstance(value, torch.Tensor)
        by_head = value.unflatten(0, (heads, config.head_size))
        return torch.flatten(by_head[:, order], 0, 1)

    return load


def _check_biases(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raises :class:`UnsupportedError` for a bias that the decoder does not add."""
    added = {
        "attention.query": config.query_bias, "attention.key": config.query_bias,
        "attention.value": config.query_bias, "attention.output": config.output_bias,
        "feed_forward.gate": config.feed_forward_bias, "feed_forward.up": config.feed_forward_bias,
        "feed_forward.down": config.feed_forward_bias,
    }  # fmt: skip
    for name in tensors:
        owner, _, leaf = name.rpartition(".")
        part = owner.split(".", 2)[-1]
        if leaf == "bias" and not added.get(part, False):
            raise UnsupportedError(
                f"the checkpoint has a bias for {shorten(owner)}, which its configuration does not "
                "ask for"
            )


def _layer_of(name: str) -> int | None:
    """The number of the layer that a tensor belongs to."""
    parts = name.split(".")
    if parts[:2] != ["model", "layers"] or len(parts) < 4 or not parts[2].isdecimal():
        return None
    return int(parts[2])


def _apart(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors, those that are several in one taken apart."""
    if not config.fused:
        return tensors
    size = config.head_size
    rows = {
        "self_attn.qkv_proj": (config.heads * size, *(2 * (config.key_heads * size,))),
        "mlp.gate_up_proj": 2 * (config.feed_forward,),
    }
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        fused = next((part for part in _FUSED if owner.endswith(f".{part}")), None)
        if fused is None:
            found[name] = tensor
            continue
        begin = 0
        for part, count in zip(_FUSED[fused], rows[fused], strict=True):
            found[f"{owner.removesuffix(fused)}{part}.{leaf}"] = partial(
                _rows, tensor, begin, count, sum(rows[fused]), name
            )
            begin += count
    return found


def _rows(tensor: Tensor, begin: int, count: int, whole: int, name: str) -> torch.Tensor:
    value = tensor()
    assert isinstance(value, torch.Tensor)
    if value.shape[:1] != (whole,):
        raise InputError(
            f"the checkpoint's tensor {shorten(name)} is {list(value.shape)}, its configuration "
            f"says {whole} rows"
        )
    return value[begin : begin + count]
