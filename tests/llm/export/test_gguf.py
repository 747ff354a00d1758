"""GGUF files: blocks as the gguf package reads them, models and tokenizers as they were before."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tiny_gguf import write
from tiny_models import LONGEST, TEMPLATE, byte_tokenizer, expected, turns

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


@pytest.mark.parametrize(
    "name", ["llama2", "llama3", "qwen2_plain", "qwen3", "gemma", "gemma2_plain", "gemma3_plain"]
)
def test_float_files_are_transformers_model(name: str, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", name)
    checkpoint = gguf_file.read(tmp_path / "model.gguf")
    decoder = Decoder(checkpoint.config, LONGEST).eval()
    fill(decoder, checkpoint.tensors, exact_blocks=True)
    for (tokens, start), wanted in zip(turns(), expected(name), strict=True):
        with torch.no_grad():
            found = decoder(torch.from_numpy(tokens), torch.from_numpy(start))
        np.testing.assert_allclose(found[0].numpy(), wanted, atol=1e-5 * np.abs(wanted).max())


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
