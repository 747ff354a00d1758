"""Embeddings and heads of 4-bit models: rows of rare tokens are rounded to 6 bits, as int8."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import LONGEST, folder

import penstock
from penstock.llm.export.checkpoint import Checkpoint, fill
from penstock.llm.export.compile import compile_model, find_checkpoint, read_checkpoint
from penstock.llm.export.decoder import Decoder
from penstock.llm.export.head import EIGHT, SIX, largest_integers

TOKENS = 18000


def large(name: str, place: Path) -> Checkpoint:
    """A tiny model with more tokens."""
    checkpoint = find_checkpoint(folder(name, place))
    generator = torch.Generator().manual_seed(0)
    tables = {
        key: torch.randn((TOKENS, 64), generator=generator) / 8
        for key in ("embedding.weight", "head.weight")
        if key in checkpoint.tensors
    }
    tensors = {**checkpoint.tensors, **{k: lambda v=v: v for k, v in tables.items()}}  # type: ignore[misc]
    return replace(
        checkpoint, config=replace(checkpoint.config, vocabulary=TOKENS), tensors=tensors
    )


def test_which_rows(tmp_path: Path) -> None:
    checkpoint = large("llama3", tmp_path)
    found = largest_integers(checkpoint)
    assert found.shape == (TOKENS,)
    assert (found[:3072] == EIGHT).all() and (found[3072:] == SIX).all()  # a sixth, in whole blocks
    end = {"id": TOKENS - 10, "content": "<|end|>"}
    tokenizer = {**json.loads(checkpoint.tokenizer), "added_tokens": [{"id": 5}, end]}
    found = largest_integers(replace(checkpoint, tokenizer=json.dumps(tokenizer)))
    assert (found[3072:17408] == SIX).all() and (found[17408:] == EIGHT).all()
    small = replace(checkpoint, config=replace(checkpoint.config, vocabulary=16000))
    assert (largest_integers(small) == EIGHT).all()


@pytest.mark.parametrize("name", ["llama3", "llama2"])  # whose head is the embedding, and not
def test_what_is_rounded(name: str, tmp_path: Path) -> None:
    checkpoint = large(name, tmp_path)
    _, decoder = read_checkpoint(checkpoint, "dynamic_4bit", LONGEST)
    assert decoder.head.weight is None
    head, table = decoder.head.integers.abs(), decoder.embedding.integers.abs()
    assert (head.amax(1) == largest_integers(checkpoint)).all()
    assert (head is table) or torch.equal(head, table) == checkpoint.config.tied
    for scheme in ("dynamic_per_channel", "as_stored"):
        _, other = read_checkpoint(checkpoint, scheme, LONGEST)
        assert other.embedding.integers.abs().amax(1).eq(EIGHT).all()


@pytest.mark.parametrize("name", ["llama3", "llama2"])
def test_its_logits(name: str, tmp_path: Path) -> None:
    """A file gives the float model's, but for rounding, on either engine."""
    checkpoint = large(name, tmp_path)
    decoder = Decoder(checkpoint.config, LONGEST).eval()
    fill(decoder, checkpoint.tensors, exact_blocks=False)
    tokens = np.random.default_rng(0).integers(0, TOKENS, (1, 9))
    with torch.no_grad():
        wanted = decoder(torch.from_numpy(tokens), torch.zeros(1, dtype=torch.int64)).numpy()
    data = compile_model(checkpoint, scheme="dynamic_4bit", longest=LONGEST, chunk=16).lowered
    found = []
    for engine in ("auto", "xnnpack"):
        (logits,) = penstock.load(data.to_bytes(), engine=engine)(tokens, np.zeros(1, np.int64))
        assert np.square(logits - wanted).sum() < 0.15 * np.square(wanted).sum()
        found.append(logits)
    assert np.square(found[0] - found[1]).sum() < 1e-3 * np.square(wanted).sum()
