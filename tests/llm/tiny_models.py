"""Tiny random models of each architecture: transformers' own, saved as Hugging Face folders."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from penstock.zoo.libraries import require

VOCABULARY = 300
LONGEST = 48
#: A turn of nine tokens and three more, then a second turn of five and two more.
TURNS = (9, 1, 1, 1, 5, 1, 1)
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
)

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257,
}  # fmt: skip
_HEAD = {**_SIZES, "head_dim": 32}
_LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
_YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_LONG = {"max_position_embeddings": 256, "original_max_position_embeddings": 64}
_LONGROPE: dict[str, Any] = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64,
}  # fmt: skip


def _divisors(pairs: int) -> dict[str, list[float]]:
    return {
        "short_factor": [1 + 0.1 * i for i in range(pairs)], "long_factor": [2.0] * pairs
    }  # fmt: skip


#: name → transformers' configuration class, and its arguments
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": ("LlamaConfig", _SIZES),
    "llama3": (
        "LlamaConfig", {**_HEAD, "rope_parameters": _LLAMA_3, "tie_word_embeddings": True}
    ),
    "llama_yarn_biases": (
        "LlamaConfig",
        {**_HEAD, "rope_parameters": _YARN, "attention_bias": True, "mlp_bias": True},
    ),
    "mistral": ("MistralConfig", {**_HEAD, "sliding_window": 6}),
    "qwen2": (
        "Qwen2Config",
        {**_SIZES, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", {**_HEAD, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2Config", {**_HEAD, "sliding_window": 6, "query_pre_attn_scalar": 20}),
    "gemma3": (
        "Gemma3TextConfig",
        {**_HEAD, "sliding_window": 6, "query_pre_attn_scalar": 20,
         "layer_types": ["sliding_attention", "full_attention"]},
    ),
}  # fmt: skip
#: Other architectures, and the same ones in other sizes.
MORE_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("GemmaConfig", _HEAD),
    "gemma2_biases": (
        "Gemma2Config",
        {**_HEAD, "sliding_window": 5, "tie_word_embeddings": False, "attention_bias": True},
    ),
    "ministral": ("MinistralConfig", {**_HEAD, "sliding_window": 6}),
    "phi3": ("Phi3Config", {**_SIZES, "sliding_window": 6}),
    "phi3_whole": ("Phi3Config", {**_SIZES, "num_key_value_heads": 1}),
    "smollm3": (
        "SmolLM3Config", {**_SIZES, "no_rope_layer_interval": 2}
    ),
    "smollm3_windows": (
        "SmolLM3Config",
        {**_SIZES, "num_hidden_layers": 3, "no_rope_layers": [1, 1, 0], "use_sliding_window": True,
         "sliding_window": 6, "attention_bias": True,
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "olmo2": ("Olmo2Config", {**_SIZES, "attention_bias": True}),
    "granite": (
        "GraniteConfig",
        {**_SIZES, "embedding_multiplier": 3.0, "residual_multiplier": 0.3,
         "attention_multiplier": 0.1, "logits_scaling": 8.0, "attention_bias": True},
    ),
    "seed_oss": ("SeedOssConfig", {**_HEAD, "attention_out_bias": True}),
    "seed_oss_plain": ("SeedOssConfig", _HEAD),
    "llama_dynamic": (
        "LlamaConfig",
        {**_SIZES,
         "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "phi3_long": (
        "Phi3Config", {**_SIZES, **_LONG, "rope_parameters": {**_LONGROPE, **_divisors(8)}}
    ),
    "phi3_part": (
        "Phi3Config",
        {**_SIZES, **_LONG, "partial_rotary_factor": 0.75,
         "rope_parameters": {**_LONGROPE, **_divisors(6), "partial_rotary_factor": 0.75}},
    ),
    # as GGUF files have them, which do not say all
    "qwen2_plain": ("Qwen2Config", _SIZES),
    "gemma2_plain": (
        "Gemma2Config", {**_HEAD, "sliding_window": 6, "query_pre_attn_scalar": 32}
    ),
    "gemma3_plain": (
        "Gemma3TextConfig",
        {**_HEAD, "sliding_window": 6, "query_pre_attn_scalar": 32, "num_hidden_layers": 6,
         "layer_types": 5 * ["sliding_attention"] + ["full_attention"]},
    ),
    "odd_sizes": (
        "LlamaConfig",
        {**_SIZES, "num_key_value_heads": 1, "hidden_size": 72, "head_dim": 24,
         "intermediate_size": 100, "vocab_size": 311},
    ),
}  # fmt: skip


@cache
def reference(name: str) -> Any:
    """transformers' model, its norms and biases random too."""
    transformers = require("transformers")
    kind, arguments = (MODELS | MORE_MODELS)[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**arguments)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "norm" in key or "bias" in key:
                value.add_(torch.randn_like(value) * 0.1)
            else:
                value.copy_(torch.randn_like(value) * (1.0 if "embed" in key else 0.2))
    model.tie_weights()
    return model


def folder(name: str, place: Path, **save: Any) -> Path:
    """The model as a Hugging Face folder with a tokenizer of bytes; returns its path."""
    path = place / name
    reference(name).save_pretrained(path, **save)
    (path / "tokenizer.json").write_text(byte_tokenizer().to_str())
    settings = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def byte_tokenizer() -> Tokenizer:
    """A token for each byte; 256 begins and 257 ends."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({text: i for i, text in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"])
    return made


def turns() -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens and position for each call."""
    tokens = np.random.default_rng(0).integers(0, 256, (1, sum(TURNS)))
    starts = np.cumsum([0, *TURNS])
    return [
        (tokens[:, begin : begin + count], np.array([begin]))
        for begin, count in zip(starts, TURNS, strict=False)
    ]


@cache
def expected(name: str) -> list[np.ndarray]:
    """transformers' logits float32 [vocabulary] behind the last token of each call."""
    calls = turns()
    tokens = torch.from_numpy(np.concatenate([tokens for tokens, _ in calls], 1))
    with torch.no_grad():
        logits = reference(name)(tokens).logits[0].numpy()
    return [logits[int(start[0]) + part.shape[1] - 1] for part, start in calls]
