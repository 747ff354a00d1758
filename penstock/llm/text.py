"""Tokens and text: the tokenizer, text that grows token by token, stop strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from penstock.errors import BackendUnavailableError, InputError, install_hint, shorten

#: What decoders put where bytes are no character, or not yet.
REPLACEMENT = "\ufffd"


class Tokenizer:
    """Text to tokens and back, by the ``tokenizers`` library.

    Raises :class:`BackendUnavailableError` where the library is not installed,
    :class:`InputError` for JSON that is no tokenizer, or that the library fails with later on.
    """

    def __init__(self, definition: str) -> None:
        try:
            import tokenizers
        except ModuleNotFoundError as error:
            raise BackendUnavailableError(
                f"language models need tokenizers, which is not installed: {install_hint('llm')}"
            ) from error
        with _one_line("cannot be read"):
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(definition)
            # What a file says about rows of a batch is not about prompts: they would be cut or
            # filled up, to any length.
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()

    @property
    def size(self) -> int:
        """The number of tokens, added ones too."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, begin: bool = True) -> list[int]:
        """The tokens of a text; with ``begin`` those that the tokenizer puts around a text."""
        if not isinstance(text, str):
            raise InputError(f"a text was expected, not a {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # bytes on a command line that are no UTF-8
            # Where it is says nothing: of a chat the text is the whole prompt.
            before = text[max(error.start - 20, 0) : error.start]
            raise InputError(
                f"the text is no Unicode: behind {before!r} it has {text[error.start]!r}, half a "
                "character"
            ) from None
        with _one_line("cannot make tokens of the text"):
            return list(self._tokenizer.encode(text, add_special_tokens=begin).ids)

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """The text of tokens; with ``special`` that of control tokens too."""
        with _one_line("cannot make text of the tokens"):
            return str(self._tokenizer.decode(list(tokens), skip_special_tokens=not special))

    def token(self, text: str) -> int | None:
        """The number of a token by its text."""
        found = self._tokenizer.token_to_id(text)
        return None if found is None else int(found)


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Makes one of our errors of what a tokenizer fails with: the library raises Exception itself,
    and where a tokenizer makes no sense its panics, which are none."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise InputError(f"the tokenizer {what}: {shorten(error)}") from error


class TextStream:
    """Tokens in, text out, in pieces that are whole characters.

    A token may end within a character, and what it stands for may hang on those before it
    (spaces). So it is decoded behind some that were given already, and comes out once it does not
    end within a character.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        begun = list(before[-4:])
        while begun and tokenizer.decode(begun).startswith(REPLACEMENT):  # within a character
            del begun[0]
        #: tokens whose text was given already, in runs that are whole characters (what a control
        #: token stands for is no text: it does not say what a space hangs on); then those that wait
        self._given = [begun]
        self._waiting: list[int] = []

    def push(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character is not whole."""
        self._waiting.append(token)
        old, new = self._texts()
        if new.endswith(REPLACEMENT) and len(self._waiting) < 16:
            return ""
        return self._give(old, new)

    def finish(self) -> str:
        """What waits still, without a character that never became whole."""
        if not self._waiting:
            return ""
        old, new = self._texts()
        return self._give(old, new).rstrip(REPLACEMENT)

    def _texts(self) -> tuple[str, str]:
        decode = self._tokenizer.decode
        given = [token for run in self._given for token in run]
        return decode(given), decode([*given, *self._waiting])

    def _give(self, old: str, new: str) -> str:
        if self._waiting:
            self._given = [*self._given[-3:], self._waiting]
        self._waiting = []
        return new[len(old) :]


class StopStrings:
    """Text in, text out, up to a stop string: what may become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that is certain to come before any stop string."""
        if not self._stops or self.found:
            return "" if self.found else text
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            return self._held[: min(places)]
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - keep
        given, self._held = self._held[:cut], self._held[cut:]
        return given

    def finish(self) -> str:
        """What was held back and became no stop string."""
        held, self._held = self._held, ""
        return "" if self.found else held


def _overlap(text: str, stop: str) -> int:
    """How much of the end of ``text`` is a beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
