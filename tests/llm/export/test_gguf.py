"""GGUF files: blocks as the gguf package reads them, models and tokenizers as they were before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tiny_models import LONGEST, TEMPLATE, byte_tokenizer, expected, reference, turns

import penstock
from penstock.errors import InputError, UnsupportedError
from penstock.llm.export import gguf_file
from penstock.llm.export.checkpoint import Checkpoint, fill
from penstock.llm.export.compile import compile_model
from penstock.llm.export.decoder import Decoder
from penstock.llm.export.gguf_blocks import FORMATS
from penstock.llm.export.gguf_tokenizer import GgufVocabulary, tokenizer_json
from penstock.llm.text import Tokenizer

Quantization = gguf.GGMLQuantizationType
_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "model.embed_tokens": "token_embd", "lm_head": "output",
    "model.norm": "output_norm",
}  # fmt: skip


def gguf_name(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    parts = stem.split(".")
    if parts[:2] == ["model", "layers"]:
        return f"blk.{parts[2]}.{_NAMES['.'.join(parts[3:])]}.{leaf}"
    return f"{_NAMES[stem]}.{leaf}"


def in_turns(weight: np.ndarray, heads: int) -> np.ndarray:
    """Llama's rows of queries and keys as its GGUF files have them."""
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def write(path: Path, name: str, kind: Quantization = Quantization.F32, **other: Any) -> None:
    """The tiny model as a GGUF file; matrices in ``kind``."""
    model = reference(name)
    config, architecture = model.config, name.rstrip("23") if "llama" in name else name
    writer = gguf.GGUFWriter(path, other.get("architecture", architecture))
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(model.model.layers[0].self_attn.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
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
        real = value.detach().float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        count = heads.get(key.split(".")[-2], 0)
        stored = in_turns(real, count) if count and architecture == "llama" else real
        if real.ndim == 2 and kind is not Quantization.F32:
            writer.add_tensor(gguf_name(key), gguf.quantize(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(key), np.ascontiguousarray(stored))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", FORMATS)
def test_blocks(name: str) -> None:
    """Random blocks, with scales that are numbers."""
    size, unpack = FORMATS[name]
    random = np.random.default_rng(0)
    raw = random.integers(0, 256, (6, 4, size), dtype=np.uint8)
    for place in (0, 2) if name in ("Q4_1", "Q4_K") else (0,):
        scales = random.normal(size=(6, 4, 1)).astype(np.float16)
        raw[..., place : place + 2] = scales.view(np.uint8).reshape(6, 4, 2)
    wanted = gguf.dequantize(raw.reshape(6, -1), Quantization[name])
    blocks = unpack(raw)
    assert blocks.size == 32
    np.testing.assert_allclose(blocks.real().numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama2", "llama3", "qwen3"])
def test_float_files_are_transformers_model(name: str, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", name)
    checkpoint = gguf_file.read(tmp_path / "model.gguf")
    decoder = Decoder(checkpoint.config, LONGEST).eval()
    fill(decoder, checkpoint.tensors, exact_blocks=True)
    for (tokens, start), wanted in zip(turns(), expected(name), strict=True):
        with torch.no_grad():
            found = decoder(torch.from_numpy(tokens), torch.from_numpy(start))
        np.testing.assert_allclose(found[0].numpy(), wanted, atol=2e-6 * np.abs(wanted).max())


def dequantized(checkpoint: Checkpoint) -> Decoder:
    decoder = Decoder(checkpoint.config, LONGEST).eval()
    fill(decoder, checkpoint.tensors, exact_blocks=False)
    return decoder


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "F16", "BF16"])
def test_own_quantization_is_kept(kind: str, tmp_path: Path) -> None:
    """The file's answers are those of its dequantized weights, but for activations of 8 bits."""
    path = tmp_path / "model.gguf"
    write(path, "qwen3", Quantization[kind])
    compiled = compile_model(path, longest=LONGEST, chunk=16)
    assert compiled.scheme == "as_stored"
    assert len(compiled.lowered.delegation.subgraphs) == 1
    program = penstock.load(compiled.lowered.to_bytes())
    decoder = dequantized(gguf_file.read(path))
    for call in turns():
        with torch.no_grad():
            wanted = decoder(*map(torch.from_numpy, call)).numpy()
        (found,) = program(*call)
        assert np.square(found - wanted).sum() / np.square(wanted).sum() < 0.02


def test_tied_tables_are_one_datum(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, "qwen3", Quantization.Q8_0)
    compiled = compile_model(path, longest=LONGEST, chunk=16)
    data = compiled.lowered.to_bytes()
    table = compiled.lowered.program.named_data
    largest = max((bytes(value) for value in table.values()), key=len)
    assert data.count(largest[:64]) == 1


def test_tokenizer(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "qwen3")
    checkpoint = gguf_file.read(tmp_path / "model.gguf")
    found, wanted = Tokenizer(checkpoint.tokenizer), Tokenizer(byte_tokenizer().to_str())
    for text in ("Hello, world", "<|user|>é\n\n 12345<|end|>", "  spaces  "):
        assert found.encode(text) == wanted.encode(text)
        assert found.decode(found.encode(text)) == wanted.decode(wanted.encode(text))
    assert checkpoint.begin == 256 and checkpoint.ends == (257,)
    assert checkpoint.chat_template == TEMPLATE
    assert checkpoint.special_tokens["eos_token"] == "<|end|>"


def test_pieces_with_scores() -> None:
    """As Llama 2's files have them: the best pieces first, bytes for what has none."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, 3, 3, *(6,) * 256]
    words = ["▁", "H", "e", "l", "o", "el", "lo", "▁H", "▁Hel", "▁Hello", "▁l"]
    vocabulary = GgufVocabulary(
        kind="llama", pre="default", tokens=pieces + words, types=types + [1] * len(words),
        scores=[0.0] * len(pieces) + [-float(n) for n in (9, 9, 9, 9, 9, 1, 2, 3, 4, 5, 6)],
        begin=1, add_begin=True,
    )  # fmt: skip
    tokenizer = Tokenizer(tokenizer_json(vocabulary))
    number = {piece: i for i, piece in enumerate(vocabulary.tokens)}
    assert tokenizer.encode("Hello") == [1, number["▁Hello"]]
    assert tokenizer.encode("Hello lé") == [
        1, number["▁Hello"], number["▁l"], number["<0xC3>"], number["<0xA9>"]
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("Hello lé")) == "Hello lé"


def test_unsupported_and_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, "qwen3", architecture="mamba")
    with pytest.raises(UnsupportedError, match="mamba is unsupported; llama"):
        gguf_file.read(path)
    write(path, "qwen3", pre="klingon")
    with pytest.raises(UnsupportedError, match="'klingon'"):
        gguf_file.read(path)
    write(path, "qwen3")
    whole = path.read_bytes()
    for size in (0, 3, 40, len(whole) // 10, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="damaged or truncated|no whole"):
            gguf_file.read(path)
    with pytest.raises(InputError, match="there is no file"):
        gguf_file.read(tmp_path / "gone.gguf")
