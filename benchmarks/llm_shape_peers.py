"""The peers' files of a language model with random weights, for ``benchmarks.llm_shape``: what
llama.cpp's quantizer makes of a GGUF file that is written here, and ONNX Runtime GenAI's builder of
a Hugging Face folder. (The stock flow takes hours for a billion weights.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.llm import Column
from benchmarks.llm_peers import ROOT, make_hugging_face, make_llama, make_onnx, renamed, weights
from penstock.llm.export.checkpoint import Checkpoint

_GGUF = {
    "attention.query": "attn_q", "attention.key": "attn_k", "attention.value": "attn_v",
    "attention.output": "attn_output", "attention_norm": "attn_norm",
    "feed_forward_norm": "ffn_norm", "feed_forward.gate": "ffn_gate",
    "feed_forward.down": "ffn_down", "feed_forward.up": "ffn_up",
}  # fmt: skip
_OTHERS = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}


def peers_of(checkpoint: Checkpoint, folder: Path, packages: Path) -> list[Column]:
    """Makes both files in ``folder``, with the peers' packages from ``packages``."""
    with _python_path(packages):
        whole = folder / "F16.gguf"
        write_gguf(checkpoint, whole)
        make_llama(whole, folder / "Q4_0.gguf")
        whole.unlink()
        make_hugging_face(checkpoint, folder)
        make_onnx(folder)
    columns = [
        Column("ONNX Runtime GenAI int4", "onnx", folder / "onnx"),
        Column("llama.cpp Q4_0", "llama", folder / "Q4_0.gguf"),
    ]
    for column in columns:
        files = [column.path] if column.path.is_file() else column.path.glob("model*")
        column.figures["file, MB"] = sum(file.stat().st_size for file in files) / 1e6
    return columns


@contextmanager
def _python_path(packages: Path) -> Iterator[None]:
    """The import path of the processes that are started meanwhile."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (before, str(ROOT), str(packages))))
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = before


def write_gguf(checkpoint: Checkpoint, path: Path) -> None:
    """The weights as float16, norms as float32, and a vocabulary of bytes and numbered tokens."""
    import gguf

    config = checkpoint.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(checkpoint.name)
    writer.add_context_length(config.longest)
    writer.add_embedding_length(config.width)
    writer.add_block_count(len(config.layers))
    writer.add_feed_forward_length(config.feed_forward)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.key_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_vocab_size(config.vocabulary)
    _add_vocabulary(writer, config.vocabulary)
    for name, value in weights(checkpoint):
        kind = np.float32 if value.dim() == 1 else np.float16
        array = np.ascontiguousarray(value.to(torch.float32).numpy().astype(kind))
        writer.add_tensor(renamed(name, _GGUF, _OTHERS, "").replace("layers.", "blk."), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: object, size: int) -> None:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"<{i}>" for i in range(len(alphabet), size))]
    writer.add_tokenizer_model("gpt2")  # type: ignore[attr-defined]
    writer.add_tokenizer_pre("gpt-2")  # type: ignore[attr-defined]
    writer.add_token_list(tokens)  # type: ignore[attr-defined]
    writer.add_token_types([1] * size)  # type: ignore[attr-defined]
    writer.add_token_merges(["a b"])  # type: ignore[attr-defined]
    writer.add_bos_token_id(0)  # type: ignore[attr-defined]
    writer.add_eos_token_id(0)  # type: ignore[attr-defined]
