"""A decoder's layers run on kernels of our own, and give what XNNPACK gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_models import LONGEST, TURNS, folder

from penstock import load
from penstock.formats.payload_reader import read_payload
from penstock.graph.shapes import bounds
from penstock.llm import cache
from penstock.llm.cache import Context, Decoder
from penstock.llm.export.compile import compile_model
from penstock.runtime.engines.native.chains import Pattern
from penstock.runtime.engines.native.decoder_chains import decoder_chains
from penstock.runtime.engines.native.library import reason_against

pytestmark = pytest.mark.skipif(reason_against() is not None, reason="there are no kernels here")
TOKENS = [int(t) for t in np.random.default_rng(1).integers(0, 250, LONGEST)]
#: Chains of the two layers, and the norm before the head.
PLAIN = {"f32_attention": 2, "f32_turn": 4, "f32_heads": 4, "f32_norm": 5, "f32_gate": 2}
CHAINS = {
    "llama2": PLAIN,
    "llama_yarn_biases": PLAIN,
    "mistral": PLAIN,
    "qwen2": PLAIN,
    "qwen3": {**PLAIN, "f32_norm": 9},
    "gemma2": {**PLAIN, "f32_norm": 9},  # its scores have a soft cap
    "gemma3": {**PLAIN, "f32_norm": 13},
}
#: A cache of int8: of each layer's new keys and values scales, integers, and what those stand for;
#: integers and scales by head; values before that in the shape of heads.
SMALL = {"f32_scale": 4, "f32_narrow": 4, "f32_widen": 4, "f32_heads": 12}


def family_counts(program: object) -> Counter[str]:
    method = program.program.method("forward")  # type: ignore[attr-defined]
    (delegate,) = method.delegates
    graph = read_payload(delegate.payload, program.program.named_data)  # type: ignore[attr-defined]
    return Counter(match.family.name for match in decoder_chains(Pattern(graph, bounds(graph))))


@pytest.mark.parametrize(
    ("name", "held"), [*((n, "float32") for n in CHAINS), ("llama2", "int8"), ("gemma2", "int8")]
)
def test_the_same_logits_as_xnnpack(
    name: str, held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "ROWS", 12)
    monkeypatch.setattr(cache, "GROWTH", 2)
    path = tmp_path / "model.pte"
    source = folder(name, tmp_path)
    compile_model(source, scheme="none", longest=LONGEST, chunk=8, cache=held).save(path)
    programs = [load(path, threads=1, engine=engine) for engine in ("xnnpack", "auto")]
    wanted = CHAINS[name] | (SMALL if held == "int8" else {})
    assert family_counts(programs[1]) == wanted
    theirs, ours = (Context(Decoder(program, "")) for program in programs)
    done = 0
    for count in (*TURNS, 8, 1):
        part = TOKENS[done : done + count]
        # What is rounded to the next integer is a hundredth of a row.
        bound = 1e-4 if held == "float32" else 0.05
        np.testing.assert_allclose(ours.feed(part), theirs.feed(part), atol=bound)
        done += count
    assert ours.decoder.room == theirs.decoder.room == 48


@pytest.mark.parametrize("held", ["float32", "int8"])
@pytest.mark.parametrize("longest", [2, 16])
def test_rows_of_caches_are_known_whatever_their_number(
    longest: int, held: str, tmp_path: Path
) -> None:
    """As many as a row has elements, or as there are heads: contexts keep theirs."""
    path = tmp_path / "model.pte"
    source = folder("llama2", tmp_path)
    compile_model(source, scheme="none", longest=longest, chunk=8, cache=held).save(path)
    decoder = Decoder(load(path, threads=1), "")
    one, other, whole = (Context(decoder) for _ in range(3))
    half = longest // 2
    one.feed(TOKENS[:half])
    other.feed(TOKENS[longest : longest + half])
    found = one.feed(TOKENS[half:longest])
    np.testing.assert_allclose(found, whole.feed(TOKENS[:longest]), atol=1e-5)
