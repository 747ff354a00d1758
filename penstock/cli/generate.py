"""``penstock generate``: the continuation of a prompt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from penstock.cli.completion import PROGRAMS
from penstock.llm.export.named import require_program
from penstock.text import counted, prose

if TYPE_CHECKING:
    from penstock.llm import Answer

Temperature = Annotated[
    Optional[float],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Option(help="0 takes the likeliest token each time."),
]
TopP = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Draw among the likeliest that have this share together."),
]
TopK = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Draw among so many of the likeliest."),
]
MinP = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Draw among those with this share of the likeliest one's probability."),
]
Penalty = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--repetition-penalty", help="Above 1 makes tokens that were there less likely."),
]
Seed = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="The same seed draws the same answer."),
]
Stop = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="A text that ends the answer. Can be given several times."),
]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--threads", "-t", help="Default: one for each CPU."),
]
TokenizerFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--tokenizer", help="The tokenizer.json of a file without one in it."),
]
Slide = Annotated[
    bool,
    typer.Option("--slide", help="At the context's end forget the older half, and go on."),
]


def given(**options: Any) -> dict[str, Any]:
    """Those of the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def speed(answer: Answer) -> str:
    """What an answer took, for people."""
    return (
        f"{counted(answer.read, 'token')} read, first after {answer.seconds_to_first:.2f} s; "
        f"{counted(len(answer.tokens), 'token')}, {answer.tokens_per_second:.1f} tokens/s"
    )


class ReadingLine:
    """Says on stderr how much of a long prompt was read."""

    def __init__(self) -> None:
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        if not sys.stderr.isatty() or total < 256:
            return
        if done < total:
            print(f"\rreading {done} of {total} tokens", end="", file=sys.stderr, flush=True)
            self._shown = True
        elif self._shown:
            print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
            self._shown = False


def generate_command(
    file: Annotated[
        str, typer.Argument(help="A .pte file of a language model.", autocompletion=PROGRAMS)
    ],
    prompt: Annotated[str, typer.Argument(help="The text to go on with.")],
    max_tokens: Annotated[int, typer.Option(help="The answer's longest length.")] = 128,
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
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the answer alone.")] = False,
) -> None:
    """Go on with a prompt.

    Example: penstock generate smollm2_4bit.pte "Once upon a time" --max-tokens 40
    """
    from penstock import llm

    require_program(file)
    model = llm.load(file, threads=threads, tokenizer=tokenizer)
    answer = llm.Answer()
    pieces = model.stream(
        prompt,
        answer=answer,
        progress=ReadingLine(),
        **given(
            max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p,
            repetition_penalty=repetition_penalty, seed=seed, stop=stop,
            overflow="slide" if slide else None,
        ),
    )  # fmt: skip
    for piece in pieces:
        print(prose(piece), end="", flush=True)
    print()
    if not quiet:
        print(speed(answer), file=sys.stderr)
