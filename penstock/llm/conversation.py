"""Messages that follow one another: :class:`Conversation`."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.errors import InputError
from penstock.llm.answer import Answer
from penstock.llm.cache import Context, Reading

if TYPE_CHECKING:
    from penstock.llm.model import LanguageModel


class Conversation:
    """Messages that follow one another, with a cache of its own.

    What was said stays in the cache: only what is new is read. Made by
    :meth:`LanguageModel.conversation`. It pickles as its model and its messages.
    """

    def __init__(self, model: LanguageModel, system: str | None = None) -> None:
        self._model, self._context = model, Context(model._decoder)
        self.messages: list[dict[str, str]] = []
        if system is not None:
            self.messages.append({"role": "system", "content": system})
        #: of the last answer
        self.last = Answer()
        #: the turn that is not at its end yet
        self._turn: _Turn | None = None

    def __repr__(self) -> str:
        longest = self._model.max_length
        return f"Conversation(messages: {len(self.messages)}, tokens: {self.length} of {longest})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._model, self.messages)

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return len(self._context.tokens)

    def send(self, text: str, **options: Any) -> str:
        """The answer to ``text``, what the user says; takes and raises what
        :meth:`LanguageModel.stream` does."""
        with self._model._decoder.lock:
            return "".join(self.stream(text, **options))

    def stream(
        self, text: str, *, progress: Reading | None = None, **options: Any
    ) -> Generator[str, None, None]:
        """As :meth:`send`, the answer to ``text`` piece by piece; ``progress`` is told how much of
        it was read. What was given before a break (a closed iterator, an exception) stays in the
        conversation as the answer. So it does where the conversation goes on before the iterator's
        end, which then has an :class:`InputError` for who asks it for more."""
        self._settle()
        asked = [*self.messages, {"role": "user", "content": text}]
        tokens = self._model.chat_tokens(asked)
        turn = _Turn(asked, Answer())
        pieces = self._model._stream(tokens, options, turn.answer, progress, self._context)
        self.last, self._turn = turn.answer, turn
        return self._told(turn, pieces)

    def _told(self, turn: _Turn, pieces: Generator[str, None, None]) -> Generator[str, None, None]:
        try:
            for piece in pieces:
                turn.begun = True
                yield piece
            turn.begun = True
        finally:
            if self._turn is turn:
                self._settle()

    def _settle(self) -> None:
        """Ends the turn that is not at its end, if there is one. An iterator may be closed much
        later: a traceback holds it, for instance."""
        turn, self._turn, self._context.turn = self._turn, None, None
        if turn is not None and turn.begun:
            answered = {"role": "assistant", "content": turn.answer.text}
            self.messages = [*turn.asked, answered]

    def rewind(self, turns: int = 1) -> None:
        """Forgets the last turns: what the user said and the answer.

        Raises :class:`InputError` unless there are so many.
        """
        self._settle()
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not isinstance(turns, int) or not 1 <= turns <= len(asked):
            raise InputError(f"cannot rewind {turns!r} turns: the conversation has {len(asked)}")
        del self.messages[asked[-turns] :]


@dataclass
class _Turn:
    """What was asked, and the answer, of which something was given once it has ``begun``."""

    asked: list[dict[str, str]]
    answer: Answer
    begun: bool = False


def _restored(model: LanguageModel, messages: list[dict[str, str]]) -> Conversation:
    conversation = model.conversation()
    conversation.messages = messages
    return conversation
