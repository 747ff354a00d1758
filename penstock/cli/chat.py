"""``penstock chat``: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from penstock.cli.completion import PROGRAMS
from penstock.cli.generate import (
    MinP,
    Penalty,
    ReadingLine,
    Seed,
    Slide,
    Stop,
    Temperature,
    Threads,
    TokenizerFile,
    TopK,
    TopP,
    given,
    speed,
)
from penstock.errors import InputError
from penstock.llm.export.named import require_program
from penstock.text import one_line, printable, prose

if TYPE_CHECKING:
    from penstock.llm import Conversation

_HELP = "/new begins anew, /back forgets the last turn, /quit ends (so does Ctrl-D)"


def chat_command(
    file: Annotated[
        str, typer.Argument(help="A .pte file of a language model.", autocompletion=PROGRAMS)
    ],
    system: Annotated[
        Optional[str],  # noqa: UP045  (typer reads the annotation at run time)
        typer.Option(help="What the model is told before the conversation."),
    ] = None,
    max_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="An answer's longest length."),
    ] = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    stop: Stop = None,
    slide: Slide = False,
    threads: Threads = None,
    tokenizer: TokenizerFile = None,
) -> None:
    """Talk to a language model. Ctrl-C stops an answer, not the program.

    Example: penstock chat smollm2_4bit.pte --max-tokens 200
    """
    from penstock import llm

    options = given(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p,
        repetition_penalty=repetition_penalty, seed=seed, stop=stop,
        overflow="slide" if slide else None,
    )  # fmt: skip
    llm.Options(**options)  # what is wrong of them is so for every message
    require_program(file)
    model = llm.load(file, threads=threads, tokenizer=tokenizer)
    model.chat_tokens([{"role": "user", "content": ""}])  # whether it has a chat template
    print(f"{printable(str(model))}\n{_HELP}", file=sys.stderr)
    conversation, answered = model.conversation(system), True
    for line in _lines():
        if line == "/quit":
            break
        if line == "/new":
            conversation = model.conversation(system)
        elif line == "/back":
            with suppress(InputError):
                conversation.rewind()
        elif line.startswith("/"):
            print(_HELP, file=sys.stderr)
        elif line:
            answered &= _answer(conversation, line, options)
    if not answered and not asks():
        raise SystemExit(1)  # nobody sees that there was an error in the middle


def asks() -> bool:
    """Whether somebody types the messages."""
    return sys.stdin is not None and sys.stdin.isatty()


def _lines() -> Iterator[str]:
    while sys.stdin is not None:  # closed
        try:
            yield input("\n> " if asks() else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            print("\n" + _HELP, file=sys.stderr)


def _answer(conversation: Conversation, text: str, options: dict[str, Any]) -> bool:
    """Prints the answer to ``text``; whether there is one."""
    try:
        with closing(conversation.stream(text, progress=ReadingLine(), **options)) as pieces:
            for piece in pieces:
                print(prose(piece), end="", flush=True)
        print()
    except KeyboardInterrupt:
        print(" [stopped]")
    except InputError as error:  # the context's end: the conversation can go back or begin anew
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return False
    print(speed(conversation.last), file=sys.stderr)
    return True
