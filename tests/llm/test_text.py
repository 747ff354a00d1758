"""Text that grows by tokens: whole characters, stop strings over borders of tokens."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import byte_tokenizer
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers

from penstock.errors import InputError
from penstock.llm import LanguageModel
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


def test_spaces_behind_what_is_no_text() -> None:
    """A control token, or an unknown one, between words."""
    stream = TextStream(pieces_with_spaces())
    assert [stream.push(token) for token in (1, 256, 2)] == ["Hello", "", " world"]


def test_a_prompt_that_is_cut_within_a_character() -> None:
    """What follows it is read by itself."""
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    made = Library(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = Tokenizer(made.to_str())
    stream = TextStream(tokenizer, before=tokenizer.encode("語語"))
    assert [stream.push(token) for token in tokenizer.encode("ñ語")] == ["", "ñ", "", "", "語"]


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


def described(**changed: object) -> Tokenizer:
    """A tokenizer of two words, "a" and "b", with some of its entries changed."""
    model = {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0, "b": 1}}
    return Tokenizer(json.dumps({"version": "1.0", "added_tokens": [], "model": model, **changed}))


@pytest.mark.parametrize(
    "changed",
    [
        {"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", 0.0]]}},
        {"model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"a": 0}}},
        # These three are panics of the library, which no ``except Exception`` catches.
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"}},
        {"post_processor": {"type": "TemplateProcessing", "pair": [], "special_tokens": {},
                            "single": [{"SpecialToken": {"id": "zz", "type_id": 0}}]}},
        {"post_processor": {"type": "TemplateProcessing", "pair": [], "special_tokens": {},
                            "single": [{"Sequence": {"id": "B", "type_id": 0}}]}},
    ],
)  # fmt: skip
def test_tokenizers_that_make_no_sense_fail_in_one_line(changed: dict[str, object]) -> None:
    with pytest.raises(InputError, match="the tokenizer cannot make tokens of the text: ."):
        described(**changed).encode("hello world")


def test_decoders_that_make_no_sense_fail_in_one_line() -> None:
    strip = {"type": "Strip", "content": "a", "start": 10**9, "stop": 10**9}
    with pytest.raises(InputError, match="the tokenizer cannot make text of the tokens: ."):
        described(decoder=strip).decode([0, 1])


def test_prompts_are_neither_cut_nor_filled_up() -> None:
    """Files of embedding models say so of the rows of their batches."""
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    filled = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None,
              "pad_id": 1, "pad_type_id": 0, "pad_token": "b"}  # fmt: skip
    words = {"type": "Whitespace"}
    tokenizer = described(truncation=cut, padding=filled, pre_tokenizer=words)
    assert tokenizer.encode("b b b b") == [1, 1, 1, 1]


def test_what_is_no_unicode_is_shown_with_what_is_before_it(tiny: LanguageModel) -> None:
    wanted = r"behind '<.user.>Hi ' it has '\\udcff', half a character"
    with pytest.raises(InputError, match=wanted):
        tiny.chat([{"role": "user", "content": "Hi \udcff there"}])
