"""What the models of a ``model_type`` have in common, whatever their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Family:
    """A row of :data:`FAMILIES`. Where a configuration has an entry of its own, that counts."""

    #: entries that transformers takes where ``config.json`` does not say
    tied: bool = False
    activation: str = "silu"
    head_size: int | None = None
    bias: bool = False
    #: the entry that says whether the projection behind attention has a bias; None: never
    output_bias: str | None = "attention_bias"
    #: norms of queries and keys: of each ``head``, of the ``whole`` row, or none
    query_key_norms: str = ""
    #: norms ``before`` attention and feed-forward, ``behind`` them, or ``both``
    norms: str = "before"
    #: norms multiply by 1 + weight
    norm_offset: bool = False
    #: embeddings are multiplied by the root of the width
    scaled_embedding: bool = False
    #: scores are divided by the root of ``query_pre_attn_scalar``
    query_scalar: bool = False
    #: scores and logits may have soft caps
    score_caps: bool = False
    logit_caps: bool = False
    #: layers see a window: ``none``, ``all``, ``even`` ones, by a ``pattern``, from
    #: ``max_window_layers`` on where ``use_sliding_window`` says so (``asked``)
    windows: str = "none"
    #: queries, keys and values are one tensor, gate and up projections another
    fused: bool = False
    #: a part of each head may be turned, its beginning
    partial: bool = False


_GEMMA = Family(
    tied=True, activation="gelu_pytorch_tanh", head_size=256, norm_offset=True,
    scaled_embedding=True,
)  # fmt: skip


_LATER_GEMMA = replace(_GEMMA, norms="both", query_scalar=True, logit_caps=True)

#: ``model_type`` of a ``config.json`` → what it is.
FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "mistral": Family(windows="all"),
    "ministral": Family(windows="all"),
    "qwen2": Family(bias=True, output_bias=None, windows="asked"),
    "qwen3": Family(query_key_norms="head", windows="asked"),
    "gemma": _GEMMA,
    "gemma2": replace(_LATER_GEMMA, windows="even", score_caps=True),
    "gemma3_text": replace(_LATER_GEMMA, windows="pattern", query_key_norms="head"),
    "phi3": Family(output_bias=None, windows="all", fused=True, partial=True),
    "smollm3": Family(tied=True, windows="asked"),
    "olmo2": Family(norms="behind", query_key_norms="whole"),
    "granite": Family(),
    "seed_oss": Family(bias=True, output_bias="attention_out_bias", head_size=128),
}
