"""Each architecture from a folder: transformers' logits at prefill, at each decode step and in a
second turn; on both runtimes; in one delegate."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emit_harness import run_stock
from tiny_models import LONGEST, MODELS, MORE_MODELS, expected, folder, turns

import penstock
from penstock.errors import InputError, UnsupportedError
from penstock.llm.export.checkpoint import fill
from penstock.llm.export.compile import compile_model, find_checkpoint
from penstock.llm.export.config import from_transformers
from penstock.llm.export.decoder import Decoder

FILES = [(name, "none") for name in MODELS]
FILES += [("olmo2", "none"), ("smollm3", "none"), ("phi3_part", "none")]
FILES += [(name, "dynamic_per_channel") for name in ("llama2", "llama3", "gemma2")]
#: float32 but for the cache
FILES += [(name, "cache of int8") for name in ("llama3", "gemma2")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llm")


@pytest.fixture(scope="module")
def made(place: Path) -> dict[Any, Any]:
    """(architecture, scheme) → the compiled model and the stock runtime's answers."""
    given = [list(call) for call in turns()]
    compiled = {}
    for name, scheme in FILES:
        held = (
            {"scheme": scheme} if scheme != "cache of int8" else {"scheme": "none", "cache": "int8"}
        )
        model = compile_model(folder(name, place), longest=LONGEST, chunk=16, **held)
        model.save(place / f"{name}_{scheme}.pte")
        (place / f"{name}_{scheme}.in.pkl").write_bytes(pickle.dumps(given))
        compiled[name, scheme] = model
    run_stock(place)
    return {
        key: (model, pickle.loads((place / f"{key[0]}_{key[1]}.out.pkl").read_bytes()))
        for key, model in compiled.items()
    }


@pytest.mark.parametrize("name", [*MODELS, *MORE_MODELS])
def test_the_module_is_transformers_model(name: str, place: Path) -> None:
    checkpoint = find_checkpoint(folder(name, place))
    decoder = Decoder(checkpoint.config, LONGEST).eval()
    fill(decoder, checkpoint.tensors, exact_blocks=False)
    for (tokens, start), wanted in zip(turns(), expected(name), strict=True):
        with torch.no_grad():
            found = decoder(torch.from_numpy(tokens), torch.from_numpy(start))
        np.testing.assert_allclose(found[0].numpy(), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(("name", "scheme"), FILES)
def test_files_give_its_answers(name: str, scheme: str, made: dict[Any, Any]) -> None:
    model, stock = made[name, scheme]
    # With a cache of int8 another order of sums may round a row to other integers.
    engine = "xnnpack" if scheme == "cache of int8" else "auto"
    program = penstock.load(model.lowered.to_bytes(), engine=engine)
    for call, theirs, wanted in zip(turns(), stock, expected(name), strict=True):
        (found,) = program(*call)
        largest = np.abs(wanted).max()
        np.testing.assert_allclose(theirs[0], found, atol=2e-5 * largest)
        if scheme == "none":
            np.testing.assert_allclose(found[0], wanted, atol=1e-5 * largest)
        else:
            noise = np.square(found[0] - wanted).sum() / np.square(wanted).sum()
            assert noise < 0.05


@pytest.mark.parametrize(("name", "scheme"), FILES)
def test_one_delegate(name: str, scheme: str, made: dict[Any, Any]) -> None:
    delegation = made[name, scheme][0].lowered.delegation
    assert len(delegation.subgraphs) == 1
    outside = [node.target for node, _ in delegation.undelegated]
    written = 8 if scheme == "cache of int8" else 4  # rows, and scales, of two layers, in place
    assert outside.count("aten.index_put_.default") == written


def test_shards_and_half_precision(place: Path, tmp_path: Path) -> None:
    path = folder("llama2", tmp_path, max_shard_size="100KB")
    assert len(list(path.glob("*.safetensors"))) > 1
    whole = find_checkpoint(folder("llama2", place))
    parts = find_checkpoint(path)
    assert set(parts.tensors) == set(whole.tensors)
    for name, tensor in parts.tensors.items():
        one, other = tensor(), whole.tensors[name]()
        assert isinstance(one, torch.Tensor) and torch.equal(one, other)


def test_unsupported_architectures_are_named() -> None:
    with pytest.raises(UnsupportedError, match="mixtral.*llama, mistral"):
        from_transformers({"model_type": "mixtral"})
    with pytest.raises(UnsupportedError, match="without a name"):
        from_transformers({})
    with pytest.raises(InputError, match="'hidden_size'"):
        from_transformers({"model_type": "llama", "num_attention_heads": 4})
    llama = {
        "model_type": "llama", "num_attention_heads": 4, "hidden_size": 64, "vocab_size": 300,
        "num_hidden_layers": 2, "intermediate_size": 96,
    }  # fmt: skip
    with pytest.raises(UnsupportedError, match="rope scaling 'proportional'"):
        from_transformers({**llama, "rope_scaling": {"rope_type": "proportional"}})
    long = {"rope_type": "longrope", "original_max_position_embeddings": 16}
    with pytest.raises(InputError, match="short_factor has 3 entries for 8 pairs"):
        from_transformers({**llama, "rope_scaling": {**long, "short_factor": [1, 2, 3]}})
    with pytest.raises(InputError, match="'short_factor'"):
        from_transformers({**llama, "rope_scaling": long})
    with pytest.raises(UnsupportedError, match="a part of each head .0.5. is unsupported here"):
        from_transformers({**llama, "partial_rotary_factor": 0.5})
    with pytest.raises(UnsupportedError, match="activation 'relu2'"):
        from_transformers({**llama, "hidden_act": "relu2"})
    with pytest.raises(InputError, match="head.* 5 key-value heads"):
        from_transformers({**llama, "num_key_value_heads": 5})
    with pytest.raises(UnsupportedError, match="num_local_experts=8"):
        from_transformers({**llama, "num_local_experts": 8})
