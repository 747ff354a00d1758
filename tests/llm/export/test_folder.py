"""Folders that are not whole: one line each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import folder

from penstock.errors import InputError, UnsupportedError
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
    with pytest.raises(InputError, match="or of a .gguf file, not a NoneType"):
        compile_model(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="longest is '9'; it must be an integer"):
        compile_model(whole, longest="9")  # type: ignore[arg-type]


def change(path: Path, **entries: object) -> Path:
    """Changes the configuration."""
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))
    return path


@pytest.mark.parametrize("leaf", ["attention_scale.weight", "self_attn.q_proj.weight_scale_inv"])
def test_a_tensor_that_has_no_place(leaf: str, whole: Path) -> None:
    path = whole / "model.safetensors"
    name = f"model.layers.1.{leaf}"
    save_file({**load_file(path), name: torch.ones(4)}, path)
    with pytest.raises(UnsupportedError, match=f"tensor '?{name}'? is unsupported"):
        find_checkpoint(whole)
    # Angles are computed; what belongs to no layer may be of another part of a larger model.
    others = ("model.layers.1.self_attn.rotary_emb.inv_freq", "vision_tower.layers.1.weight")
    kept = {key: value for key, value in load_file(path).items() if key != name}
    save_file(kept | {other: torch.ones(4) for other in others}, path)
    find_checkpoint(whole)


def test_a_bias_that_the_configuration_does_not_name(whole: Path) -> None:
    path = whole / "model.safetensors"
    save_file({**load_file(path), "model.layers.0.mlp.up_proj.bias": torch.ones(96)}, path)
    with pytest.raises(UnsupportedError, match="a bias for '?layers.0.feed_forward.up"):
        find_checkpoint(whole)


def test_variations_that_are_not_there(tmp_path: Path) -> None:
    path = folder("phi3", tmp_path)
    for part in (0.1, 0.7, 2.0):  # of a head of 16: one, an odd number, too many
        with pytest.raises(UnsupportedError, match="a part of each head"):
            find_checkpoint(change(path, rope_parameters=None, partial_rotary_factor=part))
    with pytest.raises(UnsupportedError, match="stablelm.? is unsupported; llama, mistral"):
        find_checkpoint(change(path, model_type="stablelm"))
    path = folder("granite", tmp_path)
    with pytest.raises(InputError, match="divides logits by -2.0; it must be above 0"):
        find_checkpoint(change(path, logits_scaling=-2.0))
    path = folder("smollm3", tmp_path)
    with pytest.raises(InputError, match="no_rope_layers has 1 entries for 2 layers"):
        find_checkpoint(change(path, no_rope_layers=[1]))


def test_rows_of_a_fused_tensor_that_are_too_few(tmp_path: Path) -> None:
    path = change(folder("phi3", tmp_path), num_key_value_heads=1)
    with pytest.raises(InputError, match=r"qkv_proj.weight'? is \[128, 64\], its .* says 96 rows"):
        compile_model(path)


def test_long_contexts_of_longrope(tmp_path: Path) -> None:
    """Beyond the original length other angles hold."""
    path = folder("phi3_long", tmp_path)
    assert find_checkpoint(path).config.longest == 64
    with pytest.raises(InputError, match="length of 65 was asked for; .* takes 2 to 64"):
        compile_model(path, longest=65)


def test_numbers_that_are_none(whole: Path) -> None:
    """Also those of blocks."""
    file = whole / "model.safetensors"
    tensors = load_file(file)
    for wrong in (float("nan"), float("-inf")):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = wrong
        save_file(tensors, file)
        with pytest.raises(InputError, match="layers.1.feed_forward.up.weight has infinite"):
            compile_model(whole)
