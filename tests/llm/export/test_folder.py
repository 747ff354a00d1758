"""Folders that are not whole: one line each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import folder

from penstock.errors import InputError
from penstock.llm.export.compile import compile_model, find_checkpoint


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return folder("llama2", tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_missing_files(name: str, whole: Path) -> None:
    (whole / name).unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        find_checkpoint(whole)


def test_missing_weights(whole: Path) -> None:
    (whole / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no .safetensors"):
        find_checkpoint(whole)
    (whole / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="save_pretrained"):
        find_checkpoint(whole)


@pytest.mark.parametrize("size", [4, 100, 5000, -1])
def test_truncated_safetensors(size: int, whole: Path) -> None:
    path = whole / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="truncated"):
        compile_model(whole)


def test_damaged_safetensors(whole: Path) -> None:
    path = whole / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[8:12] = b"!!!!"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no safetensors file, or damaged"):
        find_checkpoint(whole)


def test_a_tokenizer_of_another_model(whole: Path) -> None:
    tokenizer = json.loads((whole / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 400, "content": "?"})
    (whole / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InputError, match="tokens up to 400, the model's vocabulary has 300"):
        find_checkpoint(whole)


def test_a_configuration_of_another_model(whole: Path) -> None:
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**config, "intermediate_size": 32}))
    with pytest.raises(InputError, match=r"feed_forward.* is \[.*its configuration says"):
        compile_model(whole)
    (whole / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(InputError, match="has no tensor for layers.2"):
        compile_model(whole)
    (whole / "config.json").write_text("[]")
    with pytest.raises(InputError, match="holds a list"):
        find_checkpoint(whole)


@pytest.mark.parametrize("longest", [0, 1, 65])
def test_lengths(longest: int, whole: Path) -> None:
    with pytest.raises(InputError, match=f"length of {longest} was asked for; .* takes 2 to 64"):
        compile_model(whole, longest=longest)


def test_schemes_and_sources(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown scheme '3bit'"):
        compile_model(whole, scheme="3bit")
    with pytest.raises(InputError, match="neither a Hugging Face folder nor"):
        find_checkpoint(tmp_path / "nothing")
