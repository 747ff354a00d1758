"""Text that grows by tokens: whole characters, stop strings over borders of tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import byte_tokenizer
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers

from penstock.errors import InputError
from penstock.llm.text import StopStrings, TextStream, Tokenizer

BYTES = Tokenizer(byte_tokenizer().to_str())


@given(st.text(st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"]), max_size=20))
def test_pieces_are_whole_characters(text: str) -> None:
    stream = TextStream(BYTES)
    pieces = [stream.push(token) for token in BYTES.encode(text)] + [stream.finish()]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_that_never_is_whole() -> None:
    stream = TextStream(BYTES)
    tokens = BYTES.encode("aé")
    assert [stream.push(token) for token in tokens[:-1]] == ["a", ""]
    assert stream.finish() == ""


def pieces_with_spaces() -> Tokenizer:
    """As Llama 2's: a word's space belongs to its first piece, and the first one is stripped."""
    vocabulary = {"<unk>": 0, "▁Hello": 1, "▁world": 2, "!": 3}
    made = Library(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Prepend("▁")
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    return Tokenizer(made.to_str())


def test_spaces_between_pieces_stay() -> None:
    tokenizer = pieces_with_spaces()
    stream = TextStream(tokenizer)
    assert [stream.push(token) for token in (1, 2, 3)] == ["Hello", " world", "!"]
    behind = TextStream(tokenizer, before=[1])
    assert behind.push(2) == " world"


@given(st.text("abc", max_size=12), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_stop_strings(text: str, stops: list[str]) -> None:
    """However the text is cut into pieces: what comes before the first stop string."""
    places = [text.find(stop) for stop in stops if stop in text]
    for size in (1, 2, 5):
        search = StopStrings(stops)
        found = ""
        for begin in range(0, len(text), size):
            found += search.push(text[begin : begin + size])
            if search.found:
                break
        found += search.finish()
        if size == 1 and places:
            # the first that is whole ends it
            ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
            first = min(ends)
            starts = [
                text.find(stop) for stop in stops if stop in text
                if text.find(stop) + len(stop) == first
            ]  # fmt: skip
            assert found == text[: min(starts)]
        assert search.found == bool(places)
        assert found == text if not places else text.startswith(found)


def test_wrong_texts() -> None:
    with pytest.raises(InputError, match="not a int"):
        BYTES.encode(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the tokenizer cannot be read"):
        Tokenizer("{}")
