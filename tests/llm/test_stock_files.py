"""A language model of the stock flow, run here.

``stock/llama_8da4w.pte`` is what ``extension.llm.export.export_llm`` of executorch 1.5.1 makes of
two random layers (width 64, 4 heads on 2, vocabulary 300, length 64): ``qmode=8da4w`` with groups
of 32, ``use_kv_cache``, ``use_sdpa_with_kv_cache``, ``enable_dynamic_shape``, XNNPACK. The ``.npy``
beside it has the stock runtime's logits for the tokens below.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_models import byte_tokenizer

from penstock.llm import LanguageModel, load
from penstock.llm.cache import Context

FILE = Path(__file__).parent / "stock" / "llama_8da4w.pte"
TOKENS = [1, 2, 3, 4, 5, 200, 7, 8]
FIRST = 5


def stock_model(folder: Path) -> LanguageModel:
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(byte_tokenizer().to_str())
    return load(FILE, tokenizer=tokenizer, threads=1)


def test_logits(tmp_path: Path) -> None:
    wanted = np.load(FILE.with_suffix(".npy"))
    context = Context(stock_model(tmp_path)._decoder)
    found = [context.feed(TOKENS[:FIRST])]
    found += [context.feed([token]) for token in TOKENS[FIRST:]]
    np.testing.assert_allclose(np.stack(found), wanted, atol=1e-5)


def test_conversations_take_turns(tmp_path: Path) -> None:
    """Nothing says which of its memory is the cache, so a context that comes back reads anew."""
    model = stock_model(tmp_path)
    one, other = Context(model._decoder), Context(model._decoder)
    one.feed(TOKENS[:FIRST])
    other.feed([9, 8, 7])
    one.feed(TOKENS[FIRST:-1])
    other.feed([6])
    found = one.feed(TOKENS[-1:])
    np.testing.assert_allclose(found, np.load(FILE.with_suffix(".npy"))[-1], atol=1e-4)


def test_it_generates(tmp_path: Path) -> None:
    model = stock_model(tmp_path)
    assert model.max_length == 64
    answer = model.generate("Hello", max_tokens=5, temperature=1.0, seed=0)
    assert (
        answer.tokens
        and answer.tokens == model.generate("Hello", max_tokens=5, temperature=1.0, seed=0).tokens
    )
