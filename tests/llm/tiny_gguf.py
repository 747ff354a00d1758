"""The tiny models as GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tiny_models import TEMPLATE, byte_tokenizer, reference

Quantization = gguf.GGMLQuantizationType
_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "model.embed_tokens": "token_embd", "lm_head": "output",
    "model.norm": "output_norm",
}  # fmt: skip
#: Those of Gemma 2 and 3.
_BEHIND = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def gguf_name(name: str, *, behind: bool = False) -> str:
    stem, _, leaf = name.rpartition(".")
    parts = stem.split(".")
    if parts[:2] == ["model", "layers"]:
        names = _NAMES | _BEHIND if behind else _NAMES
        return f"blk.{parts[2]}.{names['.'.join(parts[3:])]}.{leaf}"
    return f"{_NAMES[stem]}.{leaf}"


def in_turns(weight: np.ndarray, heads: int) -> np.ndarray:
    """Llama's rows of queries and keys as its GGUF files have them."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def write(path: Path, name: str, kind: Quantization = Quantization.F32, **other: Any) -> None:
    """The tiny model as a GGUF file; matrices in ``kind``."""
    model = reference(name)
    config, architecture = model.config, name.rstrip("23") if "llama" in name else name
    architecture = architecture.removesuffix("_plain")
    gemma, behind = "gemma" in name, architecture in ("gemma2", "gemma3")
    writer = gguf.GGUFWriter(path, other.get("architecture", architecture))
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(model.model.layers[0].self_attn.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1e6 if architecture == "gemma3" else 10000.0)
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    tokenizer = byte_tokenizer()
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(other.get("pre", "gpt-2"))
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3] * (len(tokens) - 256))
    writer.add_token_merges(["a b"] if "ab" in tokens else [])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_chat_template(TEMPLATE)
    if name == "llama3":  # its scaling is a tensor of divisors
        turned = model.model.rotary_emb.inv_freq.numpy()
        plain = 10000.0 ** (-np.arange(len(turned)) / len(turned))
        writer.add_tensor("rope_freqs.weight", (plain / turned).astype(np.float32))
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        real = value.detach().float().numpy() + (1 if gemma and "norm" in key else 0)
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        count = heads.get(key.split(".")[-2], 0)
        stored = in_turns(real, count) if count and architecture == "llama" else real
        if real.ndim == 2 and kind is not Quantization.F32:
            stored = gguf.quantize(stored, kind)
            writer.add_tensor(gguf_name(key, behind=behind), stored, raw_dtype=kind)
        else:
            stored = np.ascontiguousarray(stored)
            writer.add_tensor(gguf_name(key, behind=behind), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
