"""The tokenizer in a file: another form of the same; loading leaves the collector as it was."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
from tiny_models import byte_tokenizer
from tokenizers import Tokenizer

from penstock.errors import PenstockError
from penstock.llm import load
from penstock.llm.assets import Assets, decode, quick_to_read

TEXTS = ("hello there", "  two  spaces ", "ä€😀", "<|user|>hell<|end|>", "")


def with_merges(pairs: list[list[str]]) -> str:
    """The tokenizer of bytes with merges, as the library writes it."""
    raw = json.loads(byte_tokenizer().to_str())
    vocabulary = raw["model"]["vocab"]
    for left, right in pairs:
        for text in (left, right, left + right):
            vocabulary.setdefault(text, 1000 + len(vocabulary))
    raw["model"]["merges"] = pairs
    return Tokenizer.from_str(json.dumps(raw)).to_str(pretty=True)


def test_merges_are_one_text_each_and_mean_the_same() -> None:
    before = with_merges([["h", "e"], ["l", "l"], ["he", "ll"], ["Ġ", "Ġ"], ["Ã", "¤"]])
    after = quick_to_read(before)
    assert '"he ll"' in after and len(after) < len(before)
    old, new = Tokenizer.from_str(before), Tokenizer.from_str(after)
    for text in TEXTS:
        assert new.encode(text).ids == old.encode(text).ids
    assert json.loads(new.to_str()) == json.loads(old.to_str())


def test_a_part_with_a_space_stays_a_pair() -> None:
    before = with_merges([["h", "e"], ["a ", "b"]])
    assert json.loads(quick_to_read(before))["model"] == json.loads(before)["model"]


@pytest.mark.parametrize(
    "text", ["no json", "[1]", "{}", '{"model": {"merges": 1}}', '{"model": {"merges": ["a b"]}}']
)
def test_what_is_of_another_kind_is_kept(text: str) -> None:
    found = quick_to_read(text)
    assert found == text or json.loads(found) == json.loads(text)


def test_a_half_character_in_a_token_is_kept() -> None:
    text = '{"model": {"merges": [["a", "\\ud800"]]}}'
    assert quick_to_read(text) == text
    assert decode(Assets("", "", text, 1).encode()).tokenizer == text


def test_loading_leaves_the_collector_as_it_was(tiny_file: Path, tmp_path: Path) -> None:
    assert gc.isenabled()
    load(tiny_file)
    assert gc.isenabled()
    with pytest.raises(PenstockError):
        load(tmp_path / "none.pte")
    assert gc.isenabled()
    gc.disable()
    try:
        load(tiny_file)
        assert not gc.isenabled()
    finally:
        gc.enable()
