"""Short contexts run on the first rows of the caches, and get more when they need them. With our
own kernels they need not, see ``test_native_layers.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import LONGEST, MODELS, folder

from penstock import load as load_program
from penstock.llm import cache
from penstock.llm.cache import Context, Decoder
from penstock.llm.export.compile import compile_model
from penstock.runtime import Method

TOKENS = [int(t) for t in np.random.default_rng(0).integers(0, 250, LONGEST)]


def contexts(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Context, Context]:
    """One on all rows, one that begins with 12."""
    made = []
    monkeypatch.setattr(cache, "GROWTH", 2)
    for rows in (LONGEST, 12):
        monkeypatch.setattr(cache, "ROWS", rows)
        made.append(Context(Decoder(load_program(path, threads=1, engine="xnnpack"), str(path))))
    return made[0], made[1]


@pytest.mark.parametrize("name", ["llama2", "gemma2", "gemma3", "qwen2"])
@pytest.mark.parametrize("scheme", ["none", "dynamic_4bit"])
def test_the_same_logits_on_fewer_rows(
    name: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scheme != "none" and name != "llama2":
        pytest.skip("one architecture says enough about weights")
    assert name in MODELS
    compiled = compile_model(folder(name, tmp_path), scheme=scheme, longest=LONGEST, chunk=8)
    compiled.save(tmp_path / "model.pte")
    whole, short = contexts(tmp_path / "model.pte", monkeypatch)
    assert (whole.decoder.room, short.decoder.room) == (LONGEST, 12)
    rooms, done = [], 0
    for count in (5, 3, 1, 1, 9, 1, 8, 1, 1):
        part = TOKENS[done : done + count]
        np.testing.assert_allclose(short.feed(part), whole.feed(part), atol=2e-4)
        done += count
        rooms.append(short.decoder.room)
    assert rooms == [12, 12, 12, 12, 24, 24, 48, 48, 48]
    short.rewind(6)
    whole.rewind(6)
    np.testing.assert_allclose(short.feed(TOKENS[:7]), whole.feed(TOKENS[:7]), atol=2e-4)


def packed_bytes(method: Method) -> int:
    executable: Any = method.delegates[0].executable
    return sum(chunk.nbytes for chunk in executable._packed._chunks)


def test_growing_packs_no_weights_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "GROWTH", 2)
    compiled = compile_model(
        folder("llama2", tmp_path), scheme="dynamic_4bit", longest=LONGEST, chunk=8
    )
    compiled.save(tmp_path / "model.pte")
    packed, found = [], []
    for rows in (LONGEST, 12):
        monkeypatch.setattr(cache, "ROWS", rows)
        program = load_program(tmp_path / "model.pte", threads=1, engine="xnnpack")
        context = Context(Decoder(program, ""))
        logits = [context.feed(TOKENS[:7]), context.feed(TOKENS[7:14]), context.feed(TOKENS[14:15])]
        packed.append([packed_bytes(m) for m in context.decoder._methods.values()])
        found.append(logits)
    np.testing.assert_allclose(found[1], found[0], atol=2e-4)
    (whole,), (first, *grown) = packed
    assert whole == first > 0 and grown == [0]
    # A new conversation begins on few rows again.
    context.rewind(0)
    np.testing.assert_array_equal(context.feed(TOKENS[:7]), found[1][0])
    assert context.decoder.room == 12


def test_contexts_of_different_lengths_take_turns(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, first = contexts(tiny_file, monkeypatch)
    second = Context(first.decoder)
    wanted = whole.feed(TOKENS[:20])
    first.feed(TOKENS[:6])
    second.feed(TOKENS[:19])
    assert first.decoder.room == 24
    first.feed(TOKENS[6:19])
    np.testing.assert_allclose(second.feed(TOKENS[19:20]), wanted, atol=2e-4)
    np.testing.assert_allclose(first.feed(TOKENS[19:20]), wanted, atol=2e-4)
    with pytest.raises(Exception, match="more than the"):
        first.feed(TOKENS[:30])
