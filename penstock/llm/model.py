"""Language models to talk to: :func:`load` and :class:`LanguageModel`."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from operator import index
from pickle import PicklingError
from typing import Any

from penstock.errors import InputError, shorten
from penstock.faults import faults
from penstock.files import readable
from penstock.llm import assets as settings
from penstock.llm.answer import Answer
from penstock.llm.assets import Assets
from penstock.llm.cache import Context, Decoder, Reading
from penstock.llm.conversation import Conversation
from penstock.llm.memory import give_back_memory, without_collections
from penstock.llm.sampling import Options, Sampler, log_probability
from penstock.llm.template import Message, Tool, check, render
from penstock.llm.text import StopStrings, TextStream, Tokenizer
from penstock.runtime import load as load_program
from penstock.runtime.program import EngineChoice
from penstock.runtime.sources import Source, absolute


class LanguageModel:
    """A compiled language model. Made by :func:`load`.

    ``stream``, ``generate`` and ``chat`` share one context, of which they keep what begins alike;
    a stream that begins while another has it gets a new one. ``conversation()`` gives one of its
    own on the same weights. All may be called from any thread: answers as a whole (``generate``,
    ``chat``, ``send``) take turns, streams do so piece by piece.

    It pickles as the path of its file and its options, and is loaded again where it is unpickled.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, assets: Assets) -> None:
        self._decoder, self.tokenizer, self.assets = decoder, tokenizer, assets
        ends = dict.fromkeys(decoder.ends)
        self.ends: tuple[int, ...] = tuple(ends)
        #: the context of the last stream, unless one has it
        self._idle = [Context(decoder)]
        #: loads the same model in another process
        self._again: partial[LanguageModel] | None = None
        given = {
            key: int(value) if key == "top_k" else float(value)
            for key, value in assets.generation.items()
        }
        #: the options where none are given: greedy
        self.defaults = Options()
        #: what the checkpoint suggests for drawing
        self.suggested = Options.made(Options(temperature=1.0), given)

    def __repr__(self) -> str:
        name = self.assets.name or "without a name"
        return f"LanguageModel({name}, {self.assets.architecture}, {self.max_length} positions)"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._again is None:
            raise PicklingError("only a model that penstock.llm.load made can be pickled")
        return self._again, ()

    @property
    def max_length(self) -> int:
        """How many tokens a conversation may have."""
        return self._decoder.longest

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        answer: Answer | None = None,
        progress: Reading | None = None,
        **options: Any,
    ) -> Generator[str, None, None]:
        """The continuation of a prompt (a text, or tokens), piece by piece; :class:`Options`
        lists the options. ``answer`` is filled on the way, ``progress`` is told how much of a long
        prompt was read.

        Raises :class:`InputError` for wrong options, and for a prompt that is too long.
        """
        tokens = self._tokens(prompt)
        filled = Answer() if answer is None else answer
        return self._stream(tokens, options, filled, progress)

    def generate(
        self, prompt: str | Sequence[int], *, progress: Reading | None = None, **options: Any
    ) -> Answer:
        """The continuation of a prompt as a whole; takes (``progress`` too) and raises what
        :meth:`stream` does."""
        answer = Answer()
        with self._decoder.lock:
            for _ in self._stream(self._tokens(prompt), options, answer, progress):
                pass
        return answer

    def chat(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] | None = None, **options: Any
    ) -> str:
        """The answer to messages ``{"role": …, "content": …}``, by the checkpoint's chat template;
        ``tools`` are what the template is to tell the model of functions that it may call.

        Raises :class:`InputError` for messages or options that make no sense, and where the file
        has no chat template.
        """
        with self._decoder.lock:
            return "".join(self.chat_stream(messages, tools=tools, **options))

    def chat_stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        progress: Reading | None = None,
        **options: Any,
    ) -> Generator[str, None, None]:
        """As :meth:`chat`, the answer to ``messages`` piece by piece, with ``tools`` as there;
        ``progress`` is told how much of them was read."""
        tokens = self.chat_tokens(messages, tools)
        return self._stream(tokens, options, Answer(), progress)

    def conversation(self, system: str | None = None) -> Conversation:
        """A new conversation on the same weights, with a cache of its own; ``system`` is the
        message that it begins with."""
        return Conversation(self, system)

    def chat_tokens(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None
    ) -> list[int]:
        """The prompt for ``messages`` and ``tools``, as tokens; raises what :meth:`chat` does."""
        check(messages, tools)
        if self.assets.chat_template is None:
            raise InputError(
                f"{self.assets.name or 'the model'} has no chat template; use stream or generate "
                "with a prompt of your own"
            )
        prompt = render(self.assets.chat_template, messages, self.assets.special_tokens, tools)
        return self.tokenizer.encode(prompt, begin=False)

    def _tokens(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, (bytes, bytearray)):
            raise InputError("the prompt is bytes; give a text, or a list of tokens")
        try:
            tokens = (
                self.tokenizer.encode(prompt) if isinstance(prompt, str) else [*map(index, prompt)]
            )
        except TypeError as error:
            raise InputError(f"the prompt is neither a text nor tokens: {error}") from None
        if not tokens and self._decoder.begin is not None:
            tokens = [self._decoder.begin]
        if not tokens:
            raise InputError("the prompt is empty; give at least one token")
        self._decoder.check_tokens(tokens)
        return tokens

    def _stream(
        self,
        prompt: Sequence[int],
        given: dict[str, Any],
        answer: Answer,
        progress: Reading | None,
        context: Context | None = None,
    ) -> Generator[str, None, None]:
        """On ``context``, as a turn ``answer`` of it, or on one that no other stream has."""
        options = Options.made(self.defaults, given)
        if progress is not None and not callable(progress):
            raise InputError(f"progress is a {type(progress).__name__}; give a function")
        if len(prompt) > self.max_length and options.overflow == "error":
            raise InputError(
                f"the prompt has {len(prompt)} tokens, the file has {self.max_length} positions; "
                "shorten it, compile with a larger --max-length, or give overflow='slide'"
            )
        if context is None:
            return self._alone(list(prompt), options, answer, progress)
        context.turn = answer
        return self._pieces(context, list(prompt), options, answer, progress)

    def _alone(
        self, prompt: list[int], options: Options, answer: Answer, progress: Reading | None
    ) -> Generator[str, None, None]:
        try:
            context = self._idle.pop()
        except IndexError:
            context = Context(self._decoder)
        try:
            context.turn = answer
            yield from self._pieces(context, prompt, options, answer, progress)
        finally:
            self._idle[:] = [context]

    def _pieces(
        self,
        context: Context,
        prompt: list[int],
        options: Options,
        answer: Answer,
        progress: Reading | None,
    ) -> Generator[str, None, None]:
        begun = time.perf_counter()
        text = TextStream(self.tokenizer, prompt)
        stops, sampler = StopStrings(options.stop), Sampler(options)
        wanted = self._slid(prompt, options) if len(prompt) >= self.max_length else prompt
        with faults("generate"):
            logits = context.read(wanted, progress, answer)
        answer.read = len(wanted) - context.reused
        while True:
            token = sampler(logits, context.tokens)
            answer.seconds = time.perf_counter() - begun
            if not answer.tokens:
                answer.seconds_to_first = answer.seconds
            if token in self.ends:
                answer.finish = "end"
                break
            answer.tokens.append(token)
            if options.logprobs:
                answer.logprobs.append(log_probability(logits, token))
            piece = stops.push(text.push(token))
            answer.text += piece
            if piece:
                yield piece
            if stops.found:
                answer.finish = "stop"
                break
            if len(answer.tokens) == options.max_tokens:
                answer.finish = "length"
                break
            if len(context.tokens) >= self.max_length:
                if options.overflow == "error" and options.max_tokens is None:
                    answer.finish = "context"
                    break
                if options.overflow == "error":
                    raise InputError(
                        f"the context is full: {self.max_length} positions are the file's longest "
                        "length; compile with a larger --max-length, or give overflow='slide'"
                    )
                with faults("generate"):
                    logits = context.read(
                        self._slid([*context.tokens, token], options), None, answer
                    )
                continue
            with faults("generate"):
                logits = context.feed([token], None, answer)
        rest = stops.push(text.finish()) + stops.finish()
        answer.text += rest
        if rest:
            yield rest

    def _slid(self, tokens: list[int], options: Options) -> list[int]:
        """Half the context's length of the last tokens, behind the first one (the beginning)."""
        if options.overflow == "error":
            return tokens
        return [*tokens[:1], *tokens[-max(self.max_length // 2, 1) :]]


def load(
    path: Source,
    *,
    threads: int | None = None,
    engine: EngineChoice = "auto",
    tokenizer: str | os.PathLike[str] | None = None,
) -> LanguageModel:
    """Loads a language model. Needs the extra ``[llm]``, and no torch.

    Args:
        path: a file that ``penstock compile`` made of a checkpoint, or one of the stock flow; or
            the content of one.
        threads: how many threads to use; by default one for each CPU.
        engine: as for :func:`penstock.load`.
        tokenizer: the ``tokenizer.json`` of a file without one in it.

    Raises:
        InputError: there is no such file, or it is no language model, or it has no tokenizer.
        InvalidProgramError: it is damaged.
        BackendUnavailableError: a package is missing.
    """
    with without_collections():
        program = load_program(path, threads=threads, engine=engine, spare=True)
        name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else "the program"
        given = None if tokenizer is None else _given(tokenizer)
        found = settings.find(program.program, name) if given is None else given
        # Before the weights: what reading a tokenizer leaves behind is 30 MB.
        text = Tokenizer(found.tokenizer)
        found = replace(found, tokenizer="")
        give_back_memory()
        decoder = Decoder(program, name)
        give_back_memory()
        model = LanguageModel(decoder, text, found)
        again = absolute(path)
        model._again = partial(
            load,
            again if isinstance(again, str) else bytes(again),
            threads=threads,
            engine=engine,
            tokenizer=None if tokenizer is None else os.path.abspath(tokenizer),
        )
        return model


def _given(path: str | os.PathLike[str]) -> Assets:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"the tokenizer is a {type(path).__name__}; give the path of its file")
    try:
        return Assets("", "", readable(path, "tokenizer").read_text(encoding="utf-8"), 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the tokenizer {path}: {shorten(error)}") from error
